"""What speaks for an item, given a history: one number for each kind of evidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nearsight.estimators.recommendation import serialization
from nearsight.estimators.recommendation.cooccurrence import Normalization, association, regression
from nearsight.estimators.recommendation.visual_neighbors import Lookalikes

#: The columns of `Evidence.features`.
FEATURES = ("together", "regression", "lookalike", "popularity", "similarity", "twin")
TOGETHER, REGRESSION, LOOKALIKE, POPULARITY, SIMILARITY, TWIN = range(len(FEATURES))


_BLOCK = 4_000_000


@dataclass(frozen=True)
class Evidence:
    """What baskets and images tell.

    Attributes
    ----------
    X : ndarray of shape (n, d), float32, unit rows
    related : sparse matrix of shape (n, n)
        Row: what an item draws; 1 is the mean of what is there.
    given : ndarray of shape (items bought, items bought), float64, or None
        Row: what an item adds to the chance of others; None for a catalog that is too large.
    stand_ins : sparse matrix of shape (n, n)
        Row: an item's bought lookalikes, by their say.
    bought : ndarray of shape (n,), int64
        Baskets with each item.
    alike : float
        Cosine above which two items look like twins.
    """

    X: NDArray[np.float32]
    related: sparse.csr_matrix
    given: NDArray[np.float64] | None
    stand_ins: sparse.csr_matrix
    bought: NDArray[np.int64]
    alike: float

    @classmethod
    def of(
        cls,
        baskets: sparse.csr_matrix,
        X: NDArray[np.float32],
        lookalikes: Lookalikes,
        *,
        alike: float,
        normalization: Normalization,
        n_related: int,
        n_neighbors: int,
        most_regressed: int,
    ) -> "Evidence":
        """Read baskets of zeros and ones; `lookalikes` may name items that these do not have."""
        bought = np.asarray(baskets.sum(axis=0)).ravel().astype(np.int64)
        related = association(baskets, normalization, n_related)
        if related.nnz:
            related.data /= related.data.mean()
        stand_ins = lookalikes.weights(bought > 0, n_neighbors)
        return cls(X, related, regression(baskets, most_regressed), stand_ins, bought, alike)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return arrays without X; see `from_state`."""
        arrays = serialization.to_arrays("related", self.related) | serialization.to_arrays(
            "stand_ins", self.stand_ins
        )
        arrays |= {"bought": self.bought, "alike": np.array(self.alike)}
        return arrays if self.given is None else {**arrays, "given": self.given}

    @classmethod
    def from_state(cls, X: NDArray[np.float32], arrays: Mapping[str, NDArray[Any]]) -> "Evidence":
        """Return what `state` described, for the same (n, d) unit rows."""
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

        *together*: how strongly the history draws the item, on average over what it holds; what nobody has
        bought is replaced there by its lookalikes. *lookalike*: how strongly it draws the item's bought
        lookalikes. Both as a root, which tames what is very strong. *regression*: the item's chance given
        the whole history, or that of its lookalikes where nobody has bought it. *popularity*: log of 1 + its
        baskets. *similarity*: the largest cosine to an item of the history. *twin*: what of that lies above
        `alike`.

        Parameters
        ----------
        histories : sparse matrix of shape (n_histories, n)
            Ones where a history holds an item; none is empty.
        event : ndarray of shape (m,), int64, ascending
            Rows of `histories`.
        item : ndarray of shape (m,), int64
        """
        features = np.empty((len(event), len(FEATURES)))
        # Dense numbers of one block: every item for some histories.
        step = max(1, _BLOCK // max(len(self.X), 1))
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
        if self.given is not None:
            sold = np.flatnonzero(self.bought)
            predicted[:, sold] = histories[:, sold] @ self.given
        bridged, foreseen = (np.asarray((self.stand_ins @ told.T).T) for told in (drawn, predicted))
        bought = self.bought[item]
        similarity = self._similarity(histories, event, item)
        columns = (
            np.sqrt(drawn[event, item]),
            np.where(bought > 0, predicted[event, item], foreseen[event, item]),
            np.sqrt(bridged[event, item]),
            np.log1p(bought),
            similarity,
            np.maximum(similarity - self.alike, 0),
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
