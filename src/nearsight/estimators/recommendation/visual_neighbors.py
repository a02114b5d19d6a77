"""The visually most similar items of every item; they stand in for baskets where there are none."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nearsight.estimators.conformal import from_nonmatching_pairs, required_examples
from nearsight.estimators.neighbors import nearest_neighbors
from nearsight.parameters import require_whole
from nearsight.progress import bar

# A neighbor that is 0.05 less similar has a third of the weight.
_BANDWIDTH = 0.05
# Neighbors that are stored for each that is used, since some are hidden while the blends are fitted.
_SPARE_FACTOR = 5
# The share of random pairs that count as similar, and the pairs that are drawn.
_SIMILAR_RATE = 0.01
_RANDOM_PAIRS = 20_000


@dataclass(frozen=True)
class VisualNeighbors:
    """The most similar bought items of every item.

    Attributes
    ----------
    neighbors : ndarray of shape (n, m), int64
        The most similar first; -1 where there are no more.
    similarity : ndarray of shape (n, m), float32
        Cosines.
    """

    neighbors: NDArray[np.int64]
    similarity: NDArray[np.float32]

    @classmethod
    def search(
        cls,
        X: NDArray[np.float32],
        bought: NDArray[np.bool_],
        n_neighbors: int,
        *,
        progress: bool | None = False,
    ) -> "VisualNeighbors":
        """Search them; see `neighbors.nearest_neighbors`."""
        require_whole("n_neighbors", n_neighbors)
        items = np.flatnonzero(bought)
        own = np.full(len(X), -1)
        own[items] = np.arange(len(items))
        with bar("comparing items", len(X), unit="items", progress=progress) as shown:
            rows, similarity = nearest_neighbors(
                X,
                X[items],
                n_neighbors * _SPARE_FACTOR,
                own=own,
                progress=shown.update,
            )
        neighbors = np.append(items, -1)[rows]
        return cls(neighbors, similarity)

    def weights(self, bought: NDArray[np.bool_], n_neighbors: int) -> sparse.csr_matrix:
        """Return the (n, n) weights of the nearest bought neighbors of each item; rows sum to 1.

        *Method*: kernel regression on nearest neighbors (Nadaraya 1964), exp(cosine / 0.05).
        """
        usable = (self.neighbors >= 0) & bought[self.neighbors]
        usable &= np.cumsum(usable, axis=1) <= n_neighbors
        rows, ranks = np.nonzero(usable)
        values = self.similarity[rows, ranks].astype(np.float64)
        best = np.full(len(self.neighbors), -np.inf)
        np.maximum.at(best, rows, values)
        weights = np.exp((values - best[rows]) / _BANDWIDTH)
        weights /= np.bincount(rows, weights, minlength=len(self.neighbors))[rows]
        n = len(self.neighbors)
        return sparse.csr_matrix(
            (weights.astype(np.float32), (rows, self.neighbors[rows, ranks])), shape=(n, n)
        )


def similarity_of_random_pairs(X: NDArray[np.float32], random_state: int) -> float | None:
    """Return the cosine that 1 in 100 random pairs of rows exceeds; None for too few items."""
    n = len(X)
    if n * (n - 1) // 2 < required_examples(_SIMILAR_RATE):
        return None
    rng = np.random.default_rng(random_state)
    first = rng.integers(n, size=_RANDOM_PAIRS)
    second = (first + rng.integers(1, n, size=_RANDOM_PAIRS)) % n
    cosines = np.concatenate(
        [
            np.einsum("ij,ij->i", X[first[at : at + 512]], X[second[at : at + 512]])
            for at in range(0, _RANDOM_PAIRS, 512)
        ]
    )
    return from_nonmatching_pairs(cosines, false_alarm_rate=_SIMILAR_RATE).value
