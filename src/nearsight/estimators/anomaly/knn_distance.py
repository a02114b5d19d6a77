"""Outliers of a set of rows, by the distance to their nearest neighbors."""

import numpy as np
from numpy.typing import NDArray

from nearsight.estimators.neighbors import similarity_blocks
from nearsight.parameters import require_whole

# A block of rows has 20 MB of distances to 5,000 references.
_BLOCK_ROWS = 1024


def knn_distances(
    X: NDArray[np.float32],
    reference: NDArray[np.float32],
    own: NDArray[np.int64],
    *,
    n_neighbors: int = 3,
) -> NDArray[np.float64]:
    """Return the mean distance of each row to its nearest other rows.

    *Method*: mean Euclidean distance to the nearest neighbors (Angiulli and Pizzuti 2002,
    https://doi.org/10.1007/3-540-45681-3_2) among `reference`, which may be a random sample of all rows
    (Sugiyama and Borgwardt 2013): this costs n rather than n².

    Parameters
    ----------
    X : ndarray of shape (n, d), float32
    reference : ndarray of shape (m, d), float32
    own : ndarray of shape (n,), int64
        The row of `reference` that each row is itself, or -1. A row is not its own neighbor.
    n_neighbors : int, default 3
        At least 1; fewer if there are fewer other rows.

    Returns
    -------
    ndarray of shape (n,), float64
        Higher is more unusual; 0 for a row without another, and for duplicates.

    Examples
    --------
    >>> rows = np.array([[0, 0], [0, 1], [1, 0], [9, 9]], np.float32)
    >>> knn_distances(rows, rows, np.arange(4), n_neighbors=1).argmax()
    np.int64(3)
    """
    require_whole("n_neighbors", n_neighbors)
    distances = np.zeros(len(X))
    lengths = np.einsum("md,md->m", reference, reference)
    for rows, products in similarity_blocks(X, reference, own=own, block_rows=_BLOCK_ROWS):
        k = min(n_neighbors, len(reference) - bool((own[rows] >= 0).any()))
        if k < 1:
            continue
        nearest = np.argpartition(lengths - 2 * products, k - 1, axis=1)[:, :k]
        # From the differences: a small distance as the difference of two large products would be noise.
        distances[rows] = np.linalg.norm(X[rows][:, None] - reference[nearest], axis=2).mean(1)
    return distances
