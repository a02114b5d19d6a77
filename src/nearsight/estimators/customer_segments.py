"""Customers as vectors, and their segments."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data
from tqdm import tqdm

from nearsight.errors import InvalidParameterError
from nearsight.estimators.clustering.assigner import limits_of
from nearsight.estimators.clustering.spectral import unit
from nearsight.estimators.conformal import required_examples

# How many numbers of segments are tried, and on how many customers.
_MOST_SEGMENTS = 10
_MOST_TRIED = 2000
_LEAST_OF_EACH = 4
_STRONG, _DIVISIONS = 0.7, 5
_DIRECTIONS = 10
_SPREAD_WEIGHT = 0.1
_STARTS = 10
_PARTS = 10
# Customers who are all the same are at no distance.
_LEAST_SQUARED = 1e-8


@dataclass(frozen=True, slots=True)
class Breadth:
    """How a customer's spread becomes a number beside the mean.

    Attributes
    ----------
    usual : float
        The mean spread, which counts as that of whose spread is not known.
    factor : float
        What a difference to it is multiplied with; 0 where nothing is known of spreads.
    """

    usual: float
    factor: float

    @classmethod
    def of(cls, means: NDArray[np.float32], spreads: NDArray[np.float64]) -> "Breadth":
        """Learn it from (n, d) means and their (n,) spreads."""
        known = spreads[np.isfinite(spreads)]
        if len(known) < 2 or known.std() < 1e-9:
            return cls(0.0, 0.0)
        size = float(np.sqrt(means.var(0).sum()))
        return cls(float(known.mean()), float(_SPREAD_WEIGHT * size / known.std()))

    def scaled(self, spreads: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the number of each spread."""
        filled = np.where(np.isfinite(spreads), spreads, self.usual)
        return (self.factor * (filled - self.usual)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Customers:
    """Customers, by what their images show.

    Attributes
    ----------
    names : list of str, length n
        In alphabetical order.
    means : ndarray of shape (n, d), float32, unit length
        The weighted mean direction of each one's images.
    spreads : ndarray of shape (n,), float
        In 0..1: how much each one's images differ; NaN where one image cannot tell.
    n_images : ndarray of shape (n,), int
    n_effective : ndarray of shape (n,), float
        How many images of equal weight would tell as much: (sum w)² / sum w².
    features : ndarray of shape (n, d + 1), float32
        What segments are made from: the means, and the spread on a scale of theirs.
    breadth : Breadth
        That scale, for customers who come later.
    """

    names: list[str]
    means: NDArray[np.float32]
    spreads: NDArray[np.float64]
    n_images: NDArray[np.int64]
    n_effective: NDArray[np.float64]
    features: NDArray[np.float32]
    breadth: Breadth

    @classmethod
    def of(
        cls,
        X: ArrayLike,
        customers: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        breadth: Breadth | None = None,
    ) -> "Customers":
        """Embed customers from their images.

        *Method*: directional statistics (Mardia and Jupp 2000, section 9.2): the mean direction, and as
        spread 1 less the mean cosine of two different images, which is estimated without bias from the
        length of the mean, R, and the effective number of images, n = (sum w)² / sum w²:
        (n R² - 1) / (n - 1). A spread that is not known counts as the mean one. Its standard deviation
        counts a tenth of that of the means.

        Parameters
        ----------
        X : array of shape (m, d), float
            Images' vectors, one a row; lengths do not matter.
        customers : array of shape (m,), str
            Whose image each row is.
        weights : array of shape (m,), float, optional
            More than 0, such as how often it was bought.
        breadth : Breadth, optional
            Of those whose segments these customers will be asked for; by default their own.

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
                " of each an image"
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
        breadth = breadth or Breadth.of(means, spreads)
        return cls(
            [str(name) for name in names],
            means,
            spreads,
            np.bincount(place, minlength=n),
            effective,
            np.hstack([means, breadth.scaled(spreads)[:, None]]),
            breadth,
        )


@dataclass(frozen=True, slots=True)
class Centers:
    """Where segments are, and how strange a customer may be for them.

    Attributes
    ----------
    X : ndarray of shape (k, d), float
    limits : ndarray of shape (k,), float
        Of each segment: who is stranger belongs to none. Infinite where there are too few customers to tell.
    usual : ndarray of shape (2,), float
        The squared distance from the nearest center that is usual with n images is the first, and the
        second over n.
    false_alarm_rate : float or None
        The share of customers like those that it was learned from whom the limits may turn away.
    """

    X: NDArray[np.floating]
    limits: NDArray[np.float64]
    usual: NDArray[np.float64]
    false_alarm_rate: float | None

    @classmethod
    def of(
        cls,
        X: NDArray[np.floating],
        centers: NDArray[np.floating],
        n_images: NDArray[np.float64],
        *,
        false_alarm_rate: float | None,
        random_state: int,
        progress: bool = False,
    ) -> "Centers":
        """Learn limits from the (n, d) customers that the (k, d) centers were found among.

        *Method*: a tenth of the customers at a time is left out, and judged by the centers that k-means then
        moves to (cross-conformal prediction, Vovk 2015). Strangeness is the squared distance from the nearest
        one over what is usual with so many images, since the mean of few lies far out by chance; what is
        usual is a least-squares fit. The limits are `from_good`'s, for each segment where it has customers
        enough, else for all together.
        """
        k, n = len(centers), len(X)
        found = cls(centers, np.full(k, np.inf), np.array([0.0, 0.0]), false_alarm_rate)
        # Fewer cannot promise it anyway, or would leave a center without anyone.
        if false_alarm_rate is None or n < max(required_examples(false_alarm_rate), 2 * k, 2):
            return found
        nearest, squared = np.empty(n, np.int64), np.empty(n)
        parts = np.array_split(np.random.default_rng(random_state).permutation(n), min(_PARTS, n))
        for out in tqdm(parts, "unseen", unit="part", disable=not progress, leave=False):
            kept = np.setdiff1d(np.arange(n), out)
            with warnings.catch_warnings():
                # Among customers who are all the same, it says that centers coincide.
                warnings.simplefilter("ignore", ConvergenceWarning)
                moved = KMeans(k, init=centers, n_init=1, random_state=random_state).fit(X[kept])
            distances = _squared(X[out], moved.cluster_centers_)
            nearest[out], squared[out] = distances.argmin(1), distances.min(1)
        found.usual[:] = nnls(np.column_stack([np.ones(n), 1 / n_images]), squared)[0]
        strange = found._strange(squared, n_images)
        medians = [np.median(strange[nearest == c]) if (nearest == c).any() else 0.0 for c in range(k)]
        found.limits[:] = limits_of(strange, nearest, np.array(medians), false_alarm_rate)
        return found

    def assign(self, X: NDArray[np.floating], n_images: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the segment of (n, d) customers with so many images, -1 for who is too strange for any."""
        squared = _squared(X, self.X)
        nearest = squared.argmin(1)
        strange = self._strange(squared[np.arange(len(X)), nearest], n_images)
        return np.where(strange > self.limits[nearest], -1, nearest)

    def _strange(self, squared: NDArray[np.float64], n: NDArray[np.float64]) -> NDArray[np.float64]:
        strange: NDArray[np.float64] = squared / np.maximum(self.usual[0] + self.usual[1] / n, _LEAST_SQUARED)
        return strange

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return arrays for a file."""
        rate = np.nan if self.false_alarm_rate is None else self.false_alarm_rate
        return {
            "centres": self.X,
            "limits": self.limits,
            "usual": self.usual,
            "false_alarm_rate": np.array(rate),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Centers":
        """Read what `to_arrays` returned."""
        rate = float(arrays["false_alarm_rate"])
        return cls(arrays["centres"], arrays["limits"], arrays["usual"], None if np.isnan(rate) else rate)


def _squared(X: NDArray[np.floating], centers: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the (n, k) squared distances."""
    wide, there = X.astype(np.float64), centers.astype(np.float64)
    squared = (wide**2).sum(1)[:, None] - 2 * wide @ there.T + (there**2).sum(1)
    positive: NDArray[np.float64] = np.maximum(squared, 0)
    return positive


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
    false_alarm_rate : float, optional
        In (0, 1). If given, `predict` answers -1 for customers who are stranger than all but this share of
        those that come like the ones it was fitted on (see `Centers`). By default everyone belongs somewhere.
    random_state : int, default 0
    progress : bool, default False
        Whether `fit` shows bars on stderr: which number of segments is tried, and k-means from its starts.

    Attributes
    ----------
    labels_ : ndarray of shape (n,), int
        The largest segment is 0.
    cluster_centers_ : ndarray of shape (k, d)
    centers_ : Centers
        The same, with what `predict` needs besides.
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
        "false_alarm_rate": [Interval(Real, 0, 1, closed="neither"), None],
        "random_state": [Interval(Integral, 0, None, closed="left")],
        "progress": ["boolean"],
    }

    def __init__(
        self,
        *,
        n_segments: int | None = None,
        false_alarm_rate: float | None = None,
        random_state: int = 0,
        progress: bool = False,
    ) -> None:
        self.n_segments = n_segments
        self.false_alarm_rate = false_alarm_rate
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: ArrayLike, y: None = None, *, n_images: ArrayLike | None = None) -> "CustomerSegments":
        """Segment (n, d) customers, such as `Customers.features`.

        Parameters
        ----------
        X : array of shape (n, d), float
        y : ignored
        n_images : array of shape (n,), float, optional
            More than 0, such as `Customers.n_effective`: few images tell less. By default 1 each.

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
            tried = tqdm(numbers, "how many", unit="number", disable=not self.progress, leave=False)
            best = max((k for k in tried if self._strength(few, k) >= _STRONG), default=1)
        # More centers than different customers would only be copies of each other.
        model = self._fitted(vectors, min(best, max(n_different, 1)), rng)
        order = np.argsort(-np.bincount(model.labels_), kind="stable")
        self.cluster_centers_ = model.cluster_centers_[order]
        self.labels_ = np.argsort(order)[model.labels_]
        self.n_segments_ = len(order)
        self.centers_ = Centers.of(
            vectors,
            self.cluster_centers_,
            _numbers(n_images, n),
            false_alarm_rate=self.false_alarm_rate,
            random_state=self.random_state,
            progress=self.progress,
        )
        self.silhouette_ = self._silhouette(part, self.n_segments_)
        return self

    def predict(self, X: ArrayLike, *, n_images: ArrayLike | None = None) -> NDArray[np.int64]:
        """Return the segment of (n, d) customers, the segments staying as they are; with a rate, -1 for none.

        Parameters
        ----------
        X : array of shape (n, d), float
        n_images : array of shape (n,), float, optional
            See `fit`.
        """
        check_is_fitted(self)
        vectors: NDArray[np.floating] = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        return self.centers_.assign(vectors, _numbers(n_images, len(vectors)))

    def _fitted(self, X: NDArray[np.floating], k: int, rng: np.random.Generator) -> KMeans:
        """Return the best of several starts, one after the other so that each can be seen."""
        seeds = rng.integers(2**31, size=_STARTS)
        starts = tqdm(seeds, "segments", unit="start", disable=not self.progress, leave=False)
        return min(
            (KMeans(k, n_init=1, random_state=int(seed)).fit(X) for seed in starts),
            key=lambda model: model.inertia_,
        )

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


def _numbers(n_images: ArrayLike | None, n: int) -> NDArray[np.float64]:
    numbers = np.ones(n) if n_images is None else np.asarray(n_images, np.float64)
    if numbers.shape != (n,) or not np.all((numbers > 0) & np.isfinite(numbers)):
        raise InvalidParameterError(
            f"n_images has shape {numbers.shape}; give a number above 0 for each of {n} customers"
        )
    return numbers
