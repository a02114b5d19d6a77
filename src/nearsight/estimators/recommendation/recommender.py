"""Recommends items of a catalog: what looks alike, or what is bought together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from nearsight.errors import InvalidParameterError
from nearsight.estimators.recommendation import serialization
from nearsight.estimators.recommendation.cooccurrence import Normalization, as_baskets
from nearsight.estimators.recommendation.diversity import check_diversity, diversify
from nearsight.estimators.recommendation.explanations import Kind, Reason, reasons
from nearsight.estimators.recommendation.ranker import Blend, learn, sold
from nearsight.estimators.recommendation.signals import (
    LOOKALIKE,
    POPULARITY,
    REGRESSION,
    SIMILARITY,
    TOGETHER,
    TWIN,
    Evidence,
)
from nearsight.estimators.recommendation.visual_neighbors import Lookalikes, alike_above, unit
from nearsight.estimators.stored_parameters import present_parameters

# Of how many times as many items as are asked for a varied list is made.
_POOL = 10
# Evidence that is named for one recommendation.
_MOST_REASONS = 3
# What each kind of evidence is made of.
_PARTS: dict[Kind, tuple[int, ...]] = {
    "together": (TOGETHER, REGRESSION),
    "lookalike": (LOOKALIKE,),
    "popularity": (POPULARITY,),
    "similarity": (SIMILARITY, TWIN),
}


@dataclass(frozen=True, slots=True)
class Recommendation:
    """An item, how well it fits, and why.

    Attributes
    ----------
    item : int
        Row of X.
    score : float
        With baskets: the chance, in 0..1, that it is the next item of the basket. Without: the largest
        cosine to an item of the history, in -1..1. Higher is better.
    why : tuple of Reason
        What counted most comes first; at least one.
    """

    item: int
    score: float
    why: tuple[Reason, ...]


class Recommender(BaseEstimator):  # type: ignore[misc]
    """Recommend items by their images and by the baskets they were in.

    *Method*: without baskets, the nearest images. With baskets, a logistic blend of what an item draws
    and of its chance given the whole history (see `association` and `regression` in
    `.cooccurrence`), of what it draws that looks alike, of popularity, and of
    likeness itself. What counts how much is learned by leaving items out
    (see `.ranker.learn`), separately for histories of one item and longer ones,
    and for items that have been bought and that have not. So whether lookalikes complement or replace each
    other is told by the data: their weight is negative where they compete. Too few baskets to learn from:
    shares of (what is drawn + half of what lookalikes draw + a hundredth of the popularity).
    Both lists can be made varied; see `diversify`.

    It takes baskets beside X, so scikit-learn's model selection cannot split them; without baskets it is
    an estimator like any other.

    Parameters
    ----------
    normalization : {"bm25", "cosine", "lift"}, default "bm25"
        Of the numbers of common baskets.
    n_related : int, default 200
        Related items kept for each item.
    n_neighbors : int, default 5
        Bought lookalikes that speak for an item.
    max_regressed_items : int, default 4000
        Up to so many bought items, chances are regressed on the whole history as well.
    n_examples : int, default 2000
        Held-out items that the blend is learned from, for each kind of history.
    random_state : int, default 0
    progress : bool, default False
        Whether `fit` shows a bar on stderr.

    Attributes
    ----------
    n_features_in_ : int
    X_ : ndarray of shape (n, d), float32
        Unit vectors.
    baskets_ : sparse matrix of shape (n_baskets, n), or None
    blends_ : dict of str to Blend, or None
        For histories of one "item" and for a longer "history"; None where a rule takes their place.
    alike_above_ : float or None
        Cosine that 1 in 100 random pairs exceeds.
    twins_together_ : float or None
        How often pairs that look more alike than that are bought together, over how often any two are, at
        equal popularity: above 1 they complement each other, below 1 they replace each other. None
        without baskets or without such pairs.

    Notes
    -----
    Memory: X once more, `n_related` numbers for each item, and a square of the bought ones up to
    `max_regressed_items`, which costs their cube once. Each held-out item, and each question, costs n x d.

    Without rows it refuses; one item has nothing to be shown with, two have each other. NaN and infinity
    are refused. Duplicate items, and items that are all the same, have a similarity of 1 and are recommended
    for each other. No baskets, or empty ones, leave the images alone.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.eye(4) + 0.01
    >>> bread, butter, jam, nails = range(4)
    >>> baskets = np.zeros((6, 4))
    >>> baskets[:4, [bread, butter]] = 1
    >>> baskets[4:, [jam, nails]] = 1
    >>> best, *_ = Recommender().fit(X, baskets=baskets).recommend([bread])
    >>> best.item == butter, best.why[0].text(["bread", "butter", "jam", "nails"].__getitem__)
    (True, 'bought with bread in 4 of its 4 baskets')
    """

    def __init__(
        self,
        *,
        normalization: Normalization = "bm25",
        n_related: int = 200,
        n_neighbors: int = 5,
        max_regressed_items: int = 4000,
        n_examples: int = 2000,
        random_state: int = 0,
        progress: bool = False,
    ) -> None:
        self.normalization = normalization
        self.n_related = n_related
        self.n_neighbors = n_neighbors
        self.max_regressed_items = max_regressed_items
        self.n_examples = n_examples
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: ArrayLike, y: Any = None, *, baskets: Any = None) -> "Recommender":
        """Learn a catalog.

        Parameters
        ----------
        X : array of shape (n, d), float
            A vector for each item; zeros for an item without an image. Duplicate rows are items of their
            own; with all rows identical only baskets tell.
        y : ignored
        baskets : array or sparse matrix of shape (n_baskets, n), optional
            Larger than 0 where a basket holds an item. Not a parameter of the constructor, because it is
            data. Any number of baskets will do; a basket of one item only counts for popularity.

        Raises
        ------
        ValueError
            X is empty, or holds NaN or infinity; the baskets do not fit X.
        InvalidParameterError
            A parameter is out of its range.

        Notes
        -----
        Time: n × (items bought) × d for lookalikes, five times the sum of the squared sizes of the baskets,
        and where there are at most `max_regressed_items` bought items six times their number cubed.
        """
        for name in ("n_related", "n_neighbors", "n_examples"):
            if getattr(self, name) < 1:
                raise InvalidParameterError(f"{name} is {getattr(self, name)}; it must be at least 1")
        # Without a copy only where they are of unit length already.
        self.X_ = unit(validate_data(self, X, dtype=np.float32))
        self.baskets_: sparse.csr_matrix | None = None
        self.blends_: dict[str, Blend] | None = None
        self.alike_above_ = alike_above(self.X_, self.random_state)
        self.twins_together_: float | None = None
        if baskets is not None:
            self._learn(as_baskets(baskets, len(self.X_)))
        return self

    def scores(self, history: ArrayLike, *, fresh: bool = False) -> NDArray[np.float64]:
        """Return how well each item fits a history, (n,); see `Recommendation`.

        Parameters
        ----------
        history : array of int
            At least one row of X.
        fresh : bool, default False
            Whether items that no basket has came in after the baskets: they then have the chances that
            their looks give them. Otherwise they were on offer and nobody took them, which makes each as
            rare as such items have been so far. Their order among each other is the same.
        """
        rows = self._history(history)
        if self.baskets_ is None:
            similarity: NDArray[np.float64] = (self.X_ @ self.X_[rows].T).max(axis=1).astype(np.float64)
            return similarity
        features = self._evidence.features(rows)
        if self.blends_ is None:
            return self._by_rule(features)
        kind = "item" if len(rows) == 1 else "history"
        return self.blends_[kind].chances(features, self._evidence.bought > 0, fresh=fresh)

    def recommend(
        self,
        history: ArrayLike,
        k: int = 10,
        *,
        among: ArrayLike | None = None,
        diversity: float = 0.0,
        fresh: bool = False,
    ) -> list[Recommendation]:
        """Return the `k` items that fit a history best and are not in it, the best first.

        Parameters
        ----------
        history : array of int
            Rows of X, at least one: the item looked at, or what a customer has bought.
        k : int, default 10
            At least 1. Fewer come back where there are no more.
        among : array of shape (n,), bool, optional
            Which items may be recommended.
        diversity : float, default 0.0
            In 0..1; see `diversify`. Above 0, a list is made of the best 10 × `k`.
        fresh : bool, default False
            Whether items that no basket has came in after the baskets; see `scores`.

        Returns
        -------
        list of Recommendation

        Raises
        ------
        InvalidParameterError
            The history is empty or names no rows of X; `k` or `diversity` is out of range.
        """
        rows = self._history(history)
        check_diversity(diversity)
        if k < 1:
            raise InvalidParameterError(f"k is {k}; it must be at least 1")
        scores = self.scores(rows, fresh=fresh)
        open_to = np.ones(len(scores), bool) if among is None else np.asarray(among, bool).copy()
        if open_to.shape != scores.shape:
            raise InvalidParameterError(
                f"among has shape {open_to.shape}; give one bool an item, {scores.shape}"
            )
        open_to[rows] = False
        pool = np.flatnonzero(open_to)
        # By score, then by likeness, then by row: where baskets say nothing, looks do.
        likeness = (self.X_[pool] @ self.X_[rows].T).max(axis=1)
        pool = pool[np.lexsort((-likeness, -scores[pool]))][: k if diversity == 0 else k * _POOL]
        chosen = pool
        if diversity > 0 and len(pool):
            chosen = pool[diversify(scores[pool], self.X_[pool], k, diversity=diversity)]
        contributions = self._contributions(rows)
        return [
            Recommendation(int(item), float(scores[item]), self._why(int(item), rows, contributions))
            for item in chosen
        ]

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what was learned as plain data and arrays; `from_state` makes it whole again.

        The vectors are the array "X", which may be kept elsewhere in between.
        """
        check_is_fitted(self)
        facts: dict[str, Any] = {
            "params": self.get_params(deep=False),
            "alike_above": self.alike_above_,
            "twins_together": self.twins_together_,
            "blends": self.blends_ and {kind: blend.state() for kind, blend in self.blends_.items()},
        }
        arrays: dict[str, NDArray[Any]] = {"X": self.X_}
        if self.baskets_ is not None:
            arrays |= serialization.to_arrays("baskets", self.baskets_) | self._evidence.state()
        return json.loads(json.dumps(facts)), arrays

    @classmethod
    def from_state(cls, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Recommender":
        """Return what `state` described; it gives the same answers.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is not what `state` returned.
        """
        found = cls(**present_parameters(facts["params"]))
        found.X_ = unit(arrays["X"])
        n, found.n_features_in_ = found.X_.shape
        found.alike_above_, found.twins_together_ = facts["alike_above"], facts["twins_together"]
        found.baskets_, found.blends_ = None, None
        if "baskets.data" in arrays:
            found.baskets_ = serialization.from_arrays("baskets", arrays)
            found._columns = found.baskets_.tocsc()
            found._evidence = Evidence.from_state(found.X_, arrays)
            shapes = {found.baskets_.shape[1], *found._evidence.related.shape, len(found._evidence.bought)}
            if shapes != {n}:
                raise ValueError(f"there are {n} vectors, and evidence of {sorted(shapes)} items")
        if facts["blends"] is not None:
            found.blends_ = {kind: Blend.from_state(facts["blends"][kind]) for kind in ("item", "history")}
        return found

    def _learn(self, baskets: sparse.csr_matrix) -> None:
        lookalikes = Lookalikes.of(self.X_, sold(baskets), self.n_neighbors, progress=self.progress)

        def read(some: sparse.csr_matrix) -> Evidence:
            return Evidence.of(
                some,
                self.X_,
                lookalikes,
                # Where nothing can be called alike, nothing is.
                alike=1.0 if self.alike_above_ is None else self.alike_above_,
                normalization=self.normalization,
                n_related=self.n_related,
                n_neighbors=self.n_neighbors,
                most_regressed=self.max_regressed_items,
            )

        self.baskets_ = baskets
        self._columns = baskets.tocsc()
        self._evidence = read(baskets)
        self.blends_ = learn(
            baskets,
            read,
            n_examples=self.n_examples,
            random_state=self.random_state,
            progress=self.progress,
        )
        self.twins_together_ = self._twins_together(lookalikes)

    def _twins_together(self, lookalikes: Lookalikes) -> float | None:
        if self.alike_above_ is None:
            return None
        bought = self._evidence.bought.astype(np.float64)
        alike = (lookalikes.similarity > self.alike_above_) & (bought[:, None] > 0)
        first, ranks = np.nonzero(alike)
        second = lookalikes.neighbors[first, ranks]
        sizes = np.diff(self.baskets_.indptr).astype(np.float64)  # type: ignore[union-attr]
        any_two = (sizes * (sizes - 1)).sum() / max(bought.sum() ** 2 - (bought**2).sum(), 1)
        expected = (bought[first] * bought[second]).sum() * any_two
        if not expected > 0:
            return None
        both = sum(
            int(
                self._columns[:, first[at : at + 4096]]
                .multiply(self._columns[:, second[at : at + 4096]])
                .sum()
            )
            for at in range(0, len(first), 4096)
        )
        return float(both / expected)

    def _history(self, history: ArrayLike) -> NDArray[np.int64]:
        check_is_fitted(self)
        rows = np.unique(np.asarray(history))
        if rows.size == 0:
            raise InvalidParameterError("the history is empty; name at least one item")
        if rows.dtype.kind not in "iu" or rows[0] < 0 or rows[-1] >= len(self.X_):
            raise InvalidParameterError(
                f"the history {rows[:5].tolist()} must hold rows of X: whole numbers, 0 to {len(self.X_) - 1}"
            )
        return rows.astype(np.int64)

    def _by_rule(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        total = self._rule_parts(features).sum(axis=1)
        shares: NDArray[np.float64] = total / max(total.sum(), 1e-12)
        return shares

    def _rule_parts(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = np.zeros_like(features)
        parts[:, TOGETHER] = features[:, TOGETHER] ** 2
        parts[:, LOOKALIKE] = features[:, LOOKALIKE] ** 2 / 2
        parts[:, POPULARITY] = np.expm1(features[:, POPULARITY]) / max(self._evidence.bought.max(), 1) / 100
        return parts

    def _contributions(self, history: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Return what each feature adds to each item's score, (n, 6)."""
        if self.baskets_ is None:
            return None
        features = self._evidence.features(history)
        if self.blends_ is None:
            return self._rule_parts(features)
        kind = "item" if len(history) == 1 else "history"
        return self.blends_[kind].parts(features, self._evidence.bought > 0)

    def _why(
        self, item: int, history: NDArray[np.int64], contributions: NDArray[np.float64] | None
    ) -> tuple[Reason, ...]:
        if contributions is None:
            cosines = self.X_[history] @ self.X_[item]
            best = int(np.argmax(cosines))
            return (Reason("similarity", item=int(history[best]), similarity=float(cosines[best])),)
        found = reasons(item, history, self._evidence, self._columns)
        counted = {kind: contributions[item, list(_PARTS[kind])].sum() for kind in found}
        order: Sequence[Kind] = sorted(found, key=lambda kind: -counted[kind])
        helped = [kind for kind in order if counted[kind] > 0] or list(order[:1])
        if not helped:
            return (Reason("popularity", of=self._columns.shape[0]),)
        return tuple(found[kind] for kind in helped[:_MOST_REASONS])
