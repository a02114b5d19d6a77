"""Arrays that are larger than memory may be: in a file without a name, which ends with the process."""

import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Smaller arrays stay in memory, so that small collections need no file.
_LEAST_BYTES = 16_000_000


def scratch_array(
    shape: tuple[int, ...], dtype: DTypeLike, *, least_bytes: int = _LEAST_BYTES
) -> NDArray[Any]:
    """Return an array of zeros, mapped from a temporary file if it is large.

    The system writes pages of a mapped array to the file where memory is short, and reads them again.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    least_bytes : int
        A smaller array is an ordinary one; so is one for which the temporary folder has no room.

    Notes
    -----
    The folder is Python's: `TMPDIR` names another one.
    """
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if n_bytes >= least_bytes:
        try:
            with tempfile.TemporaryFile(prefix="nearsight-") as file:
                # Without this, a full disk would end the process at some later write.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, n_bytes)
                return np.memmap(file, dtype, "w+", shape=shape)
        except OSError:
            pass
    # Pages of zeros that are never written take no memory.
    return np.zeros(shape, dtype)
