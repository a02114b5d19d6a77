"""What speaks for an item, given a history: one number for each kind of evidence."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nearsight.tasks.recommend.cooccurrence import Normalisation, association, regression
from nearsight.tasks.recommend.lookalikes import Lookalikes

#: The columns of `Evidence.features`.
FEATURES = ("together", "regression", "lookalike", "popularity", "similarity", "twin")
TOGETHER, REGRESSION, LOOKALIKE, POPULARITY, SIMILARITY, TWIN = range(len(FEATURES))


@dataclass(frozen=True)
class Evidence:
    """What baskets and pictures tell.

    Attributes
    ----------
    X : ndarray of shape (n, d), float32, unit rows
    related : sparse matrix of shape (n, n)
        Row: what an item draws; 1 is the mean of what is there.
    given : ndarray of shape (n, n), float32, or None
        Row: what an item adds to the chance of others; None for a catalogue that is too large.
    stand_ins : sparse matrix of shape (n, n)
        Row: an item's bought lookalikes, by their say.
    bought : ndarray of shape (n,), int64
        Baskets with each item.
    alike : float
        Cosine above which two items look like twins.
    """

    X: NDArray[np.float32]
    related: sparse.csr_matrix
    given: NDArray[np.float32] | None
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
        normalisation: Normalisation,
        n_related: int,
        n_neighbors: int,
        most_regressed: int,
    ) -> "Evidence":
        """Read baskets of zeros and ones; `lookalikes` may name items that these do not have."""
        bought = np.asarray(baskets.sum(axis=0)).ravel().astype(np.int64)
        related = association(baskets, normalisation, n_related)
        if related.nnz:
            related.data /= related.data.mean()
        stand_ins = lookalikes.weights(bought > 0, n_neighbors)
        return cls(X, related, regression(baskets, most_regressed), stand_ins, bought, alike)

    def drawn(self, history: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how strongly a history draws each item, on average over its items.

        An item that nobody has bought is replaced by its lookalikes.
        """
        known = history[self.bought[history] > 0]
        unknown = history[self.bought[history] == 0]
        total = np.asarray(self.related[known].sum(axis=0), np.float64).ravel()
        if len(unknown):
            say = sparse.csr_matrix(self.stand_ins[unknown].sum(axis=0))
            total += np.asarray((say @ self.related).todense(), np.float64).ravel()
        drawn: NDArray[np.float64] = total / max(len(history), 1)
        return drawn

    def features(
        self, history: NDArray[np.int64], candidates: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Return an (m, 6) array: a row for each candidate, or for each item; see `FEATURES`.

        *together*: how strongly the history draws it. *lookalike*: how strongly it draws its bought
        lookalikes. Both as a root, which tames what is very strong. *regression*: its chance given the whole
        history, or that of its lookalikes where nobody has bought it. *popularity*: log of 1 + its baskets.
        *similarity*: the largest cosine to an item of the history. *twin*: what of that lies above `alike`.
        """
        drawn = self.drawn(history)
        predicted = np.zeros(len(self.X)) if self.given is None else self.given[history].sum(axis=0)
        chosen = np.arange(len(self.X)) if candidates is None else candidates
        similarity = (self.X[chosen] @ self.X[history].T).max(axis=1).astype(np.float64)
        columns = (
            np.sqrt(drawn[chosen]),
            np.where(self.bought[chosen] > 0, predicted[chosen], self.stand_ins[chosen] @ predicted),
            np.sqrt(self.stand_ins[chosen] @ drawn),
            np.log1p(self.bought[chosen]),
            similarity,
            np.maximum(similarity - self.alike, 0),
        )
        return np.stack(columns, axis=1)
