"""The `.npz` file that `nearsight embed` writes, from a stream, in memory that does not grow with it."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nearsight.apps.output import replacing
from nearsight.errors import Failure, StorageError

if TYPE_CHECKING:
    from nearsight.embedder import Embedded


def write_npz(path: Path, dim: int, results: Iterable["Embedded | Failure"]) -> tuple[int, list[Failure]]:
    """Write ``vectors``, ``paths`` and ``ids``, in the order of `results`; all or nothing.

    Parameters
    ----------
    path : Path
        Ends in ``.npz``. An older file of that name is replaced at the very end.
    dim : int
        Length of each vector.
    results : iterable of Embedded or Failure
        As `Embedder.stream` yields them.

    Returns
    -------
    n : int
        Rows written. ``vectors`` has shape (n, dim), float32. ``paths`` and ``ids`` are arrays of
        text, so the file loads without pickle.
    failed : list of Failure
        Pictures that have no row.

    Raises
    ------
    StorageError
        The disk is full or cannot be written to; nothing is left behind.
    """
    try:
        with replacing(path) as file, tempfile.TemporaryFile(dir=path.parent) as raw:
            paths, ids, failed = _spool(results, raw)
            _write_archive(file, raw, dim, paths, ids)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}; free some space or choose another place"
        ) from error
    return len(paths), failed


def _spool(
    results: Iterable["Embedded | Failure"], raw: IO[bytes]
) -> tuple[list[str], list[str], list[Failure]]:
    """Put the vectors on disk: their number, which the file begins with, is known only at the end."""
    paths: list[str] = []
    ids: list[str] = []
    failed: list[Failure] = []
    for result in results:
        if isinstance(result, Failure):
            failed.append(result)
        elif result.vector is not None:
            raw.write(result.vector.astype("<f4", copy=False).tobytes())
            paths.append(result.source.path)
            ids.append(result.id)
    raw.seek(0)
    return paths, ids, failed


def _write_archive(file: IO[bytes], raw: IO[bytes], dim: int, paths: list[str], ids: list[str]) -> None:
    import numpy as np
    from numpy.lib import format as npy

    shape: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (len(paths), dim)}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("vectors.npy", "w", force_zip64=True) as entry:
            npy.write_array_header_1_0(entry, shape)
            shutil.copyfileobj(raw, entry, 1024 * 1024)
        for name, values in (("paths", paths), ("ids", ids)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                npy.write_array(entry, np.array(values, dtype=str), allow_pickle=False)
