"""Who looks like whom: it stands in for baskets where there are none."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from tqdm import tqdm

from nearsight.errors import InvalidParameterError
from nearsight.estimators.conformal import from_nonmatching_pairs, required_examples

# How fast a lookalike's say falls with its distance: one that is .05 less similar counts a third.
_SHARPNESS = 0.05
# Neighbors that are found for each that is used, since some of them are hidden while the blend is learned.
_SPARE = 5
_BLOCK = 8_000_000
# Share of random pairs that count as looking alike, and how many pairs are looked at.
_ALIKE_RATE = 0.01
_PAIRS = 20_000


def unit(X: ArrayLike) -> NDArray[np.float32]:
    """Return rows of unit length; a row of zeros stays as it is, and is like no other."""
    vectors = np.asarray(X, np.float32)
    length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.where(length > 0, length, 1)).astype(np.float32)
    return scaled


@dataclass(frozen=True)
class Lookalikes:
    """The nearest bought items of every item.

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
    def of(
        cls, X: NDArray[np.float32], bought: NDArray[np.bool_], n_neighbors: int, *, progress: bool = False
    ) -> "Lookalikes":
        """Find them exactly, in blocks: n × (bought items) × d operations."""
        if n_neighbors < 1:
            raise InvalidParameterError(f"n_neighbors is {n_neighbors}; it must be at least 1")
        known = np.flatnonzero(bought)
        m = min(n_neighbors * _SPARE, len(known))
        neighbors = np.full((len(X), m), -1, np.int64)
        similarity = np.full((len(X), m), -np.inf, np.float32)
        step = max(1, _BLOCK // max(len(known), 1))
        starts = range(0, len(X) if m else 0, step)
        for at in tqdm(starts, "lookalikes", unit="block", disable=not progress, leave=False):
            cosines = X[at : at + step] @ X[known].T
            cosines[known[None] == np.arange(at, at + len(cosines))[:, None]] = -np.inf
            best = np.argpartition(-cosines, m - 1, axis=1)[:, :m] if m < len(known) else None
            columns = np.broadcast_to(np.arange(m), cosines.shape) if best is None else np.sort(best, axis=1)
            values = np.take_along_axis(cosines, columns, axis=1)
            order = np.argsort(-values, axis=1, kind="stable")
            values = np.take_along_axis(values, order, axis=1)
            found = known[np.take_along_axis(columns, order, axis=1)]
            neighbors[at : at + step] = np.where(values > -np.inf, found, -1)
            similarity[at : at + step] = values
        return cls(neighbors, similarity)

    def weights(self, bought: NDArray[np.bool_], n_neighbors: int) -> sparse.csr_matrix:
        """Return what each of an item's `n_neighbors` nearest bought lookalikes has to say; rows add up to 1.

        *Method*: kernel regression on nearest neighbors (Nadaraya 1964), exp(cosine / 0.05).
        """
        usable = (self.neighbors >= 0) & bought[self.neighbors]
        usable &= np.cumsum(usable, axis=1) <= n_neighbors
        rows, ranks = np.nonzero(usable)
        values = self.similarity[rows, ranks].astype(np.float64)
        best = np.full(len(self.neighbors), -np.inf)
        np.maximum.at(best, rows, values)
        say = np.exp((values - best[rows]) / _SHARPNESS)
        say /= np.bincount(rows, say, minlength=len(self.neighbors))[rows]
        n = len(self.neighbors)
        return sparse.csr_matrix((say.astype(np.float32), (rows, self.neighbors[rows, ranks])), shape=(n, n))


def alike_above(X: NDArray[np.float32], random_state: int) -> float | None:
    """Return the cosine that 1 in 100 random pairs exceeds; None for too few items to tell."""
    n = len(X)
    if n * (n - 1) // 2 < required_examples(_ALIKE_RATE):
        return None
    rng = np.random.default_rng(random_state)
    first = rng.integers(n, size=_PAIRS)
    second = (first + rng.integers(1, n, size=_PAIRS)) % n
    cosines = np.concatenate(
        [
            np.einsum("ij,ij->i", X[first[at : at + 512]], X[second[at : at + 512]])
            for at in range(0, _PAIRS, 512)
        ]
    )
    return from_nonmatching_pairs(cosines, false_alarm_rate=_ALIKE_RATE).value
