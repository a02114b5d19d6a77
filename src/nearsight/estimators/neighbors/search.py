"""The nearest neighbors of many rows: exact for few or on a GPU, else by parts, with measured recall."""

import math
from typing import Any, Literal

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nearsight.estimators.neighbors.best_rows import BestRows
from nearsight.estimators.neighbors.partition import leave_out_own, search_by_parts
from nearsight.estimators.neighbors.similarities import ProgressCallback
from nearsight.estimators.neighbors.torch_products import accelerator, search_with_torch
from nearsight.parallel import ordered_map

#: Up to so many rows, all are compared with all, in seconds.
EXACT_ROWS = 20_000

Ints = NDArray[np.int64]
Floats = NDArray[Any]

# Queries that are compared exactly, to measure the recall, and the recall that is enough.
_N_MEASURED, _ENOUGH_RECALL = 500, 0.99
# It is enough even less so many standard errors: it is measured after every round, so chance has many tries.
_N_ERRORS = 2
# Similarities that differ by no more are equal: blocks of other shapes round differently.
_ROUNDING = 2e-6
# Queries and references in a block of an exact search.
_BLOCK_ROWS = 1024
_REFERENCE_ROWS = 8192
# Euclidean neighbors that are ranked once more by exact distances, beyond those asked for.
_SPARE_NEIGHBORS = 4


def choose_search(n: int, m: int, *, exact_rows: int = EXACT_ROWS) -> Literal["exact", "parts"]:
    """Return how n queries are compared with m references: "exact" up to `exact_rows`² products.

    Examples
    --------
    >>> choose_search(20_000, 20_000), choose_search(1_000_000, 400), choose_search(50_000, 50_000)
    ('exact', 'exact', 'parts')
    """
    return "exact" if n * m <= exact_rows**2 else "parts"


def n_parts_of(m: int) -> int:
    """Return the number of parts for m references: then ranking parts costs as much as comparing with 4."""
    return min(m, round(2 * math.sqrt(m)))


