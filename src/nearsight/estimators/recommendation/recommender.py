"""Recommend items of a catalog: what looks similar, or what is bought together."""

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
from nearsight.estimators.neighbors import unit_length
from nearsight.estimators.recommendation import serialization
from nearsight.estimators.recommendation.cooccurrence import Normalization, as_baskets
from nearsight.estimators.recommendation.diversity import check_diversity, diversify
from nearsight.estimators.recommendation.explanations import Kind, Reason, reasons
from nearsight.estimators.recommendation.ranker import Blend, fit_blends, is_bought
from nearsight.estimators.recommendation.signals import (
    LOOKALIKE,
    POPULARITY,
    REGRESSION,
    SIMILARITY,
    TOGETHER,
    TWIN,
    Signals,
)
from nearsight.estimators.recommendation.visual_neighbors import VisualNeighbors, similarity_of_random_pairs
from nearsight.estimators.stored_parameters import present_parameters
from nearsight.parameters import require_whole

# A diverse list is chosen from so many times the number of items.
_POOL_FACTOR = 10
_MOST_REASONS = 3
# The signals of each kind of reason.
_SIGNALS_OF: dict[Kind, tuple[int, ...]] = {
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
        With baskets: the probability, in 0..1, that it is the next item of the basket. Without: the largest
        cosine to an item of the history, in -1..1. Higher is better.
    why : tuple of Reason
        The strongest reason first; at least one.
    """

    item: int
    score: float
    why: tuple[Reason, ...]


class Recommender(BaseEstimator):
    """Recommend items by their images and by the baskets they were in.

    *Method*: without baskets, the nearest images. With baskets, logistic regression on signals: how strongly
    an item is bought together with the history and its probability given the whole history (`association`
    and `regression` in `.cooccurrence`), both also for similar items, popularity, and similarity. The weights
    are learned by leaving items out (`.ranker.fit_blends`), separately for histories of one item and longer
    ones, and for items that have been bought and that have not. So the data decide whether similar items
    complement or replace each other: the weight is negative where they compete. If there are too few baskets,
    scores are shares of (bought together + half of the same for similar items + a hundredth of the
    popularity). Lists can be made diverse (`diversify`).

    Baskets are given beside X, so scikit-learn's model selection cannot split them.

    Parameters
    ----------
    normalization : {"bm25", "cosine", "lift"}, default "bm25"
        How the number of common baskets is normalized.
    n_related : int, default 200
        Related items kept for each item.
    n_neighbors : int, default 5
        Bought visual neighbors that stand in for an item.
    max_regressed_items : int, default 4000
        Up to so many bought items, probabilities are also regressed on the whole history.
    n_examples : int, default 2000
        Held-out items that the weights are learned from, for each kind of history.
    random_state : int, default 0
    progress : bool or None, default False
        Whether `fit` shows progress on stderr.

    Attributes
    ----------
    n_features_in_ : int
    X_ : ndarray of shape (n, d), float32
        Unit vectors.
    baskets_ : sparse matrix of shape (n_baskets, n), or None
    blends_ : dict of str to Blend, or None
        For histories of one "item" and for a longer "history"; None if there are too few baskets.
    similar_above_ : float or None
        Cosine that 1 in 100 random pairs exceeds.
    similar_pair_lift_ : float or None
        How often pairs above that cosine are bought together, relative to any two items of the same
        popularity: above 1 they complement each other, below 1 they replace each other. None without baskets
        or without such pairs.

    Notes
    -----
    Memory: X once more, `n_related` numbers for each item, and, up to `max_regressed_items`, the square of
    the number of bought items; fitting costs their cube. Each held-out item and each query costs n × d.

    No rows, NaN and infinity are refused; one item has no recommendation, two have each other. Duplicate
    items, and items that are all the same, have a similarity of 1 and are recommended for each other. Without
    baskets, or with empty ones, only images count.

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
        progress: bool | None = False,
    ) -> None:
        self.normalization = normalization
        self.n_related = n_related
        self.n_neighbors = n_neighbors
        self.max_regressed_items = max_regressed_items
        self.n_examples = n_examples
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: ArrayLike, y: Any = None, *, baskets: Any = None) -> "Recommender":
        """Fit a catalog.

        Parameters
        ----------
        X : array of shape (n, d), float
            A vector for each item; zeros for an item without an image.
        y : ignored
        baskets : array or sparse matrix of shape (n_baskets, n), optional
            More than 0 where a basket holds an item. A basket of one item counts for popularity only.

        Raises
        ------
        ValueError
            X is empty, or holds NaN or infinity; the baskets do not fit X.
        InvalidParameterError
            A parameter is out of its range.

        Notes
        -----
        Time: n × (items bought) × d for visual neighbors, five times the sum of the squared sizes of the
        baskets, and, up to `max_regressed_items` bought items, six times their number cubed.
        """
        for name in ("n_related", "n_neighbors", "n_examples"):
            require_whole(name, getattr(self, name))
        require_whole("random_state", self.random_state, least=0)
        self.X_ = unit_length(validate_data(self, X, dtype=np.float32), copy=False)
        self.baskets_: sparse.csr_matrix | None = None
        self.blends_: dict[str, Blend] | None = None
        self.similar_above_ = similarity_of_random_pairs(self.X_, self.random_state)
        self.similar_pair_lift_: float | None = None
        if baskets is not None:
            self._fit_baskets(as_baskets(baskets, len(self.X_)))
        return self

    def scores(self, history: ArrayLike, *, include_new_items: bool = False) -> NDArray[np.float64]:
        """Return how well each item fits a history, (n,); see `Recommendation`.

        Parameters
        ----------
        history : array of int
            At least one row of X.
        include_new_items : bool, default False
            Whether items in no basket are newer than the baskets: then they have the probability that their
            signals give. Otherwise they were on offer and nobody bought them, and their probability is as
            low as that of such items so far. Their order among each other is the same.
        """
        rows = self._history(history)
        if self.baskets_ is None:
            similarity: NDArray[np.float64] = (self.X_ @ self.X_[rows].T).max(axis=1).astype(np.float64)
            return similarity
        features = self._signals.features(rows)
        if self.blends_ is None:
            return self._fixed_scores(features)
        kind = "item" if len(rows) == 1 else "history"
        return self.blends_[kind].probabilities(
            features, self._signals.bought > 0, include_new_items=include_new_items
        )

    def recommend(
        self,
        history: ArrayLike,
        k: int = 10,
        *,
        among: ArrayLike | None = None,
        diversity: float = 0.0,
        include_new_items: bool = False,
    ) -> list[Recommendation]:
        """Return the `k` items that fit a history best and are not in it, the best first.

        Parameters
        ----------
        history : array of int
            Rows of X, at least one: the item looked at, or what a customer has bought.
        k : int, default 10
            At least 1. Fewer are returned if there are fewer items.
        among : array of shape (n,), bool, optional
            Which items may be recommended.
        diversity : float, default 0.0
            In 0..1; see `diversify`. Above 0, the list is chosen from the best 10 × `k` items.
        include_new_items : bool, default False
            Whether items in no basket are newer than the baskets; see `scores`.

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
        require_whole("k", k)
        scores = self.scores(rows, include_new_items=include_new_items)
        allowed = np.ones(len(scores), bool) if among is None else np.asarray(among, bool).copy()
        if allowed.shape != scores.shape:
            raise InvalidParameterError(
                f"among has shape {allowed.shape}; give one bool an item, {scores.shape}"
            )
        allowed[rows] = False
        pool = np.flatnonzero(allowed)
        # By score, then by similarity, then by row: without basket evidence, similarity decides.
        similarity = (self.X_[pool] @ self.X_[rows].T).max(axis=1)
        pool = pool[np.lexsort((-similarity, -scores[pool]))][: k if diversity == 0 else k * _POOL_FACTOR]
        chosen = pool
        if diversity > 0 and len(pool):
            chosen = pool[diversify(scores[pool], self.X_[pool], k, diversity=diversity)]
        contributions = self._contributions(rows)
        return [
            Recommendation(int(item), float(scores[item]), self._why(int(item), rows, contributions))
            for item in chosen
        ]

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the fitted recommender as plain data and arrays; see `from_state`.

        The vectors are the array "X", which may be stored elsewhere.
        """
        check_is_fitted(self)
        facts: dict[str, Any] = {
            "params": self.get_params(deep=False),
            "alike_above": self.similar_above_,
            "twins_together": self.similar_pair_lift_,
            "blends": self.blends_ and {kind: blend.state() for kind, blend in self.blends_.items()},
        }
        arrays: dict[str, NDArray[Any]] = {"X": self.X_}
        if self.baskets_ is not None:
            arrays |= serialization.to_arrays("baskets", self.baskets_) | self._signals.state()
        return json.loads(json.dumps(facts)), arrays

    @classmethod
    def from_state(cls, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Recommender":
        """Return the recommender that `state` was called on, with the same scores.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is not what `state` returned.
        """
        recommender = cls(**present_parameters(facts["params"]))
        recommender.X_ = unit_length(arrays["X"], copy=False)
        n, recommender.n_features_in_ = recommender.X_.shape
        recommender.similar_above_, recommender.similar_pair_lift_ = (
            facts["alike_above"],
            facts["twins_together"],
        )
        recommender.baskets_, recommender.blends_ = None, None
        if "baskets.data" in arrays:
            recommender.baskets_ = serialization.from_arrays("baskets", arrays)
            recommender._columns = recommender.baskets_.tocsc()
            recommender._signals = Signals.from_state(recommender.X_, arrays)
            shapes = {
                recommender.baskets_.shape[1],
                *recommender._signals.related.shape,
                len(recommender._signals.bought),
            }
            if shapes != {n}:
                raise ValueError(f"there are {n} vectors, and evidence of {sorted(shapes)} items")
        if facts["blends"] is not None:
            recommender.blends_ = {
                kind: Blend.from_state(facts["blends"][kind]) for kind in ("item", "history")
            }
        return recommender

    def _fit_baskets(self, baskets: sparse.csr_matrix) -> None:
        visual_neighbors = VisualNeighbors.search(
            self.X_, is_bought(baskets), self.n_neighbors, progress=self.progress
        )

        def compute_signals(part: sparse.csr_matrix) -> Signals:
            return Signals.from_baskets(
                part,
                self.X_,
                visual_neighbors,
                # With too few items, none count as similar.
                similar_above=1.0 if self.similar_above_ is None else self.similar_above_,
                normalization=self.normalization,
                n_related=self.n_related,
                n_neighbors=self.n_neighbors,
                max_regressed_items=self.max_regressed_items,
            )

        self.baskets_ = baskets
        self._columns = baskets.tocsc()
        self._signals = compute_signals(baskets)
        self.blends_ = fit_blends(
            baskets,
            compute_signals,
            n_examples=self.n_examples,
            random_state=self.random_state,
            progress=self.progress,
        )
        self.similar_pair_lift_ = self._similar_pair_lift(visual_neighbors)

    def _similar_pair_lift(self, visual_neighbors: VisualNeighbors) -> float | None:
        if self.similar_above_ is None:
            return None
        bought = self._signals.bought.astype(np.float64)
        alike = (visual_neighbors.similarity > self.similar_above_) & (bought[:, None] > 0)
        first, ranks = np.nonzero(alike)
        second = visual_neighbors.neighbors[first, ranks]
        sizes = np.diff(self.baskets_.indptr).astype(np.float64)  # type: ignore[union-attr] # fitted
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

    def _fixed_scores(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        total = self._fixed_parts(features).sum(axis=1)
        shares: NDArray[np.float64] = total / max(total.sum(), 1e-12)
        return shares

    def _fixed_parts(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = np.zeros_like(features)
        parts[:, TOGETHER] = features[:, TOGETHER] ** 2
        parts[:, LOOKALIKE] = features[:, LOOKALIKE] ** 2 / 2
        parts[:, POPULARITY] = np.expm1(features[:, POPULARITY]) / max(self._signals.bought.max(), 1) / 100
        return parts

    def _contributions(self, history: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Return what each signal adds to the score of each item, (n, 6)."""
        if self.baskets_ is None:
            return None
        features = self._signals.features(history)
        if self.blends_ is None:
            return self._fixed_parts(features)
        kind = "item" if len(history) == 1 else "history"
        return self.blends_[kind].parts(features, self._signals.bought > 0)

    def _why(
        self, item: int, history: NDArray[np.int64], contributions: NDArray[np.float64] | None
    ) -> tuple[Reason, ...]:
        if contributions is None:
            cosines = self.X_[history] @ self.X_[item]
            best = int(np.argmax(cosines))
            return (Reason("similarity", item=int(history[best]), similarity=float(cosines[best])),)
        available = reasons(item, history, self._signals, self._columns)
        contributed = {kind: contributions[item, list(_SIGNALS_OF[kind])].sum() for kind in available}
        order: Sequence[Kind] = sorted(available, key=lambda kind: -contributed[kind])
        positive = [kind for kind in order if contributed[kind] > 0] or list(order[:1])
        if not positive:
            return (Reason("popularity", of=self._columns.shape[0]),)
        return tuple(available[kind] for kind in positive[:_MOST_REASONS])
