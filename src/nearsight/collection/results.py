"""One result of a search."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Match:
    """One image found by similarity.

    Attributes
    ----------
    id : str
        Hash of the content, 32 hex digits.
    path : str
        Where it is; empty for an image that never was a file.
    similarity : float
        Cosine in -1..1; higher is closer.
    metadata : dict
        What the user attached.
    """

    id: str
    path: str
    similarity: float
    metadata: dict[str, Any] = field(default_factory=dict)