def nearest_neighbors(
    queries: Floats,
    references: Floats,
    k: int,
    *,
    own: NDArray[np.integer[Any]] | None = None,
    min_similarity: float = -np.inf,
    exact_rows: int = EXACT_ROWS,
    random_state: int | None = 0,
    n_threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[Ints, Floats]:
    """Return the `k` most similar references of each query, the most similar first.

    *Method*: up to `exact_rows`² products, all of them, block by block. Beyond, with PyTorch and an NVIDIA
    GPU, all of them there; of equally similar references any may be returned. Else references are put into
    2 √m parts by k-means, those of 382 numbers and more by their 64 principal directions, and each query is
    compared with the parts around it, one more at a time, until of the neighbors of 500 random queries at
    least 0.99 are found, less two standard errors; if need be, with all references, which is exact. With a
    `min_similarity`, sketches of long vectors rule out most pairs (`sketches`).

    Parameters
    ----------
    queries : ndarray of shape (n, d), unit length
    references : ndarray of shape (m, d), unit length
    k : int
        At least 1. With fewer references, all of them are returned.
    own : ndarray of shape (n,), int, optional
        The row of `references` that each query is itself, or -1. It is not its own neighbor.
    min_similarity : float, optional
        Less similar references are no neighbors; they do not count for the recall either.
    exact_rows : int, default 20000
    random_state : int or None, default 0
        Draws the sample that parts are fitted on, and the queries that measure the recall.
    n_threads : int, optional
        By default all cores. The result does not depend on it.
    progress : callable, optional
        Called with numbers of queries, n in all. Of a search by parts they say how many of the neighbors to
        be found are found, so that equal numbers take about equally long.

    Returns
    -------
    rows : ndarray of shape (n, min(k, m)), int64
        Rows of `references`; -1 where nothing is left.
    similarities : ndarray of shape (n, min(k, m))
        Cosines in the type of the vectors; -inf where there is no neighbor.

    Notes
    -----
    Costs n m d operations if exact, else 2 (n + m) √m d and at least 4 n √m d; with 192 in place of d where
    sketches are used, and with 64 to rank parts of long vectors. Memory: the result, a block for each thread,
    4 bytes for each part that a query is compared with, and 1 kB for each long vector. Of equally similar
    references at the end of a list, the lower row is returned if the search is exact.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], np.float32)
    >>> nearest_neighbors(X, X, 1, own=np.arange(3))[0].ravel().tolist()
    [1, 0, 1]
    """
    own_rows = np.full(len(queries), -1) if own is None else np.asarray(own, np.int64)
    found = _search(
        queries, references, min(k, len(references)), own_rows, None, min_similarity,
        exact_rows, random_state, n_threads or cpu_count(), progress,
    )  # fmt: skip
    return found.rows, found.similarities


def euclidean_neighbors(
    X: NDArray[np.float32],
    k: int,
    *,
    exact_rows: int = EXACT_ROWS,
    n_threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the distances and rows of the `k` nearest other rows of each row, the nearest first.

    *Method*: as `nearest_neighbors`, by x·y - |y|²/2, which is highest for the nearest row.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32
        Of any length.
    k : int
        In 1..n - 1.
    exact_rows, n_threads, progress
        See `nearest_neighbors`.

    Returns
    -------
    distances : ndarray of shape (n, k), float32
    rows : ndarray of shape (n, k), int32
    """
    n, step = len(X), 4096
    distances, rows = np.empty((n, k), np.float32), np.empty((n, k), np.int32)
    if choose_search(n, n, exact_rows=exact_rows) == "exact":
        from sklearn.neighbors import NearestNeighbors

        index = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(X)
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
    # Around the mean, less is lost when nearly equal numbers are subtracted.
    centered = X - X.mean(axis=0)
    offsets = np.einsum("ij,ij->i", centered, centered) / 2
    found = _search(
        centered, centered, min(k + _SPARE_NEIGHBORS, n - 1), np.arange(n), offsets, -np.inf,
        exact_rows, 0, n_threads or cpu_count(), progress,
    )  # fmt: skip
    for start in range(0, n, step):
        near = found.rows[start : start + step]
        gaps = np.linalg.norm(centered[start : start + step, None] - centered[near], axis=2)
        order = np.argsort(gaps, axis=1, kind="stable")[:, :k]
        distances[start : start + step] = np.take_along_axis(gaps, order, axis=1)
        rows[start : start + step] = np.take_along_axis(near, order, axis=1)
    return distances, rows


def _search(
    queries: Floats,
    references: Floats,
    k: int,
    own: Ints,
    offsets: Floats | None,
    min_similarity: float,
    exact_rows: int,
    random_state: int | None,
    n_threads: int,
    progress: ProgressCallback | None,
) -> BestRows:
    dtype = np.result_type(queries, references)
    best = BestRows(len(queries), k, dtype, min_similarity)
    if k == 0 or not len(queries):
        return best
    if choose_search(len(queries), len(references), exact_rows=exact_rows) == "exact":
        _compare_all(queries, references, best, own, offsets, n_threads, progress)
        return best
    if (device := accelerator()) is not None:
        search_with_torch(
            queries, references, best,
            own=own, offsets=offsets, min_similarity=min_similarity, device=device, progress=progress,
        )  # fmt: skip
        return best
    rng = np.random.default_rng(random_state)
    measured = np.sort(rng.choice(len(queries), min(_N_MEASURED, len(queries)), replace=False))
    truth = BestRows(len(measured), k, dtype, min_similarity)
    _compare_all(queries[measured], references, truth, own[measured], offsets, n_threads, None)

    n_told = 0

    def is_enough() -> bool:
        nonlocal n_told
        recall = _least_recall(truth.similarities, best.similarities[measured])
        if progress is not None:
            # About every so many rounds as halved it before, what is missing is halved.
            share = math.log(max(1 - recall, 1e-9)) / math.log(1 - _ENOUGH_RECALL)
            n_now = int(len(queries) * min(1.0, max(0.0, share)))
            if n_now > n_told:
                progress(n_now - n_told)
                n_told = n_now
        return recall >= _ENOUGH_RECALL

    n_parts = n_parts_of(len(references))
    found_enough = search_by_parts(
        queries, references, best,
        own=own, offsets=offsets, n_parts=n_parts, random_state=random_state, n_threads=n_threads,
        is_enough=is_enough,
    )  # fmt: skip
    if not found_enough:  # by chance, sketches ruled out too many pairs
        best = BestRows(len(queries), k, dtype, min_similarity)
        _compare_all(queries, references, best, own, offsets, n_threads, None)
    if progress is not None and n_told < len(queries):
        progress(len(queries) - n_told)
    return best


def _least_recall(truth: Floats, found: Floats) -> float:
    """Return the share of the true neighbors that was found, less what may be by chance."""
    is_neighbor = truth > -np.inf
    if not is_neighbor.any():
        return 1.0
    # By similarity, since equally similar rows are equally right.
    last = np.where(is_neighbor, truth, np.inf).min(axis=1, keepdims=True)
    n_true = is_neighbor.sum(axis=1)
    n_found = np.minimum((found >= last - _ROUNDING).sum(axis=1), n_true)
    recall = n_found.sum() / n_true.sum()
    deviations = n_found - recall * n_true
    error = np.sqrt((deviations**2).sum()) / n_true.sum()
    return float(recall - _N_ERRORS * error)


def _compare_all(
    queries: Floats,
    references: Floats,
    best: BestRows,
    own: Ints,
    offsets: Floats | None,
    n_threads: int,
    progress: ProgressCallback | None,
) -> None:
    blocks = [slice(at, min(at + _BLOCK_ROWS, len(queries))) for at in range(0, len(queries), _BLOCK_ROWS)]

    def compare(block: slice) -> int:
        for start in range(0, len(references), _REFERENCE_ROWS):
            columns = np.arange(start, min(start + _REFERENCE_ROWS, len(references)))
            products = queries[block] @ references[start : start + _REFERENCE_ROWS].T
            if offsets is not None:
                products -= offsets[columns]
            leave_out_own(products, own[block], columns)
            best.merge(block, columns, products)
        return int(block.stop - block.start)

    with threadpool_limits(1, "blas"):
        for n_compared in ordered_map(compare, blocks, n_threads=n_threads):
            if progress is not None:
                progress(n_compared)
