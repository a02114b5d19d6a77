"""As many clusters as are asked for."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data
from tqdm import tqdm

from nearsight.errors import InvalidParameterError
from nearsight.estimators.clustering.spectral import Floats, unit
from nearsight.estimators.conformal import from_good, required_examples

# Starts are tried on so many random rows; the best goes on with all.
_MOST_TRIED = 20_000
_ROWS = 8192


class SphericalKMeans(TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Divide unit vectors into a given number of clusters by direction.

    *Method*: spherical k-means (Dhillon and Modha 2001): centers are mean directions, likeness is the
    cosine. Starts by k-means++ (Arthur and Vassilvitskii 2007), several of them, tried on 20,000 random rows
    where there are more; the best goes on with all rows, so that none of it needs n * k numbers at once.

    Parameters
    ----------
    n_clusters : int, default 8
        At least 1 and at most the number of vectors.
    n_init : int, default 5
        Starts.
    max_iter : int, default 100
        Rounds of each.
    false_alarm_rate : float, optional
        In (0, 1). If given, `predict` answers -1 for what is farther from its center than all but this share
        of the center's own vectors. By default every vector belongs somewhere.
    random_state : int, default 0
    progress : bool, default False
        Whether `fit` shows on stderr how many rounds it took so far, and how many vectors the last one moved.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (k, d), float32, unit length
    labels_ : ndarray of shape (n,), int
        The largest cluster is 0. Duplicates can leave the last ones without a vector.
    limits_ : ndarray of shape (k,), float
        Distances (1 - cosine) beyond which `predict` answers -1; infinite without a rate, or where the
        vectors are too few to promise it.
    inertia_ : float
        Mean distance to the center.
    n_iter_ : int
        Rounds with all vectors.

    Notes
    -----
    Cost: n · k · d a round. Without rows or with fewer than `n_clusters` it refuses; one and two are
    clusters of their own. Duplicate rows are of one cluster; where all are the same, that is cluster 0 and
    there is no other. NaN and infinity are refused; vectors of zeros belong to cluster 0.

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
        "progress": ["boolean"],
    }

    def __init__(
        self,
        *,
        n_clusters: int = 8,
        n_init: int = 5,
        max_iter: int = 100,
        false_alarm_rate: float | None = None,
        random_state: int = 0,
        progress: bool = False,
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
            There are fewer vectors than clusters, or a parameter is outside its range.
        """
        try:
            self._validate_params()
        except ValueError as error:
            raise InvalidParameterError(str(error)) from error
        vectors = unit(validate_data(self, X, dtype=[np.float32, np.float64]))
        if len(vectors) < self.n_clusters:
            raise InvalidParameterError(
                f"n_samples={len(vectors)} is less than n_clusters={self.n_clusters};"
                f" ask for at most {len(vectors)}"
            )
        rng = np.random.default_rng(self.random_state)
        tried = (
            vectors
            if len(vectors) <= _MOST_TRIED
            else vectors[np.sort(rng.choice(len(vectors), _MOST_TRIED, replace=False))]
        )
        with tqdm(desc="k-means", unit="round", disable=not self.progress, leave=False) as bar:
            runs = [
                self._run(tried, _plus_plus(tried, self.n_clusters, rng), bar) for _ in range(self.n_init)
            ]
            centers = min(runs, key=lambda run: run[2])[0]
            centers, labels, self.inertia_, self.n_iter_ = self._run(vectors, centers, bar)
        order = np.argsort(-np.bincount(labels, minlength=self.n_clusters), kind="stable")
        self.cluster_centers_ = centers[order]
        self.labels_ = np.argsort(order)[labels]
        self.limits_ = self._limits(vectors)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the nearest center of (n, d) vectors; with a rate, -1 for what belongs to none."""
        check_is_fitted(self)
        vectors = unit(validate_data(self, X, dtype=[np.float32, np.float64], reset=False))
        labels, similarities = _nearest(vectors, self.cluster_centers_)
        return np.where(1 - similarities > self.limits_[labels], -1, labels)

    def transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return (n, k) distances to the centers, 1 - cosine: lower is closer."""
        check_is_fitted(self)
        checked = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        distances: NDArray[np.floating] = (1 - unit(checked) @ self.cluster_centers_.T).astype(checked.dtype)
        return distances

    def _run(self, X: Floats, centers: Floats, bar: Any) -> tuple[Floats, NDArray[np.int64], float, int]:
        labels, n_iter = np.full(len(X), -1), 0
        while n_iter < self.max_iter:
            n_iter += 1
            before = labels
            labels, similarities = _nearest(X, centers)
            n_moved = int((labels != before).sum())
            bar.set_postfix_str(f"{n_moved:,} of {len(X):,} moved", refresh=False)
            bar.update()
            if n_moved == 0:
                break
            centers = _means(X, labels, similarities, centers)
        labels, similarities = _nearest(X, centers)
        return centers, labels, float(1 - similarities.mean(dtype=np.float64)), n_iter

    def _limits(self, X: Floats) -> NDArray[np.float64]:
        """Learn limits from how far each vector is from where its center would be without it."""
        limits = np.full(self.n_clusters, np.inf)
        if self.false_alarm_rate is None:
            return limits
        needed = required_examples(self.false_alarm_rate)
        own = {}
        for label in range(self.n_clusters):
            inside = X[self.labels_ == label]
            if len(inside) > 1:
                total = inside.sum(0, dtype=np.float64).astype(np.float32)
                own[label] = 1 - np.einsum("ij,ij->i", inside, unit(total - inside))
        together = np.concatenate(list(own.values())) if own else np.empty(0)
        for label in range(self.n_clusters):
            scores = own.get(label, together)
            scores = scores if len(scores) >= needed else together
            if len(scores) >= needed:
                limits[label] = from_good(scores, false_alarm_rate=self.false_alarm_rate).value
        return limits


def _nearest(X: Floats, centers: Floats) -> tuple[NDArray[np.int64], Floats]:
    labels, best = np.empty(len(X), np.int64), np.empty(len(X), np.float32)
    for at in range(0, len(X), _ROWS):
        similarities = X[at : at + _ROWS] @ centers.T
        labels[at : at + _ROWS] = similarities.argmax(1)
        best[at : at + _ROWS] = similarities.max(1)
    return labels, best


def _means(X: Floats, labels: NDArray[np.int64], similarities: Floats, centers: Floats) -> Floats:
    """Return the mean directions; an empty cluster begins anew at the row that is worst off."""
    from scipy.sparse import csr_matrix

    n, k = len(X), len(centers)
    member = csr_matrix((np.ones(n, np.float32), (labels, np.arange(n))), shape=(k, n))
    means = unit(np.asarray(member @ X))
    empty = np.flatnonzero(np.bincount(labels, minlength=k) == 0)
    if len(empty):
        means[empty] = X[np.argsort(similarities, kind="stable")[: len(empty)]]
    return means


def _plus_plus(X: Floats, k: int, rng: np.random.Generator) -> Floats:
    rows = [int(rng.integers(len(X)))]
    far = np.maximum(1 - X @ X[rows[0]], 0).astype(np.float64)
    for _ in range(1, k):
        total = far.sum()
        row = int(rng.choice(len(X), p=far / total)) if total > 1e-9 else int(rng.integers(len(X)))
        rows.append(row)
        far = np.minimum(far, np.maximum(1 - X @ X[row], 0))
    return X[rows]
