"""Vectors of rows: in an array, or in a file that is too large to be held and is read row by row."""

import os
import weakref
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import StorageError

_Array = NDArray[np.float32]
_ROWS_PER_READ = 4096


class Vectors(Protocol):
    """The (n, d) float32 vectors of rows, wherever they are: what is read are the stored numbers."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and numbers of each."""
        ...

    def take(self, positions: NDArray[np.int64]) -> _Array:
        """Return the vectors of some rows."""
        ...

    def block(self, start: int, stop: int) -> _Array:
        """Return the vectors of rows that follow each other; not to be written into."""
        ...

    def products(self, query: _Array) -> _Array:
        """Return the inner products of all rows with a (d,) query."""
        ...


class HeldVectors:
    """Vectors in an array, which may be a mapped file.

    Parameters
    ----------
    array : ndarray of float32, shape (n, d)
    """

    def __init__(self, array: _Array) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and numbers of each."""
        n, dim = self.array.shape
        return n, dim

    def take(self, positions: NDArray[np.int64]) -> _Array:
        """Return the vectors of some rows."""
        return self.array[positions]

    def block(self, start: int, stop: int) -> _Array:
        """Return the vectors of rows that follow each other; not to be written into."""
        return self.array[start:stop]

    def products(self, query: _Array) -> _Array:
        """Return the inner products of all rows with a (d,) query."""
        products: _Array = self.array @ query
        return products


class FileVectors:
    """Vectors in a file that is read, not mapped.

    To touch a row of a mapped file maps the pages around it, too: after 300 searches among a million rows, a
    process would hold most of the file. To read a row takes two microseconds, as long as to find such a page.

    Parameters
    ----------
    path : Path
        Rows of float32 in the machine's byte order, and nothing else.
    n, dim : int
        Rows, and numbers of each.
    """

    def __init__(self, path: Path, n: int, dim: int) -> None:
        self.shape = (n, dim)
        self._path = path
        # It stays readable when another process deletes it.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def take(self, positions: NDArray[np.int64]) -> _Array:
        """Return the vectors of some rows."""
        if len(positions) > 1 and (np.diff(positions) == 1).all():
            return self.block(int(positions[0]), int(positions[-1]) + 1)
        vectors = np.empty((len(positions), self.shape[1]), np.float32)
        row_bytes = vectors.itemsize * self.shape[1]
        for row, position in zip(vectors, positions.tolist(), strict=True):
            if os.preadv(self._descriptor, [row.data], position * row_bytes) != row_bytes:
                raise self._is_short()
        return vectors

    def block(self, start: int, stop: int) -> _Array:
        """Return the vectors of rows that follow each other."""
        vectors = np.empty((stop - start, self.shape[1]), np.float32)
        rest, at = vectors.ravel().view(np.uint8), vectors.itemsize * self.shape[1] * start
        while len(rest):
            n = os.preadv(self._descriptor, [rest.data], at)
            if not n:
                raise self._is_short()
            rest, at = rest[n:], at + n
        return vectors

    def products(self, query: _Array) -> _Array:
        """Return the inner products of all rows with a (d,) query."""
        n = self.shape[0]
        starts = range(0, n, _ROWS_PER_READ)
        products: _Array = np.concatenate(
            [self.block(start, min(n, start + _ROWS_PER_READ)) @ query for start in starts]
        )
        return products

    def _is_short(self) -> StorageError:
        return StorageError(f"{self._path} was cut; delete {self._path.parent} and search again")


def in_file(path: Path, n: int, dim: int, *, is_large: bool) -> Vectors:
    """Return the vectors of a file: mapped, or if it is large and the system can, read row by row."""
    if is_large and hasattr(os, "preadv"):  # not on Windows
        return FileVectors(path, n, dim)
    return HeldVectors(np.memmap(path, np.float32, "r", shape=(n, dim)).view(np.ndarray))
