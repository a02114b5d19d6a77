"""Spherical k-means: a stated number of clusters of directions."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from nearsight.errors import InvalidParameterError
from nearsight.estimators.conformal import from_good, required_examples
from nearsight.estimators.neighbors import similarity_blocks, unit_length
from nearsight.progress import Bar, bar

Floats = NDArray[np.float32]

# Starts run on at most so many random rows; the best one goes on with all rows.
_MOST_START_ROWS = 20_000
_BLOCK_ROWS = 8192


class SphericalKMeans(TransformerMixin, ClusterMixin, BaseEstimator):
    """Divide vectors into a stated number of clusters by direction.

    *Method*: spherical k-means (Dhillon and Modha 2001): centers are mean directions, compared by cosine.
    Starts are chosen by k-means++ (Arthur and Vassilvitskii 2007). Deviation: of more than 20,000 rows, the
    starts run on 20,000 random ones, and the best goes on with all rows. Rows are compared in blocks, so that
    n × k numbers are never held at once.

    Parameters
    ----------
    n_clusters : int, default 8
        At least 1 and at most the number of vectors.
    n_init : int, default 5
        Starts.
    max_iter : int, default 100
        Iterations of each start.
    false_alarm_rate : float, optional
        In (0, 1). If given, `predict` returns -1 for vectors that are farther from their center than all but
        this share of the center's own vectors. By default every vector belongs to a cluster.
    random_state : int, default 0
    progress : bool or None, default False
        Whether `fit` shows its iterations on stderr.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (k, d), float32, unit length
    labels_ : ndarray of shape (n,), int
        The largest cluster is 0. Duplicates can leave the last clusters empty.
    limits_ : ndarray of shape (k,), float
        Distances (1 - cosine) above which `predict` returns -1; infinite without a rate, or if there are too
        few vectors to calibrate.
    inertia_ : float
        Mean distance to the center.
    n_iter_ : int
        Iterations with all vectors.

    Notes
    -----
    Costs n k d operations per iteration. No rows, or fewer than `n_clusters`, are refused; one and two are
    clusters of their own. Duplicate rows are in one cluster; rows that are all the same are in cluster 0. NaN
    and infinity are refused; vectors of zeros are in cluster 0.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.repeat(np.eye(3), 10, axis=0) + 0.1 * np.random.default_rng(0).normal(size=(30, 3))
    >>> sorted(np.bincount(SphericalKMeans(n_clusters=3).fit_predict(X)).tolist())
    [10, 10, 10]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "false_alarm_rate": [Interval(Real, 0, 1, closed="neither"), None],
        "random_state": [Interval(Integral, 0, None, closed="left")],
        "progress": ["boolean", None],
    }

    def __init__(
        self,
        *,
        n_clusters: int = 8,
        n_init: int = 5,
        max_iter: int = 100,
        false_alarm_rate: float | None = None,
        random_state: int = 0,
        progress: bool | None = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.max_iter = max_iter
        self.false_alarm_rate = false_alarm_rate
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: ArrayLike, y: None = None) -> "SphericalKMeans":
        """Cluster (n, d) vectors.

        Raises
        ------
        InvalidParameterError
            There are fewer vectors than clusters, or a parameter is out of its range.
        """
        try:
            self._validate_params()
        except ValueError as error:
            raise InvalidParameterError(str(error)) from error
        vectors = _directions(validate_data(self, X, dtype=[np.float32, np.float64]))
        if len(vectors) < self.n_clusters:
            raise InvalidParameterError(
                f"n_samples={len(vectors)} is less than n_clusters={self.n_clusters};"
                f" ask for at most {len(vectors)}"
            )
        rng = np.random.default_rng(self.random_state)
        start_rows = vectors
        if len(vectors) > _MOST_START_ROWS:
            start_rows = vectors[np.sort(rng.choice(len(vectors), _MOST_START_ROWS, replace=False))]
        with bar("running k-means", unit="iterations", progress=self.progress) as shown:
            runs = [
                self._lloyd(start_rows, _plus_plus(start_rows, self.n_clusters, rng), shown)
                for _ in range(self.n_init)
            ]
            centers = min(runs, key=lambda run: run[2])[0]
            centers, labels, self.inertia_, self.n_iter_ = self._lloyd(vectors, centers, shown)
        order = np.argsort(-np.bincount(labels, minlength=self.n_clusters), kind="stable")
        self.cluster_centers_ = centers[order]
        self.labels_ = np.argsort(order)[labels]
        self.limits_ = self._limits(vectors)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the nearest center of (n, d) vectors; with a rate, -1 for vectors beyond its limit."""
        check_is_fitted(self)
        vectors = _directions(validate_data(self, X, dtype=[np.float32, np.float64], reset=False))
        labels, similarities = _nearest_center(vectors, self.cluster_centers_)
        return np.where(1 - similarities > self.limits_[labels], -1, labels)

    def transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return (n, k) distances to the centers, 1 - cosine: lower is closer."""
        check_is_fitted(self)
        checked = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        distances: NDArray[np.floating] = (1 - _directions(checked) @ self.cluster_centers_.T).astype(
            checked.dtype
        )
        return distances

    def _lloyd(self, X: Floats, centers: Floats, shown: Bar) -> tuple[Floats, NDArray[np.int64], float, int]:
        """Return centers, labels, mean distance and iterations of Lloyd's algorithm."""
        labels, n_iter = np.full(len(X), -1), 0
        while n_iter < self.max_iter:
            n_iter += 1
            before = labels
            labels, similarities = _nearest_center(X, centers)
            shown.update()
            if (labels == before).all():
                break
            centers = _mean_directions(X, labels, similarities, centers)
        labels, similarities = _nearest_center(X, centers)
        return centers, labels, float(1 - similarities.mean(dtype=np.float64)), n_iter

    def _limits(self, X: Floats) -> NDArray[np.float64]:
        """Calibrate limits on the distance of each vector to its center without the vector itself."""
        limits = np.full(self.n_clusters, np.inf)
        if self.false_alarm_rate is None:
            return limits
        n_required = required_examples(self.false_alarm_rate)
        own_distances = {}
        for label in range(self.n_clusters):
            inside = X[self.labels_ == label]
            if len(inside) > 1:
                total = inside.sum(0, dtype=np.float64).astype(np.float32)
                own_distances[label] = 1 - np.einsum("ij,ij->i", inside, unit_length(total - inside))
        pooled = np.concatenate(list(own_distances.values())) if own_distances else np.empty(0)
        for label in range(self.n_clusters):
            distances = own_distances.get(label, pooled)
            if len(distances) < n_required:
                distances = pooled
            if len(distances) >= n_required:
                limits[label] = from_good(distances, false_alarm_rate=self.false_alarm_rate).value
        return limits


