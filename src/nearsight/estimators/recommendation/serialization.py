"""Sparse matrices as plain arrays, for a file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_PARTS = ("data", "indices", "indptr")


def to_arrays(name: str, matrix: sparse.csr_matrix) -> dict[str, NDArray[Any]]:
    """Return the arrays of a matrix, their names beginning with its own."""
    arrays: dict[str, NDArray[Any]] = {f"{name}.{part}": getattr(matrix, part) for part in _PARTS}
    return {**arrays, f"{name}.shape": np.array(matrix.shape, np.int64)}


def from_arrays(name: str, arrays: Mapping[str, NDArray[Any]]) -> sparse.csr_matrix:
    """Return the matrix that `to_arrays` was called on.

    Raises
    ------
    KeyError, ValueError
        The arrays are not those of a matrix.

    Examples
    --------
    >>> matrix = sparse.csr_matrix([[0, 1.5], [0, 0]])
    >>> from_arrays("m", to_arrays("m", matrix)).toarray().tolist()
    [[0.0, 1.5], [0.0, 0.0]]
    """
    parts = tuple(np.asarray(arrays[f"{name}.{part}"]) for part in _PARTS)
    shape = tuple(int(n) for n in arrays[f"{name}.shape"])
    matrix = sparse.csr_matrix(parts, shape=shape)
    matrix.check_format(full_check=True)
    return matrix
