"""Vectors of unit length, and their similarities block by block, in bounded memory."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

#: Called after every block with the number of rows in it.
ProgressCallback = Callable[[int], object]

FloatArray = TypeVar("FloatArray", bound=NDArray[Any])

# Rows compared at once; fewer where the references are so many that a block would exceed 64 MB in float32.
_MOST_BLOCK_ROWS = 1024
_MOST_BLOCK_NUMBERS = 16_000_000
_UNIT_TOLERANCE = 1e-4


def unit_length(X: FloatArray, *, copy: bool = True) -> FloatArray:
    """Return rows scaled to unit length; a row of zeros stays a row of zeros.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        float32 and float64 keep their type; everything else becomes float32.
    copy : bool, default True
        If False, `X` itself is returned where every row has unit length within 0.0001.

    Returns
    -------
    ndarray of shape (n, d)

    Examples
    --------
    >>> unit_length(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    vectors: Any = X if X.dtype in (np.float32, np.float64) else X.astype(np.float32)
    lengths = _lengths(vectors)
    if not copy and vectors is X and np.all(np.abs(lengths - 1) < _UNIT_TOLERANCE):
        return X
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)  # type: ignore[no-any-return] # NumPy's stubs


def _lengths(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the (n, 1) lengths; NumPy would square all numbers before it adds any."""
    n, d = vectors.shape
    lengths = np.empty((n, 1), vectors.dtype)
    step = max(1, _MOST_BLOCK_NUMBERS // 4 // max(d, 1))
    for start in range(0, n, step):
        lengths[start : start + step, 0] = np.linalg.norm(vectors[start : start + step], axis=1)
    return lengths


def similarity_blocks(
    queries: NDArray[Any],
    references: NDArray[Any],
    *,
    own: NDArray[np.integer[Any]] | None = None,
    block_rows: int | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield the dot products of queries and references, block by block: cosines where rows have unit length.

    Parameters
    ----------
    queries : ndarray of shape (n, d)
    references : ndarray of shape (m, d)
    own : ndarray of shape (n,), int, optional
        The row of `references` that each query is itself, or -1. That similarity is -inf.
    block_rows : int, optional
        Queries in a block. By default at most 1,024, and so few that a block has at most 16 million numbers.
    progress : callable, optional
        Called after every block with the number of its queries.

    Yields
    ------
    rows : slice
        Which queries the block holds.
    similarities : ndarray of shape (rows, m)
        The caller may change it.
    """
    n, m = len(queries), len(references)
    step = block_rows or max(1, min(_MOST_BLOCK_ROWS, _MOST_BLOCK_NUMBERS // max(m, 1)))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        similarities = queries[rows] @ references.T
        if own is not None:
            present = np.flatnonzero(own[rows] >= 0)
            similarities[present, own[rows][present]] = -np.inf
        yield rows, similarities
        if progress is not None:
            progress(rows.stop - start)