def _directions(X: NDArray[np.floating]) -> Floats:
    return unit_length(np.asarray(X, np.float32))


def _nearest_center(X: Floats, centers: Floats) -> tuple[NDArray[np.int64], Floats]:
    labels, highest = np.empty(len(X), np.int64), np.empty(len(X), np.float32)
    for rows, similarities in similarity_blocks(X, centers, block_rows=_BLOCK_ROWS):
        labels[rows] = similarities.argmax(1)
        highest[rows] = similarities.max(1)
    return labels, highest


def _mean_directions(X: Floats, labels: NDArray[np.int64], similarities: Floats, centers: Floats) -> Floats:
    """Return the mean directions; an empty cluster restarts at the row farthest from its center."""
    n, k = len(X), len(centers)
    membership = csr_matrix((np.ones(n, np.float32), (labels, np.arange(n))), shape=(k, n))
    means = unit_length(np.asarray(membership @ X))
    empty = np.flatnonzero(np.bincount(labels, minlength=k) == 0)
    if len(empty):
        means[empty] = X[np.argsort(similarities, kind="stable")[: len(empty)]]
    return means


def _plus_plus(X: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Return k rows as starting centers, chosen by k-means++."""
    rows = [int(rng.integers(len(X)))]
    distances = np.maximum(1 - X @ X[rows[0]], 0).astype(np.float64)
    for _ in range(1, k):
        total = distances.sum()
        row = int(rng.choice(len(X), p=distances / total)) if total > 1e-9 else int(rng.integers(len(X)))
        rows.append(row)
        distances = np.minimum(distances, np.maximum(1 - X @ X[row], 0))
    return X[rows]
