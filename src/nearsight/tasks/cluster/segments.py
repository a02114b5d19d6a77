"""Customers as vectors, and their segments."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from nearsight.errors import InvalidParameterError
from nearsight.tasks.cluster.graph import unit

# How many numbers of segments are tried, and on how many customers.
_MOST_SEGMENTS = 10
_MOST_TRIED = 2000
_LEAST_OF_EACH = 4
_STRONG, _DIVISIONS = 0.7, 5
_DIRECTIONS = 10
_SPREAD_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Customers:
    """Customers, by what their pictures show.

    Attributes
    ----------
    names : list of str, length n
        In alphabetical order.
    means : ndarray of shape (n, d), float32, unit length
        The weighted mean direction of each one's pictures.
    spreads : ndarray of shape (n,), float
        In 0..1: how much each one's pictures differ; NaN where one picture cannot tell.
    n_pictures : ndarray of shape (n,), int
    features : ndarray of shape (n, d + 1), float32
        What segments are made from: the means, and the spread on a scale of theirs.
    """

    names: list[str]
    means: NDArray[np.float32]
    spreads: NDArray[np.float64]
    n_pictures: NDArray[np.int64]
    features: NDArray[np.float32]

    @classmethod
    def of(cls, X: ArrayLike, customers: ArrayLike, weights: ArrayLike | None = None) -> "Customers":
        """Embed customers from their pictures.

        *Method*: directional statistics (Mardia and Jupp 2000, section 9.2): the mean direction, and as
        spread 1 less the mean cosine of two different pictures, which is estimated without bias from the
        length of the mean, R, and the effective number of pictures, n = (sum w)² / sum w²:
        (n R² - 1) / (n - 1). A spread that is not known counts as the mean one. Its standard deviation
        counts a tenth of that of the means.

        Parameters
        ----------
        X : array of shape (m, d), float
            Pictures' vectors, one a row; lengths do not matter.
        customers : array of shape (m,), str
            Whose picture each row is.
        weights : array of shape (m,), float, optional
            More than 0, such as how often it was bought.

        Raises
        ------
        InvalidParameterError
            Lengths differ, a weight is not more than 0, or a vector is not finite.

        Examples
        --------
        >>> made = Customers.of([[1, 0], [0, 1], [1, 0]], ["ann", "ann", "bob"], [3, 1, 1])
        >>> made.names, made.means.argmax(1).tolist(), made.spreads.round(2).tolist()
        (['ann', 'bob'], [0, 0], [1.0, nan])
        """
        vectors, owners = unit(np.asarray(X, np.float32)), np.asarray(customers)
        w = np.ones(len(vectors)) if weights is None else np.asarray(weights, np.float64)
        if not len(vectors) == len(owners) == len(w):
            raise InvalidParameterError(
                f"there are {len(vectors)} vectors, {len(owners)} customers and {len(w)} weights; give one"
                " of each a picture"
            )
        if not np.isfinite(vectors).all() or not np.all((w > 0) & np.isfinite(w)):
            raise InvalidParameterError(
                "a weight is not more than 0, or a vector or a weight is NaN or infinite; leave such rows out"
            )
        names, place = np.unique(owners, return_inverse=True)
        n = len(names)
        total = np.bincount(place, w, n)
        sums = np.zeros((n, vectors.shape[1]), np.float64)
        np.add.at(sums, place, vectors * w[:, None])
        effective = total**2 / np.bincount(place, w**2, n)
        squared = (sums**2).sum(1) / total**2
        with np.errstate(invalid="ignore", divide="ignore"):
            spreads = np.where(
                effective > 1 + 1e-9, 1 - (effective * squared - 1) / (effective - 1), np.nan
            ).clip(0, 1)
        means = unit(sums)
        return cls(
            [str(name) for name in names],
            means,
            spreads,
            np.bincount(place, minlength=n),
            np.hstack([means, _scaled(means, spreads)[:, None]]),
        )


def _scaled(means: NDArray[np.float32], spreads: NDArray[np.float64]) -> NDArray[np.float32]:
    known = spreads[np.isfinite(spreads)]
    if len(known) < 2 or known.std() < 1e-9:
        return np.zeros(len(means), np.float32)
    filled = np.where(np.isfinite(spreads), spreads, known.mean())
    size = float(np.sqrt(means.var(0).sum()))
    scaled: NDArray[np.float32] = (_SPREAD_WEIGHT * size * (filled - known.mean()) / known.std()).astype(
        np.float32
    )
    return scaled


class CustomerSegments(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Divide customers into segments; each belongs to exactly one.

    *Method*: k-means. Where no number is given, the largest of 2..10 with a prediction strength of 0.7
    (Tibshirani and Walther 2005): two halves of the customers, segmented each by itself, agree on at least
    so many pairs of every segment, on average over 5 divisions of at most 2,000 customers, along the 10
    directions in which these differ most. The paper has 0.8, for segments that do not touch; where there
    are none, two segments have 0.5 and more have less. If no number has that, there is one segment. The
    silhouette would see the one group that is far out, and no more.

    Parameters
    ----------
    n_segments : int, optional
        At least 1 and at most the number of customers.
    random_state : int, default 0

    Attributes
    ----------
    labels_ : ndarray of shape (n,), int
        The largest segment is 0.
    cluster_centers_ : ndarray of shape (k, d)
    n_segments_ : int
    silhouette_ : float
        In -1..1 (Rousseeuw 1987): how much closer customers are to their own segment than to the next. NaN
        for fewer than two segments.

    Notes
    -----
    Cost: n · k · d a round. Fewer than 8 customers, or customers who are all the same, are one segment
    unless a number is given. NaN and infinity are refused.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.repeat(np.eye(3), 10, axis=0) + 0.1 * np.random.default_rng(0).normal(size=(30, 3))
    >>> CustomerSegments().fit(X).n_segments_
    3
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_segments": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(self, *, n_segments: int | None = None, random_state: int = 0) -> None:
        self.n_segments = n_segments
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: None = None) -> "CustomerSegments":
        """Segment (n, d) customers, such as `Customers.features`.

        Raises
        ------
        InvalidParameterError
            There are fewer customers than segments, or a parameter is outside its range.
        """
        try:
            self._validate_params()
        except ValueError as error:
            raise InvalidParameterError(str(error)) from error
        vectors: NDArray[np.floating] = validate_data(self, X, dtype=[np.float32, np.float64])
        n = len(vectors)
        if n < (self.n_segments or 1):
            raise InvalidParameterError(
                f"n_samples={n} is less than n_segments={self.n_segments}; ask for at most {n}"
            )
        rng = np.random.default_rng(self.random_state)
        part = vectors if n <= _MOST_TRIED else vectors[rng.choice(n, _MOST_TRIED, replace=False)]
        n_different = len(np.unique(part, axis=0))
        numbers = range(2, min(_MOST_SEGMENTS, n_different // _LEAST_OF_EACH) + 1)
        if self.n_segments is not None or not numbers:
            best = self.n_segments or 1
        else:
            few = PCA(min(_DIRECTIONS, *part.shape), random_state=self.random_state).fit_transform(part)
            best = max((k for k in numbers if self._strength(few, k) >= _STRONG), default=1)
        # More centres than different customers would only be copies of each other.
        model = KMeans(min(best, max(n_different, 1)), n_init=10, random_state=self.random_state).fit(vectors)
        order = np.argsort(-np.bincount(model.labels_), kind="stable")
        self.cluster_centers_ = model.cluster_centers_[order]
        self.labels_ = np.argsort(order)[model.labels_]
        self.n_segments_ = len(order)
        self.silhouette_ = self._silhouette(part, self.n_segments_)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the segment of (n, d) customers, the segments staying as they are."""
        check_is_fitted(self)
        vectors: NDArray[np.floating] = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        distances = (vectors**2).sum(1)[:, None] - 2 * vectors @ self.cluster_centers_.T
        labels: NDArray[np.int64] = (distances + (self.cluster_centers_**2).sum(1)).argmin(1)
        return labels

    def _strength(self, X: NDArray[np.floating], k: int) -> float:
        """Return the prediction strength of `k` segments, in 0..1."""
        rng = np.random.default_rng(self.random_state)
        found = []
        for _ in range(_DIVISIONS):
            order = rng.permutation(len(X))
            halves = X[order[: len(X) // 2]], X[order[len(X) // 2 :]]
            models = [KMeans(k, n_init=3, random_state=self.random_state).fit(half) for half in halves]
            for there, half, here in (
                (models[0], halves[1], models[1]),
                (models[1], halves[0], models[0]),
            ):
                both = np.zeros((k, k))
                np.add.at(both, (here.labels_, there.predict(half)), 1)
                sizes = both.sum(1)
                pairs, agreed = sizes * (sizes - 1), (both * (both - 1)).sum(1)
                # A segment of one holds no pair that could be agreed on.
                found.append(np.divide(agreed, pairs, out=np.zeros(k), where=pairs > 0).min())
        return float(np.mean(found))

    def _silhouette(self, X: NDArray[np.floating], k: int) -> float:
        if not 2 <= k < len(X):
            return float("nan")
        labels = KMeans(k, n_init=3, random_state=self.random_state).fit_predict(X)
        n_labels = len(np.unique(labels))
        return float(silhouette_score(X, labels)) if 2 <= n_labels < len(X) else float("nan")
