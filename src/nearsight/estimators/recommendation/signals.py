"""The signals that rank an item for a history: one number for each kind of evidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nearsight.estimators.recommendation import serialization
from nearsight.estimators.recommendation.cooccurrence import Normalization, association, regression
from nearsight.estimators.recommendation.visual_neighbors import VisualNeighbors

#: The columns of `Signals.features`.
FEATURES = ("together", "regression", "lookalike", "popularity", "similarity", "twin")
TOGETHER, REGRESSION, LOOKALIKE, POPULARITY, SIMILARITY, TWIN = range(len(FEATURES))

_MOST_BLOCK_NUMBERS = 4_000_000


@dataclass(frozen=True)
class Signals:
    """What baskets and images say about items.

    Attributes
    ----------
    X : ndarray of shape (n, d), float32, unit rows
    related : sparse matrix of shape (n, n)
        Row: how strongly an item is bought together with each other item, on average 1.
    regression : ndarray of shape (items bought, items bought), float64, or None
        Row: what an item adds to the probability of others; None for a catalog that is too large.
    stand_ins : sparse matrix of shape (n, n)
        Row: the weights of an item's visual neighbors that have been bought.
    bought : ndarray of shape (n,), int64
        Baskets with each item.
    similar_above : float
        Cosine above which two items count as similar.
    """

    X: NDArray[np.float32]
    related: sparse.csr_matrix
    regression: NDArray[np.float64] | None
    stand_ins: sparse.csr_matrix
    bought: NDArray[np.int64]
    similar_above: float

    @classmethod
    def from_baskets(
        cls,
        baskets: sparse.csr_matrix,
        X: NDArray[np.float32],
        visual_neighbors: VisualNeighbors,
        *,
        similar_above: float,
        normalization: Normalization,
        n_related: int,
        n_neighbors: int,
        max_regressed_items: int,
    ) -> "Signals":
        """Compute signals from baskets of zeros and ones; some visual neighbors may not be in them."""
        bought = np.asarray(baskets.sum(axis=0)).ravel().astype(np.int64)
        related = association(baskets, normalization, n_related)
        if related.nnz:
            related.data /= related.data.mean()
        stand_ins = visual_neighbors.weights(bought > 0, n_neighbors)
        return cls(X, related, regression(baskets, max_regressed_items), stand_ins, bought, similar_above)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return arrays for a file, without X; see `from_state`."""
        arrays = serialization.to_arrays("related", self.related) | serialization.to_arrays(
            "stand_ins", self.stand_ins
        )
        arrays |= {"bought": self.bought, "alike": np.array(self.similar_above)}
        return arrays if self.regression is None else {**arrays, "given": self.regression}

    @classmethod
    def from_state(cls, X: NDArray[np.float32], arrays: Mapping[str, NDArray[Any]]) -> "Signals":
        """Return the signals that `state` was called on, for the same (n, d) unit rows."""
        return cls(
            X,
            serialization.from_arrays("related", arrays),
            arrays.get("given"),
            serialization.from_arrays("stand_ins", arrays),
            arrays["bought"],
            float(arrays["alike"]),
        )

    def features(self, history: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return an (n, 6) array: a row for each item; see `FEATURES` and `features_of`."""
        histories = sparse.csr_matrix(
            (np.ones(len(history)), ([0] * len(history), history)), (1, len(self.X))
        )
        return self.features_of(histories, np.zeros(len(self.X), np.int64), np.arange(len(self.X)))

    def features_of(
        self, histories: sparse.csr_matrix, event: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return an (m, 6) array: a row for each pair of a history and an item; see `FEATURES`.

        *together*: how strongly the item is bought together with those of the history, on average; an item
        of the history that nobody has bought is replaced by its visual neighbors. *lookalike*: the same for
        the visual neighbors of the item. Both are square roots, which limits very strong values.
        *regression*: the item's probability given the whole history, or that of its visual neighbors if
        nobody has bought it. *popularity*: log of 1 + its baskets. *similarity*: the largest cosine to an
        item of the history. *twin*: the part of that above `similar_above`.

        Parameters
        ----------
        histories : sparse matrix of shape (n_histories, n)
            Ones where a history holds an item; none is empty.
        event : ndarray of shape (m,), int64, ascending
            Rows of `histories`.
        item : ndarray of shape (m,), int64
        """
        features = np.empty((len(event), len(FEATURES)))
        # A block has dense numbers for every item and some histories.
        step = max(1, _MOST_BLOCK_NUMBERS // max(len(self.X), 1))
        for at in range(0, histories.shape[0], step):
            here = slice(*np.searchsorted(event, [at, at + step]))
            features[here] = self._block(histories[at : at + step], event[here] - at, item[here])
        return features

    def _block(
        self, histories: sparse.csr_matrix, event: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        known = sparse.diags((self.bought > 0).astype(np.float64))
        replaced = histories @ known + (histories - histories @ known) @ self.stand_ins
        sizes = np.diff(histories.indptr)[:, None]
        drawn = (replaced @ self.related).toarray() / sizes
        predicted = np.zeros_like(drawn)
        if self.regression is not None:
            sold = np.flatnonzero(self.bought)
            predicted[:, sold] = histories[:, sold] @ self.regression
        bridged, foreseen = (np.asarray((self.stand_ins @ values.T).T) for values in (drawn, predicted))
        bought = self.bought[item]
        similarity = self._similarity(histories, event, item)
        columns = (
            np.sqrt(drawn[event, item]),
            np.where(bought > 0, predicted[event, item], foreseen[event, item]),
            np.sqrt(bridged[event, item]),
            np.log1p(bought),
            similarity,
            np.maximum(similarity - self.similar_above, 0),
        )
        return np.stack(columns, axis=1)

    def _similarity(
        self, histories: sparse.csr_matrix, event: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        similarity = np.empty(len(event))
        ends = np.searchsorted(event, np.arange(histories.shape[0] + 1))
        for row, (start, end) in enumerate(pairwise(ends)):
            held = histories.indices[histories.indptr[row] : histories.indptr[row + 1]]
            similarity[start:end] = (self.X[item[start:end]] @ self.X[held].T).max(axis=1)
        return similarity
