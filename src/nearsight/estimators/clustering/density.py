"""Density clustering: as many clusters as the data have; rows that belong to none are noise."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from nearsight.errors import InvalidParameterError
from nearsight.estimators.clustering.assigner import ClusterAssigner
from nearsight.estimators.clustering.hdbscan_tree import hdbscan
from nearsight.estimators.clustering.spectral import diffusion_coordinates, principal_coordinates
from nearsight.estimators.neighbors import euclidean_neighbors, unit_length
from nearsight.progress import bar, track

Floats = NDArray[np.float32]

# The largest 1 - cosine of vectors that differ by rounding only.
_ROUNDING = 1e-5
# A cluster's rows must be more similar to each other than to other rows, by so many standard deviations of
# the cosine of random pairs. Clusters of real images have 0.6 to 3; groups of scattered vectors 0 to 0.3.
_LEAST_COHESION = 0.5
_RANDOM_PAIRS = 20_000
# However many images there are, a hundred similar ones are a cluster.
_LARGEST_MIN_CLUSTER_SIZE = 100
# For the limits, clusters are found again without one fold of ten, for at least two folds and 2,000 rows.
_N_FOLDS, _LEAST_HELD_OUT, _LEAST_FOLDS = 10, 2000, 2


class DensityClustering(ClusterMixin, BaseEstimator):
    """Find as many clusters as the data have; vectors between them are noise, labeled -1.

    *Method*: HDBSCAN (Campello, Moulavi and Sander 2013) on coordinates from the neighbor graph, since
    density means little in hundreds of dimensions: the 15 nearest neighbors along the 64 leading principal
    axes, diffusion coordinates (`spectral.diffusion_coordinates`), and the clusters of greatest excess of
    mass on the neighbor graph there. Even scattered vectors form groups in such a graph, so a cluster must
    also be cohesive: its rows are more similar to each other than to other rows, by half a standard deviation
    of random pairs. UMAP and EVoC follow the same plan with coordinates by gradient descent;
    `benchmarks/cluster.py` compares them. New vectors are assigned by vote (`ClusterAssigner`) without a new
    fit.

    The novelty above which a row is noise is calibrated in two steps. Each row of a cluster is scored by all
    others; then a tenth of the rows at a time is held out, the others are clustered again, and the limits are
    widened by the scores of the held-out rows (cross-conformal prediction, Vovk 2015). The first step alone
    rejects too many rows, since vague clusters depend on the very rows that they hold.

    Parameters
    ----------
    min_cluster_size : int, optional
        At least 2: the size of the smallest cluster. By default 0.75 × sqrt(n), within 5..100.
    min_samples : int, default 5
        Neighbors, the row itself among them, that define density; more gives more noise.
    n_neighbors : int, default 15
        Of the graph, at least 2. Fewer find finer structure.
    n_components : int, default 10
        Diffusion coordinates.
    false_alarm_rate : float, default 0.05
        In (0, 1): the share of later rows of a cluster that `predict` calls noise. A later row belongs to a
        cluster if clustering it with the others, with at most a tenth of later rows, puts it into one. The
        rate holds on average over samples; for one clustering it varies if clusters are vague. If later rows
        are so many that they form clusters of their own, more are called noise.
    max_rows : int, default 150000
        If there are more vectors, a random sample of this size is clustered and the others are assigned:
        time grows with n².
    max_members : int, default 8192
        Vectors that are stored for `predict`.
    random_state : int, default 0
    progress : bool or None, default False
        Whether `fit` shows progress on stderr.

    Attributes
    ----------
    labels_ : ndarray of shape (n,), int
        0, 1, ... with the largest cluster first; -1 is noise.
    probabilities_ : ndarray of shape (n,), float
        Strength of membership: 1 in the densest place of a cluster, 0 for noise.
    n_clusters_ : int
    assigner_ : ClusterAssigner

    Notes
    -----
    Costs 64 n² operations for the neighbors and n d for all else; both ten times more for up to 2,000
    vectors (the limits), three times more from 10,000 on. Memory is 4 n (d + 64 + 2 × 15) bytes beside the
    vectors. 100,000 x 512 numbers take some minutes on two cores. Vectors are compared by direction, so their
    lengths do not matter.

    No rows are refused; one, two, or fewer than `min_cluster_size` are all noise. Vectors that are all the
    same are one cluster; duplicate rows are neighbors like any other. NaN and infinity are refused; a vector
    of zeros has no direction and is noise.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.repeat(np.eye(4, 32), 50, axis=0) + 0.1 * rng.normal(size=(200, 32))
    >>> clustering = DensityClustering().fit(X)
    >>> clustering.n_clusters_, np.bincount(clustering.labels_).tolist()
    (4, [50, 50, 50, 50])
    >>> clustering.predict([[-1.0] * 32, X[0]]).tolist() == [-1, clustering.labels_[0]]
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "min_cluster_size": [Interval(Integral, 2, None, closed="left"), None],
        "min_samples": [Interval(Integral, 1, None, closed="left")],
        "n_neighbors": [Interval(Integral, 2, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "false_alarm_rate": [Interval(Real, 0, 1, closed="neither")],
        "max_rows": [Interval(Integral, 10, None, closed="left")],
        "max_members": [Interval(Integral, 1, None, closed="left")],
        "random_state": [Interval(Integral, 0, None, closed="left")],
        "progress": ["boolean", None],
    }

    def __init__(
        self,
        *,
        min_cluster_size: int | None = None,
        min_samples: int = 5,
        n_neighbors: int = 15,
        n_components: int = 10,
        false_alarm_rate: float = 0.05,
        max_rows: int = 150_000,
        max_members: int = 8192,
        random_state: int = 0,
        progress: bool | None = False,
    ) -> None:
        self.min_cluster_size = min_cluster_size
        self.min_samples = min_samples
        self.n_neighbors = n_neighbors
        self.n_components = n_components
        self.false_alarm_rate = false_alarm_rate
        self.max_rows = max_rows
        self.max_members = max_members
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: ArrayLike, y: None = None) -> "DensityClustering":
        """Cluster (n, d) vectors.

        Raises
        ------
        InvalidParameterError
            A parameter is out of its range.
        """
        try:
            self._validate_params()
        except ValueError as error:
            raise InvalidParameterError(str(error)) from error
        vectors = unit_length(np.asarray(validate_data(self, X, dtype=[np.float32, np.float64]), np.float32))
        rng = np.random.default_rng(self.random_state)
        if len(vectors) > self.max_rows:
            rows = np.sort(rng.choice(len(vectors), self.max_rows, replace=False))
            sample = vectors[rows]
        else:
            rows, sample = np.arange(len(vectors)), vectors
        reduced = principal_coordinates(sample)
        labels, strengths = self._cluster(sample, reduced, progress=self.progress)
        assigner = self._fit_assigner(sample, labels, progress=self.progress)
        if len(assigner.limits):
            assigner = assigner.with_wider_limits(self._held_out_novelty(sample, reduced, labels))
        self.assigner_ = assigner
        self.n_clusters_ = len(assigner.limits)
        if sample is vectors:
            self.labels_, self.probabilities_ = labels, strengths
        else:
            self.labels_ = assigner.assign(vectors, progress=self.progress)
            self.labels_[rows] = labels
            self.probabilities_ = (self.labels_ >= 0).astype(np.float64)
            self.probabilities_[rows] = strengths
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the cluster of (n, d) vectors, -1 for noise."""
        check_is_fitted(self)
        return self.assigner_.assign(validate_data(self, X, dtype=[np.float32, np.float64], reset=False))

    def _fit_assigner(
        self, X: Floats, labels: NDArray[np.int64], *, progress: bool | None
    ) -> ClusterAssigner:
        return ClusterAssigner.fit(
            X,
            labels,
            max_rows=self.max_members,
            false_alarm_rate=self.false_alarm_rate,
            random_state=self.random_state,
            progress=progress,
        )

    def _held_out_novelty(self, X: Floats, reduced: Floats, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the relative novelty of clustered rows, by clusterings without them and their fold."""
        folds = np.array_split(np.random.default_rng(self.random_state).permutation(len(X)), _N_FOLDS)
        n_folds = min(_N_FOLDS, max(_LEAST_FOLDS, -(-_LEAST_HELD_OUT * _N_FOLDS // len(X))))
        novelty = []
        for held_out in track(
            folds[:n_folds], "clustering without held-out rows", unit="folds", progress=self.progress
        ):
            rest = np.setdiff1d(np.arange(len(X)), held_out)
            rest_labels = self._cluster(X[rest], reduced[rest])[0]
            assigner = self._fit_assigner(X[rest], rest_labels, progress=False)
            novelty.append(assigner.relative_novelty(X[held_out[labels[held_out] >= 0]]))
        return np.concatenate(novelty)

    def _cluster(
        self, X: Floats, reduced: Floats, *, progress: bool | None = False
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the cluster of each row and its strength; `reduced` is `principal_coordinates(X)`."""
        n = len(X)
        min_size = self.min_cluster_size or min(max(5, int(0.75 * n**0.5)), _LARGEST_MIN_CLUSTER_SIZE)
        if n >= max(min_size, 2) and np.all(X @ X[0] > 1 - _ROUNDING):
            return np.zeros(n, np.int64), np.ones(n)
        if n < max(min_size, 4):
            return np.full(n, -1), np.zeros(n)
        k = min(self.n_neighbors, n - 1)
        with bar("comparing neighbors", n, unit="rows", progress=progress) as shown:
            graph = euclidean_neighbors(reduced, k, progress=shown.update)
        coordinates = diffusion_coordinates(
            *graph, self.n_components, random_state=self.random_state, progress=progress
        )
        with bar("comparing neighbors by coordinates", n, unit="rows", progress=progress) as shown:
            neighbors = euclidean_neighbors(coordinates, k, progress=shown.update)
        clusters = hdbscan(*neighbors, min_cluster_size=min_size, min_samples=min(self.min_samples, k + 1))
        labels = self._cohesive(X, clusters.labels)
        return _numbered_by_size(labels), np.where(labels < 0, 0, clusters.strengths)

    def _cohesive(self, X: Floats, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Relabel clusters as noise whose rows are hardly more similar to each other than to others."""
        rng = np.random.default_rng(self.random_state)
        left, right = rng.integers(len(X), size=(2, _RANDOM_PAIRS))
        left, right = left[left != right], right[left != right]
        deviation = float(np.einsum("ij,ij->i", X[left], X[right]).std())
        k, total = int(labels.max(initial=-1)) + 1, X.sum(0, dtype=np.float64)
        # The last entry is that of noise, -1.
        new_label = np.full(k + 1, -1)
        for label in range(k):
            inside = labels == label
            m, own = int(inside.sum()), X[inside].sum(0, dtype=np.float64)
            within = (own @ own - m) / (m * (m - 1))
            across = own @ (total - own) / (m * max(len(X) - m, 1))
            if m == len(X) or within - across > _LEAST_COHESION * deviation:
                new_label[label] = label
        result: NDArray[np.int64] = np.unique(new_label[labels], return_inverse=True)[1]
        return result - int((new_label[labels] < 0).any())


def _numbered_by_size(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the same clusters with the largest numbered 0."""
    sizes = np.bincount(labels[labels >= 0])
    number = np.empty(len(sizes) + 1, np.int64)
    number[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    number[-1] = -1
    result: NDArray[np.int64] = number[labels]
    return result
