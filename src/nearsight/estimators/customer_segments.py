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

from nearsight.errors import InvalidParameterError
from nearsight.estimators.conformal import group_thresholds, required_examples
from nearsight.estimators.neighbors import unit_length
from nearsight.progress import track

# Numbers of segments are tried up to this, with at least so many customers each, on so many customers.
_MOST_SEGMENTS = 10
_LEAST_CUSTOMERS_EACH = 4
_MOST_TRIED_CUSTOMERS = 2000
# Prediction strength of a number of segments that is accepted, over so many divisions and along so many axes.
_LEAST_STRENGTH, _N_DIVISIONS, _N_AXES = 0.7, 5, 10
# The standard deviation of spreads, relative to that of the means.
_SPREAD_WEIGHT = 0.1
_N_STARTS = 10
_N_FOLDS = 10
# Customers that are all the same have distance 0.
_LEAST_SQUARED_DISTANCE = 1e-8


@dataclass(frozen=True, slots=True)
class SpreadScale:
    """How a customer's spread becomes a feature beside the mean vector.

    Attributes
    ----------
    mean_spread : float
        Of all customers; it replaces a spread that is unknown.
    factor : float
        Multiplies the difference from the mean spread; 0 where spreads are unknown or all the same.
    """

    mean_spread: float
    factor: float

    @classmethod
    def fit(cls, means: NDArray[np.float32], spreads: NDArray[np.float64]) -> "SpreadScale":
        """Learn the scale from (n, d) means and (n,) spreads, NaN where unknown."""
        known = spreads[np.isfinite(spreads)]
        if len(known) < 2 or known.std() < 1e-9:
            return cls(0.0, 0.0)
        deviation = float(np.sqrt(means.var(0).sum()))
        return cls(float(known.mean()), float(_SPREAD_WEIGHT * deviation / known.std()))

    def transform(self, spreads: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the feature of each spread, (n,)."""
        filled = np.where(np.isfinite(spreads), spreads, self.mean_spread)
        return (self.factor * (filled - self.mean_spread)).astype(np.float32)

    def to_dict(self) -> dict[str, float]:
        """Return plain data for a file."""
        return {"usual": self.mean_spread, "factor": self.factor}

    @classmethod
    def from_dict(cls, data: Mapping[str, float]) -> "SpreadScale":
        """Return the scale that `to_dict` was called on."""
        return cls(float(data["usual"]), float(data["factor"]))


@dataclass(frozen=True, slots=True)
class CustomerVectors:
    """Customers, described by their images.

    Attributes
    ----------
    names : list of str, length n
        In alphabetical order.
    means : ndarray of shape (n, d), float32, unit length
        The weighted mean direction of each customer's images.
    spreads : ndarray of shape (n,), float
        In 0..1: how much each customer's images differ; NaN for a single image.
    n_images : ndarray of shape (n,), int
    n_effective : ndarray of shape (n,), float
        The number of equally weighted images with the same information: (sum w)² / sum w².
    features : ndarray of shape (n, d + 1), float32
        The means, and the scaled spread: what segments are fitted on.
    spread_scale : SpreadScale
        The scale, for customers who come later.
    """

    names: list[str]
    means: NDArray[np.float32]
    spreads: NDArray[np.float64]
    n_images: NDArray[np.int64]
    n_effective: NDArray[np.float64]
    features: NDArray[np.float32]
    spread_scale: SpreadScale

    @classmethod
    def from_images(
        cls,
        X: ArrayLike,
        customers: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        spread_scale: SpreadScale | None = None,
    ) -> "CustomerVectors":
        """Describe customers by their images.

        *Method*: directional statistics (Mardia and Jupp 2000, section 9.2): the mean direction, and as
        spread 1 - the mean cosine of two different images. Its unbiased estimate comes from the length R of
        the mean and the effective number of images n = (sum w)² / sum w²: (n R² - 1) / (n - 1). An unknown
        spread counts as the mean one. The standard deviation of spreads is a tenth of that of the means.

        Parameters
        ----------
        X : array of shape (m, d), float
            One vector an image; lengths do not matter.
        customers : array of shape (m,), str
            The customer of each image.
        weights : array of shape (m,), float, optional
            More than 0, such as how often the image was bought.
        spread_scale : SpreadScale, optional
            Of the customers that the segments were fitted on; by default it is learned from these.

        Raises
        ------
        InvalidParameterError
            Lengths differ, a weight is not above 0, or a vector is not finite.

        Examples
        --------
        >>> vectors = CustomerVectors.from_images([[1, 0], [0, 1], [1, 0]], ["ann", "ann", "bob"], [3, 1, 1])
        >>> vectors.names, vectors.means.argmax(1).tolist(), vectors.spreads.round(2).tolist()
        (['ann', 'bob'], [0, 0], [1.0, nan])
        """
        vectors, owners = unit_length(np.asarray(X, np.float32)), np.asarray(customers)
        w = np.ones(len(vectors)) if weights is None else np.asarray(weights, np.float64)
        if not len(vectors) == len(owners) == len(w):
            raise InvalidParameterError(
                f"there are {len(vectors)} vectors, {len(owners)} customers and {len(w)} weights; give one"
                " of each an image"
            )
        if not np.isfinite(vectors).all() or not np.all((w > 0) & np.isfinite(w)):
            raise InvalidParameterError(
                "a weight is not above 0, or a vector or a weight is NaN or infinite; leave such rows out"
            )
        names, customer = np.unique(owners, return_inverse=True)
        n = len(names)
        total = np.bincount(customer, w, n)
        sums = np.zeros((n, vectors.shape[1]), np.float64)
        np.add.at(sums, customer, vectors * w[:, None])
        n_effective = total**2 / np.bincount(customer, w**2, n)
        squared_length = (sums**2).sum(1) / total**2
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = (n_effective * squared_length - 1) / (n_effective - 1)
            spreads = np.where(n_effective > 1 + 1e-9, 1 - cosine, np.nan).clip(0, 1)
        means = unit_length(sums.astype(np.float32))
        spread_scale = spread_scale or SpreadScale.fit(means, spreads)
        return cls(
            [str(name) for name in names],
            means,
            spreads,
            np.bincount(customer, minlength=n),
            n_effective,
            np.hstack([means, spread_scale.transform(spreads)[:, None]]),
            spread_scale,
        )


@dataclass(frozen=True, slots=True)
class SegmentCenters:
    """The centers of segments, and the highest novelty of a customer that belongs to one.

    Attributes
    ----------
    X : ndarray of shape (k, d), float
    limits : ndarray of shape (k,), float
        For each segment: a customer of higher novelty belongs to none. Infinite where there are too few
        customers to calibrate.
    typical : ndarray of shape (2,), float
        The typical squared distance of a customer with n images from the nearest center is
        ``typical[0] + typical[1] / n``.
    false_alarm_rate : float or None
        The share of customers like the fitted ones that may be in no segment.
    """

    X: NDArray[np.floating]
    limits: NDArray[np.float64]
    typical: NDArray[np.float64]
    false_alarm_rate: float | None

    @classmethod
    def fit(
        cls,
        X: NDArray[np.floating],
        centers: NDArray[np.floating],
        n_images: NDArray[np.float64],
        *,
        false_alarm_rate: float | None,
        random_state: int,
        progress: bool | None = False,
    ) -> "SegmentCenters":
        """Calibrate limits on the (n, d) customers that the (k, d) centers were fitted on.

        *Method*: a tenth of the customers at a time is held out and scored by the centers that k-means then
        moves to (cross-conformal prediction, Vovk 2015). Novelty is the squared distance from the nearest
        center, divided by the typical one for so many images (a least-squares fit), since the mean of few
        images lies far out by chance. Limits are `conformal.group_thresholds`.
        """
        k, n = len(centers), len(X)
        segments = cls(centers, np.full(k, np.inf), np.array([0.0, 0.0]), false_alarm_rate)
        # Fewer customers cannot calibrate the rate, or would leave a center without any.
        if false_alarm_rate is None or n < max(required_examples(false_alarm_rate), 2 * k, 2):
            return segments
        nearest, squared = np.empty(n, np.int64), np.empty(n)
        folds = np.array_split(np.random.default_rng(random_state).permutation(n), min(_N_FOLDS, n))
        for held_out in track(folds, "calibrating segment limits", unit="folds", progress=progress):
            rest = np.setdiff1d(np.arange(n), held_out)
            with warnings.catch_warnings():
                # If customers are all the same, k-means warns that centers coincide.
                warnings.simplefilter("ignore", ConvergenceWarning)
                moved = KMeans(k, init=centers, n_init=1, random_state=random_state).fit(X[rest])
            distances = _squared_distances(X[held_out], moved.cluster_centers_)
            nearest[held_out], squared[held_out] = distances.argmin(1), distances.min(1)
        segments.typical[:] = nnls(np.column_stack([np.ones(n), 1 / n_images]), squared)[0]
        novelty = segments._novelty(squared, n_images)
        medians = [np.median(novelty[nearest == c]) if (nearest == c).any() else 0.0 for c in range(k)]
        segments.limits[:] = group_thresholds(novelty, nearest, np.array(medians), false_alarm_rate)
        return segments

    def assign(self, X: NDArray[np.floating], n_images: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the segment of (n, d) customers with (n,) images, -1 for those beyond every limit."""
        squared = _squared_distances(X, self.X)
        nearest = squared.argmin(1)
        novelty = self._novelty(squared[np.arange(len(X)), nearest], n_images)
        return np.where(novelty > self.limits[nearest], -1, nearest)

    def _novelty(self, squared: NDArray[np.float64], n: NDArray[np.float64]) -> NDArray[np.float64]:
        typical = np.maximum(self.typical[0] + self.typical[1] / n, _LEAST_SQUARED_DISTANCE)
        novelty: NDArray[np.float64] = squared / typical
        return novelty

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return arrays for a file."""
        rate = np.nan if self.false_alarm_rate is None else self.false_alarm_rate
        return {
            "centres": self.X,
            "limits": self.limits,
            "usual": self.typical,
            "false_alarm_rate": np.array(rate),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "SegmentCenters":
        """Return the centers that `to_arrays` was called on."""
        rate = float(arrays["false_alarm_rate"])
        return cls(arrays["centres"], arrays["limits"], arrays["usual"], None if np.isnan(rate) else rate)


def _squared_distances(X: NDArray[np.floating], centers: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the (n, k) squared distances."""
    rows, references = X.astype(np.float64), centers.astype(np.float64)
    squared = (rows**2).sum(1)[:, None] - 2 * rows @ references.T + (references**2).sum(1)
    distances: NDArray[np.float64] = np.maximum(squared, 0)
    return distances


class CustomerSegments(ClusterMixin, BaseEstimator):
    """Divide customers into segments; each customer belongs to exactly one.

    *Method*: k-means. By default the number of segments is the largest of 2..10 with a prediction strength of
    0.7 (Tibshirani and Walther 2005): two halves of the customers, segmented independently, agree on at least
    this share of the pairs of every segment, on average over 5 divisions of at most 2,000 customers along
    their 10 leading principal axes. The paper uses 0.8, for segments that do not touch; data without segments
    have 0.5 for two and less for more. If no number has that strength, there is one segment. The silhouette
    would find one distant group and no more.

    Parameters
    ----------
    n_segments : int, optional
        At least 1 and at most the number of customers.
    false_alarm_rate : float, optional
        In (0, 1). If given, `predict` returns -1 for customers of higher novelty than all but this share of
        customers like the fitted ones (see `SegmentCenters`). By default everyone belongs to a segment.
    random_state : int, default 0
    progress : bool or None, default False
        Whether `fit` shows progress on stderr.

    Attributes
    ----------
    labels_ : ndarray of shape (n,), int
        The largest segment is 0.
    cluster_centers_ : ndarray of shape (k, d)
    centers_ : SegmentCenters
        The centers, and the limits of `predict`.
    n_segments_ : int
    silhouette_ : float
        In -1..1 (Rousseeuw 1987): how much closer customers are to their own segment than to the next. NaN
        for fewer than two segments.

    Notes
    -----
    Costs n k d operations per iteration. Fewer than 8 customers, or customers that are all the same, are one
    segment by default; so is one customer. No rows, NaN and infinity are refused. Duplicate customers count
    as often as they come.

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
        "progress": ["boolean", None],
    }

    def __init__(
        self,
        *,
        n_segments: int | None = None,
        false_alarm_rate: float | None = None,
        random_state: int = 0,
        progress: bool | None = False,
    ) -> None:
        self.n_segments = n_segments
        self.false_alarm_rate = false_alarm_rate
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: ArrayLike, y: None = None, *, n_images: ArrayLike | None = None) -> "CustomerSegments":
        """Divide (n, d) customers into segments, such as `CustomerVectors.features`.

        Parameters
        ----------
        X : array of shape (n, d), float
        y : ignored
        n_images : array of shape (n,), float, optional
            More than 0, such as `CustomerVectors.n_effective`. By default 1 each.

        Raises
        ------
        InvalidParameterError
            There are fewer customers than segments, or a parameter is out of its range.
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
        sample = vectors
        if n > _MOST_TRIED_CUSTOMERS:
            sample = vectors[rng.choice(n, _MOST_TRIED_CUSTOMERS, replace=False)]
        n_different = len(np.unique(sample, axis=0))
        # More centers than different customers would be duplicates of each other.
        n_segments = min(self.n_segments or self._best_number(sample, n_different), max(n_different, 1))
        model = self._best_start(vectors, n_segments, rng)
        order = np.argsort(-np.bincount(model.labels_), kind="stable")
        self.cluster_centers_ = model.cluster_centers_[order]
        self.labels_ = np.argsort(order)[model.labels_]
        self.n_segments_ = len(order)
        self.centers_ = SegmentCenters.fit(
            vectors,
            self.cluster_centers_,
            _image_counts(n_images, n),
            false_alarm_rate=self.false_alarm_rate,
            random_state=self.random_state,
            progress=self.progress,
        )
        self.silhouette_ = self._silhouette(sample, self.n_segments_)
        return self

    def predict(self, X: ArrayLike, *, n_images: ArrayLike | None = None) -> NDArray[np.int64]:
        """Return the segment of (n, d) customers; with a rate, -1 for those beyond every limit.

        Parameters
        ----------
        X : array of shape (n, d), float
        n_images : array of shape (n,), float, optional
            See `fit`.
        """
        check_is_fitted(self)
        vectors: NDArray[np.floating] = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        return self.centers_.assign(vectors, _image_counts(n_images, len(vectors)))

    def _best_number(self, sample: NDArray[np.floating], n_different: int) -> int:
        """Return the largest number of segments of sufficient prediction strength, or 1."""
        numbers = range(2, min(_MOST_SEGMENTS, n_different // _LEAST_CUSTOMERS_EACH) + 1)
        if not numbers:
            return 1
        axes = PCA(min(_N_AXES, *sample.shape), random_state=self.random_state)
        reduced = axes.fit_transform(sample)
        tried = track(numbers, "choosing the number of segments", unit="numbers", progress=self.progress)
        return max((k for k in tried if self._prediction_strength(reduced, k) >= _LEAST_STRENGTH), default=1)

    def _best_start(self, X: NDArray[np.floating], k: int, rng: np.random.Generator) -> KMeans:
        """Return the best of several starts, run one by one to show progress."""
        seeds = rng.integers(2**31, size=_N_STARTS)
        starts = track(seeds, "fitting segments", unit="starts", progress=self.progress)
        return min(
            (KMeans(k, n_init=1, random_state=int(seed)).fit(X) for seed in starts),
            key=lambda model: model.inertia_,
        )

    def _prediction_strength(self, X: NDArray[np.floating], k: int) -> float:
        """Return the prediction strength of `k` segments, in 0..1."""
        rng = np.random.default_rng(self.random_state)
        strengths = []
        for _ in range(_N_DIVISIONS):
            order = rng.permutation(len(X))
            halves = X[order[: len(X) // 2]], X[order[len(X) // 2 :]]
            models = [KMeans(k, n_init=3, random_state=self.random_state).fit(half) for half in halves]
            for other, half, own in (
                (models[0], halves[1], models[1]),
                (models[1], halves[0], models[0]),
            ):
                counts = np.zeros((k, k))
                np.add.at(counts, (own.labels_, other.predict(half)), 1)
                sizes = counts.sum(1)
                n_pairs, n_agreed = sizes * (sizes - 1), (counts * (counts - 1)).sum(1)
                # A segment of one customer has no pair to agree on.
                strengths.append(np.divide(n_agreed, n_pairs, out=np.zeros(k), where=n_pairs > 0).min())
        return float(np.mean(strengths))

    def _silhouette(self, X: NDArray[np.floating], k: int) -> float:
        if not 2 <= k < len(X):
            return float("nan")
        labels = KMeans(k, n_init=3, random_state=self.random_state).fit_predict(X)
        n_labels = len(np.unique(labels))
        return float(silhouette_score(X, labels)) if 2 <= n_labels < len(X) else float("nan")


def _image_counts(n_images: ArrayLike | None, n: int) -> NDArray[np.float64]:
    counts = np.ones(n) if n_images is None else np.asarray(n_images, np.float64)
    if counts.shape != (n,) or not np.all((counts > 0) & np.isfinite(counts)):
        raise InvalidParameterError(
            f"n_images has shape {counts.shape}; give a number above 0 for each of {n} customers"
        )
    return counts
