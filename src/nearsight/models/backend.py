"""The protocol every model stands behind, and what the registry knows before loading one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.models.spec import ModelSpec


@runtime_checkable
class Backend(Protocol):
    """Turns pictures into vectors, in two halves so that the first can run beside others.

    Both halves are called from several threads at once, and give the same vector for a picture
    whatever batch it travels in (to 1e-5). A backend can be pickled: it loads again on the other side.
    """

    @property
    def spec(self) -> ModelSpec:
        """The model's facts."""
        ...

    @property
    def decode_px(self) -> int | None:
        """Shorter side, in pixels, that a decoded picture must have at least; None for full size."""
        ...

    def prepare(self, image: Image.Image) -> Any:
        """Turn one upright RGB picture into what `embed` takes a sequence of."""
        ...

    def embed(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Return vectors of shape (n, dim), float32, in order; (0, dim) for nothing."""
        ...


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What a plugin registers: the facts, and how to get the model.

    Attributes
    ----------
    spec : ModelSpec
        Known without loading anything.
    load : callable
        Given the cache directory, returns the backend. Heavy imports belong inside.
    available : callable
        Whether `load` would work offline on this machine now.
    install : str
        The command that makes it available; empty where there is none.
    """

    spec: ModelSpec
    load: Callable[[Path], Backend]
    available: Callable[[], bool]
    install: str = ""
