"""Which faces without a name match a person: what the latest grouping suggests."""

import json
from collections.abc import Mapping
from pathlib import Path

from nearsight.artifacts import exported

FILENAME = "suggestions.json"
_FORMAT = 1


def read_suggestions(directory: Path) -> dict[str, tuple[str, float]]:
    """Return for each face an enrolled face of the person that it matches, and its similarity.

    A face stands for the person, so a suggestion follows whatever the person is called, and no name is
    stored. A file that cannot be read counts as none: the next grouping writes it again.
    """
    try:
        content = json.loads((directory / FILENAME).read_text(encoding="utf-8"))
        return {id: (str(anchor), float(value)) for id, (anchor, value) in content["suggested"].items()}
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def write_suggestions(directory: Path, suggested: Mapping[str, tuple[str, float]]) -> None:
    """Replace the suggestions.

    Raises
    ------
    StorageError
        The disk is full or read-only.
    """
    with exported(directory / FILENAME) as file:
        file.write(json.dumps({"format": _FORMAT, "suggested": suggested}).encode())
