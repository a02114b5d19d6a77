"""Which rows of a set are unlike the rest."""

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import InvalidParameterError

# Distances of a block to 5,000 others: 20 MB.
_BLOCK = 1024


def outlyingness(
    X: NDArray[np.float32],
    reference: NDArray[np.float32],
    own: NDArray[np.int64],
    *,
    n_neighbors: int = 3,
) -> NDArray[np.float64]:
    """Return how far each row is from its nearest others.

    *Method*: mean Euclidean distance to the nearest neighbors (Angiulli and Pizzuti 2002,
    https://doi.org/10.1007/3-540-45681-3_2), among `reference`, which may be a random part of all rows
    (Sugiyama and Borgwardt 2013): that costs n rather than n².

    Parameters
    ----------
    X : ndarray of shape (n, d), float32
    reference : ndarray of shape (m, d), float32
    own : ndarray of shape (n,), int64
        Where in `reference` each row is itself; -1 where it is not. A row is no neighbor of its own.
    n_neighbors : int, default 3
        At least 1; as many as there are where that is fewer.

    Returns
    -------
    ndarray of shape (n,), float64
        Higher is more unusual; 0 for a row that has no other, and for one of several that are the same.

    Examples
    --------
    >>> rows = np.array([[0, 0], [0, 1], [1, 0], [9, 9]], np.float32)
    >>> outlyingness(rows, rows, np.arange(4), n_neighbors=1).argmax()
    np.int64(3)
    """
    if n_neighbors < 1:
        raise InvalidParameterError(f"n_neighbors is {n_neighbors}; it must be at least 1")
    found = np.zeros(len(X))
    lengths = np.einsum("md,md->m", reference, reference)
    for start in range(0, len(X), _BLOCK):
        block = X[start : start + _BLOCK]
        mine = own[start : start + _BLOCK]
        away = lengths - 2 * (block @ reference.T)
        there = np.flatnonzero(mine >= 0)
        away[there, mine[there]] = np.inf
        k = min(n_neighbors, len(reference) - bool(len(there)))
        if k < 1:
            continue
        near = np.argpartition(away, k - 1, axis=1)[:, :k]
        # From the differences themselves: a small distance out of large products would be noise.
        gaps = np.linalg.norm(block[:, None] - reference[near], axis=2)
        found[start : start + _BLOCK] = gaps.mean(1)
    return found
