"""The state of a training after an epoch, in one file that appears whole or not at all."""

import os
from pathlib import Path
from typing import Any

import torch

from nearsight.artifacts import exported
from nearsight.errors import StorageError


def write_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain data; after a crash the file holds this state or the one before.

    Raises
    ------
    StorageError
        The disk refuses.
    """
    with exported(file) as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())


def read_checkpoint(file: Path) -> dict[str, Any] | None:
    """Return what `write_checkpoint` wrote, on the processor; None if there is no file.

    Raises
    ------
    StorageError
        The file is damaged, or holds anything but tensors and plain data; no code in it is run.
    """
    if not file.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    # A damaged file can raise nearly anything.
    except Exception as error:
        raise StorageError(
            f"{file} cannot be read as the state of a training ({type(error).__name__}: {error}); delete "
            f"{file.parent} to start anew"
        ) from error
    return state
