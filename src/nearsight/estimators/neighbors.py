"""Vectors of unit length, and the exact nearest neighbors of rows, in bounded memory."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

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
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not copy and vectors is X and np.all(np.abs(lengths - 1) < _UNIT_TOLERANCE):
        return X
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)  # type: ignore[no-any-return] # NumPy's stubs


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


def highest(similarities: NDArray[Any], k: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the columns and values of the `k` highest numbers of each row, the highest first.

    Of equal numbers the lower column comes first.

    Parameters
    ----------
    similarities : ndarray of shape (n, m)
    k : int
        At least 1. With fewer columns, all of them are returned.

    Returns
    -------
    columns : ndarray of shape (n, min(k, m)), int64
    values : ndarray of shape (n, min(k, m))
    """
    m = similarities.shape[1]
    if k < m:
        columns = np.sort(np.argpartition(-similarities, k - 1, axis=1)[:, :k], axis=1)
    else:
        columns = np.broadcast_to(np.arange(m), similarities.shape)
    values = np.take_along_axis(similarities, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


def nearest_neighbors(
    queries: NDArray[Any],
    references: NDArray[Any],
    k: int,
    *,
    own: NDArray[np.integer[Any]] | None = None,
    block_rows: int | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the `k` most similar references of each query, the most similar first: exact.

    Parameters
    ----------
    queries : ndarray of shape (n, d), unit length
    references : ndarray of shape (m, d), unit length
    k : int
        At least 1. With fewer references, all of them are returned.
    own, block_rows, progress
        See `similarity_blocks`.

    Returns
    -------
    rows : ndarray of shape (n, min(k, m)), int64
        Rows of `references`; -1 where nothing is left, which is where a query would be its own neighbor.
    similarities : ndarray of shape (n, min(k, m))
        Cosines in the type of the vectors; -inf where there is no neighbor.

    Notes
    -----
    Costs n × m × d operations; memory for one block and the result.

    Examples
    --------
    >>> X = unit_length(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], np.float32))
    >>> nearest_neighbors(X, X, 1, own=np.arange(3))[0].ravel().tolist()
    [1, 0, 1]
    """
    k = min(k, len(references))
    rows = np.full((len(queries), k), -1, np.int64)
    similarities = np.full((len(queries), k), -np.inf, np.result_type(queries, references))
    if k == 0:
        return rows, similarities
    for block, products in similarity_blocks(
        queries, references, own=own, block_rows=block_rows, progress=progress
    ):
        columns, values = highest(products, k)
        rows[block] = np.where(values > -np.inf, columns, -1)
        similarities[block] = values
    return rows, similarities


def euclidean_neighbors(
    X: NDArray[np.float32], k: int, *, progress: ProgressCallback | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the distances and rows of the `k` nearest other rows of each row, the nearest first: exact.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32
        Of any length.
    k : int
        In 1..n - 1.
    progress : callable, optional
        Called after every block with the number of its rows.

    Returns
    -------
    distances : ndarray of shape (n, k), float32
    rows : ndarray of shape (n, k), int32

    Notes
    -----
    Costs n² × d operations; memory for one block and the result.
    """
    n, step = len(X), 4 * _MOST_BLOCK_ROWS
    index = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(X)
    distances, rows = np.empty((n, k), np.float32), np.empty((n, k), np.int32)
    for start in range(0, n, step):
        block_distances, block_rows = index.kneighbors(X[start : start + step])
        # A row is not its own neighbor. Among duplicates it may not even be among the neighbors returned.
        own = block_rows == np.arange(start, start + len(block_rows))[:, None]
        own[~own.any(1), -1] = True
        distances[start : start + step] = block_distances[~own].reshape(-1, k)
        rows[start : start + step] = block_rows[~own].reshape(-1, k)
        if progress is not None:
            progress(len(block_rows))
    return distances, rows
