"""Density clustering: as many clusters as the data have; rows that belong to none are noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from nearsight.errors import InvalidParameterError
from nearsight.estimators.clustering.assigner import ClusterAssigner
from nearsight.estimators.clustering.hdbscan import hdbscan, neighbor_graph
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
# A row is noise if its neighbors are more than so many times as far away as theirs are. Of real images, fewer
# than one in 200 are.
_MOST_OUTLYING = 1.5
# The smallest sizes of a cluster that are tried, up to a quarter of the rows. Among more rows, the smallest
# sizes are left out: scattered rows have such groups by chance, and each size takes time.
_MIN_CLUSTER_SIZES = (5, 8, 15, 30, 60, 120)
_LEAST_SIZES = ((20_000, 15), (500, 8))
# For the limits, clusters are found again without one fold of ten, for at least two folds and 2,000 rows.
_N_FOLDS, _LEAST_HELD_OUT, _LEAST_FOLDS = 10, 2000, 2
# So many more neighbors are kept that hardly any row lacks some without a fold.
_SPARE_NEIGHBORS = 10

Neighbors = tuple[Floats, NDArray[np.int32]]


class DensityClustering(ClusterMixin, BaseEstimator):
    """Find as many clusters as the data have; vectors between them are noise, labeled -1.

    *Method*: HDBSCAN (Campello, Moulavi and Sander 2013; scikit-learn's) on coordinates from the neighbor
    graph, since density means little in hundreds of dimensions:

    - the 15 nearest neighbors along the 64 leading principal axes, and 100 diffusion coordinates
      (`spectral.diffusion_coordinates`);
    - the clusters of greatest excess of mass on the neighbor graph there, for several smallest sizes of a
      cluster. Even scattered vectors form groups in such a graph, so a cluster must also be cohesive: its
      rows are more similar to each other than to other rows, by half a standard deviation of random pairs;
    - of these levels of detail, the one whose clusters tell most about a neighbor's cluster (`information`);
    - a row of noise joins the cluster that holds at least half of its neighbors. But a row that is far from
      its neighbors is noise, since even the graph of scattered rows leads to some cluster
      (`local_outlier_factor`).

    UMAP and EVoC follow the same plan with coordinates by gradient descent; `benchmarks/cluster.py` compares
    them. New vectors are assigned by vote (`ClusterAssigner`) without a new fit.

    The novelty above which a row is noise is calibrated in two steps. Each row of a cluster is scored by all
    others; then a tenth of the rows at a time is held out, the others are clustered again, and the limits are
    widened by the scores of the held-out rows (cross-conformal prediction, Vovk 2015). The first step alone
    rejects too many rows, since vague clusters depend on the very rows that they hold.

    Parameters
    ----------
    min_cluster_size : int, optional
        At least 2: the size of the smallest cluster. By default it follows from the data.
    detail : int, default 0
        Levels of detail above (more clusters) or below the default one; see `levels_`. With
        `min_cluster_size` there is one level only.
    min_samples : int, default 5
        Neighbors that define density; more gives more noise.
    n_neighbors : int, default 15
        Of the graph, at least 2. Fewer find finer structure.
    n_components : int, default 100
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
    levels_ : list of int
        The number of clusters at each level of detail, the coarsest first.
    level_ : int
        The level that was chosen.
    min_cluster_size_ : int
    assigner_ : ClusterAssigner

    Notes
    -----
    Costs 164 n² operations for the neighbors (less beyond 20,000 vectors; see `neighbors.nearest_neighbors`)
    and about 10^5 n for the coordinates; those among coordinates ten times more for up to 2,000 vectors (the
    limits), three times more from 10,000 on. Memory is about 4 n (d + 700) bytes.
    100,000 x 512 numbers take some minutes on two cores. Vectors are compared by direction, whatever their
    lengths.

    No rows are refused; one, two, or fewer than five are all noise. Vectors that are all the
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
        "detail": [Interval(Integral, None, None, closed="neither")],
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
        detail: int = 0,
        min_samples: int = 5,
        n_neighbors: int = 15,
        n_components: int = 100,
        false_alarm_rate: float = 0.05,
        max_rows: int = 150_000,
        max_members: int = 8192,
        random_state: int = 0,
        progress: bool | None = False,
    ) -> None:
        self.min_cluster_size = min_cluster_size
        self.detail = detail
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
        levels, neighbors = self._levels(sample)
        self.level_ = self._chosen(levels)
        self.levels_ = [level.n_clusters for level in levels]
        chosen = levels[self.level_]
        self.min_cluster_size_, self.n_clusters_ = chosen.min_cluster_size, chosen.n_clusters
        assigner = self._fit_assigner(sample, chosen.labels, progress=self.progress)
        if neighbors is not None and self.n_clusters_:
            assigner = assigner.with_wider_limits(self._held_out_novelty(sample, neighbors, chosen))
        self.assigner_ = assigner
        if sample is vectors:
            self.labels_, self.probabilities_ = chosen.labels, chosen.strengths
        else:
            self.labels_ = assigner.assign(vectors, progress=self.progress)
            self.labels_[rows] = chosen.labels
            self.probabilities_ = (self.labels_ >= 0).astype(np.float64)
            self.probabilities_[rows] = chosen.strengths
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

    def _levels(self, X: Floats) -> tuple[list["_Level"], Neighbors | None]:
        """Return the clusters at each level of detail, the coarsest first, and the nearest neighbors of rows.

        Vectors that are all the same, or too few for a graph, have no neighbors.
        """
        n = len(X)
        least = self.min_cluster_size or _MIN_CLUSTER_SIZES[0]
        if n >= least and np.all(X @ X[0] > 1 - _ROUNDING):
            return [_Level(least, np.zeros(n, np.int64), np.ones(n), 0.0)], None
        if n < max(least, 4):
            return [_Level(least, np.full(n, -1), np.zeros(n), 0.0)], None
        k = min(self.n_neighbors, n - 1)
        reduced = principal_coordinates(X)
        with bar("comparing neighbors", n, unit="rows", progress=self.progress) as shown:
            neighbors = euclidean_neighbors(reduced, min(k + _SPARE_NEIGHBORS, n - 1), progress=shown.update)
        sizes = [self.min_cluster_size] if self.min_cluster_size else _sizes(n)
        levels = self._cluster(X, _first(neighbors, k), sizes, progress=self.progress)
        # Sizes that make no difference are one level.
        different = {level.labels.tobytes(): level for level in levels}.values()
        return sorted(different, key=lambda level: level.n_clusters), neighbors

    def _chosen(self, levels: Sequence["_Level"]) -> int:
        """Return the level that tells most about neighbors, with the least noise of equal ones, ± detail."""
        best = max(range(len(levels)), key=lambda i: (levels[i].information, levels[i].share_clustered))
        return int(np.clip(best + self.detail, 0, len(levels) - 1))

    def _held_out_novelty(self, X: Floats, neighbors: Neighbors, level: "_Level") -> NDArray[np.float64]:
        """Return the relative novelty of clustered rows, by clusterings without them and their fold."""
        folds = np.array_split(np.random.default_rng(self.random_state).permutation(len(X)), _N_FOLDS)
        n_folds = min(_N_FOLDS, max(_LEAST_FOLDS, -(-_LEAST_HELD_OUT * _N_FOLDS // len(X))))
        novelty = []
        for held_out in track(
            folds[:n_folds], "clustering without held-out rows", unit="folds", progress=self.progress
        ):
            rest = np.setdiff1d(np.arange(len(X)), held_out)
            k = min(self.n_neighbors, len(rest) - 1)
            remaining = _remaining(neighbors, rest, k)
            if remaining is None:
                remaining = euclidean_neighbors(principal_coordinates(X[rest]), k)
            [rest_level] = self._cluster(X[rest], remaining, [level.min_cluster_size])
            assigner = self._fit_assigner(X[rest], rest_level.labels, progress=False)
            novelty.append(assigner.relative_novelty(X[held_out[level.labels[held_out] >= 0]]))
        return np.concatenate(novelty)

    def _cluster(
        self, X: Floats, neighbors: Neighbors, sizes: Sequence[int], *, progress: bool | None = False
    ) -> list["_Level"]:
        """Return the clusters of rows for each smallest size of a cluster."""
        n, k = neighbors[1].shape
        coordinates = self._coordinates(neighbors, progress=progress)
        with bar("comparing neighbors by coordinates", n, unit="rows", progress=progress) as shown:
            graph = neighbor_graph(*euclidean_neighbors(coordinates, k, progress=shown.update))
        outlying = local_outlier_factor(*neighbors) > _MOST_OUTLYING
        levels = []
        for size in track(sorted(sizes, reverse=True), "finding clusters", unit="levels", progress=progress):
            clusters = hdbscan(graph, min_cluster_size=size, min_samples=min(self.min_samples, k))
            labels = self._cohesive(X, np.where(outlying, -1, clusters.labels))
            score = information(labels, neighbors[1])
            joined = np.where(outlying, -1, _joined_by_majority(labels, neighbors[1]))
            labels = _numbered_by_size(joined)
            least = clusters.strengths[clusters.strengths > 0].min(initial=1.0)
            strengths = np.where(labels < 0, 0, np.maximum(clusters.strengths, least))
            levels.append(_Level(size, labels, strengths, score))
        return levels

    def _coordinates(self, neighbors: Neighbors, *, progress: bool | None) -> Floats:
        return diffusion_coordinates(
            *neighbors, self.n_components, random_state=self.random_state, progress=progress
        )

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
            if m < 2:
                continue
            within = (own @ own - m) / (m * (m - 1))
            across = own @ (total - own) / (m * max(len(X) - m, 1))
            if m == len(X) or within - across > _LEAST_COHESION * deviation:
                new_label[label] = label
        result: NDArray[np.int64] = np.unique(new_label[labels], return_inverse=True)[1]
        return result - int((new_label[labels] < 0).any())


@dataclass(frozen=True, slots=True)
class _Level:
    """The clusters of rows for one smallest size of a cluster."""

    min_cluster_size: int
    labels: NDArray[np.int64]
    strengths: NDArray[np.float64]
    information: float

    @property
    def n_clusters(self) -> int:
        return int(self.labels.max(initial=-1)) + 1

    @property
    def share_clustered(self) -> float:
        return float((self.labels >= 0).mean())


def information(labels: NDArray[np.int64], rows: NDArray[np.integer]) -> float:
    """Return how much the clusters of rows tell about the clusters of their neighbors; higher is better.

    *Method*: the mutual information, in bits, of a row's cluster and that of a random neighbor, times the
    modularity of the clusters (Newman and Girvan 2004). The information alone prefers fine clusters, the
    modularity alone coarse ones. Noise tells nothing.

    Parameters
    ----------
    labels : ndarray of shape (n,), int
        Clusters 0..k-1; -1 is noise.
    rows : ndarray of shape (n, m), int
        Neighbors of each row.

    Examples
    --------
    >>> pairs = np.array([[1], [0], [3], [2]])
    >>> information(np.array([0, 0, 1, 1]), pairs), information(np.array([0, 1, 0, 1]), pairs)
    (0.5, -0.5)
    """
    n, m = rows.shape
    k = int(labels.max(initial=-1)) + 1
    own, others = np.repeat(labels, m), labels[rows.ravel()]
    inside = (own >= 0) & (others >= 0)
    if not inside.any():
        return 0.0
    shares = coo_matrix((np.full(inside.sum(), 1 / (n * m)), (own[inside], others[inside])), (k, k)).tocsr()
    joint = ((shares + shares.T) / 2).tocoo()
    marginal = np.asarray(joint.sum(1)).ravel()
    chance = marginal[joint.row] * marginal[joint.col]
    bits = float((joint.data * np.log2(joint.data * joint.data.sum() / chance)).sum())
    sizes = np.bincount(labels[labels >= 0], minlength=k) / n
    modularity = float(joint.data[joint.row == joint.col].sum() - (sizes**2).sum())
    return bits * modularity


def local_outlier_factor(distances: Floats, rows: NDArray[np.int32]) -> Floats:
    """Return how much farther each row is from its neighbors than these are from theirs; 1 is usual.

    *Method*: the simplified local outlier factor (Schubert, Zimek and Kriegel 2014), with mean distances.

    Parameters
    ----------
    distances, rows : ndarray of shape (n, k)
        Of the nearest others of each row.
    """
    mean = distances.mean(1)
    factor: Floats = mean / np.maximum(mean[rows].mean(1), _ROUNDING)
    return factor


def _sizes(n: int) -> list[int]:
    """Return the smallest sizes of a cluster to try among n rows."""
    least = next((size for most_rows, size in _LEAST_SIZES if n > most_rows), _MIN_CLUSTER_SIZES[0])
    return [size for size in _MIN_CLUSTER_SIZES if size >= least and 4 * size <= n] or [least]


def _first(neighbors: Neighbors, k: int) -> Neighbors:
    return neighbors[0][:, :k], neighbors[1][:, :k]


def _remaining(neighbors: Neighbors, rest: NDArray[np.intp], k: int) -> Neighbors | None:
    """Return the k nearest neighbors among the remaining rows, or None if some row has fewer in the list."""
    new_row = np.full(len(neighbors[1]), -1, np.int32)
    new_row[rest] = np.arange(len(rest), dtype=np.int32)
    distances, rows = neighbors[0][rest], new_row[neighbors[1][rest]]
    # A stable sort by "is missing" keeps the order of distances.
    order = np.argsort(rows < 0, axis=1, kind="stable")[:, :k]
    rows = np.take_along_axis(rows, order, 1)
    if rows.shape[1] < k or (rows < 0).any():
        return None
    return np.take_along_axis(distances, order, 1), rows


def _joined_by_majority(labels: NDArray[np.int64], rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return labels in which noise belongs to the cluster of at least half of its neighbors."""
    noise = np.flatnonzero(labels < 0)
    k = int(labels.max(initial=-1)) + 1
    if k == 0 or len(noise) == 0:
        return labels
    voters = labels[rows[noise]]
    row, column = np.nonzero(voters >= 0)
    votes = coo_matrix((np.ones(len(row)), (row, voters[row, column])), (len(noise), k)).tocsr()
    best = np.asarray(votes.argmax(1)).ravel()
    count = np.asarray(votes.max(1).todense()).ravel()
    joined: NDArray[np.int64] = labels.copy()
    joined[noise] = np.where(2 * count >= rows.shape[1], best, -1)
    return joined


def _numbered_by_size(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the same clusters with the largest numbered 0."""
    sizes = np.bincount(labels[labels >= 0])
    number = np.empty(len(sizes) + 1, np.int64)
    number[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    number[-1] = -1
    result: NDArray[np.int64] = number[labels]
    return result
