"""The nearest neighbors of every row as candidate pairs."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nearsight.estimators.neighbors import EXACT_ROWS, ProgressCallback, nearest_neighbors

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def candidate_pairs(
    X: Floats,
    *,
    n_neighbors: int,
    min_similarity: float,
    splits: Ints | None = None,
    exact_rows: int = EXACT_ROWS,
    random_state: int | None = 0,
    n_threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[Ints, Floats]:
    """Return the pairs of which one row is among the nearest neighbors of the other.

    *Method*: see `neighbors.nearest_neighbors`.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32, unit length
    n_neighbors : int
        Neighbors of each row.
    min_similarity : float
        In -1..1: the lowest cosine of a pair.
    splits : ndarray of shape (n,), int64, optional
        Only rows of different splits are paired; rows of split -1 are left out.
    exact_rows, random_state, n_threads, progress
        See `neighbors.nearest_neighbors`.

    Returns
    -------
    pairs : ndarray of shape (m, 2), int64
        The lower row first; sorted.
    similarities : ndarray of shape (m,), float32
    """
    left, right, similarities = [], [], []
    for rows, references, own in compared_rows(splits, len(X)):
        found, cosines = nearest_neighbors(
            X if len(rows) == len(X) else X[rows],
            X if len(references) == len(X) else X[references],
            n_neighbors,
            own=own,
            min_similarity=min_similarity,
            exact_rows=exact_rows,
            random_state=random_state,
            n_threads=n_threads,
            progress=progress,
        )
        at, rank = np.nonzero(found >= 0)
        left.append(rows[at])
        right.append(references[found[at, rank]])
        similarities.append(cosines[at, rank].astype(np.float32))
    if not left:
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    return best_pairs(np.concatenate(left), np.concatenate(right), np.concatenate(similarities))


def compared_rows(splits: Ints | None, n: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield rows, the rows that they are compared with, and the place of each row among those, or -1."""
    if splits is None or len(np.unique(splits)) < 2:
        rows = np.arange(n) if splits is None else np.flatnonzero(splits >= 0)
        if len(rows):
            yield rows, rows, np.arange(len(rows))
        return
    # Across splits, each split is compared with all others.
    for split in np.unique(splits[splits >= 0]):
        rows, references = np.flatnonzero(splits == split), np.flatnonzero((splits >= 0) & (splits != split))
        if len(references):
            yield rows, references, np.full(len(rows), -1)


def best_pairs(left: Ints, right: Ints, similarities: Floats) -> tuple[Ints, Floats]:
    """Return every pair once, the lower row first, sorted, with the highest of its similarities."""
    low, high = np.minimum(left, right), np.maximum(left, right)
    order = np.lexsort((-similarities, high, low))
    low, high, similarities = low[order], high[order], similarities[order]
    is_first = np.append(True, (low[1:] != low[:-1]) | (high[1:] != high[:-1]))[: len(low)]
    return np.stack([low, high], axis=1)[is_first].astype(np.int64), similarities[is_first]
