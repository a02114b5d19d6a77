"""k-means on coordinates of the neighbor graph: a stated number of clusters."""

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from nearsight.errors import InvalidParameterError
from nearsight.estimators.clustering.assigner import ClusterAssigner
from nearsight.estimators.clustering.spectral import diffusion_coordinates, principal_coordinates
from nearsight.estimators.neighbors import euclidean_neighbors, unit_length
from nearsight.estimators.umap_coordinates import (
    is_umap_installed,
    require_umap,
    umap_coordinates,
    unique_rows,
)
from nearsight.progress import bar, track

Floats = NDArray[np.float32]

# Starts run on at most so many random rows; the best one goes on with all rows.
_MOST_START_ROWS = 20_000
_N_STEPS = 4
# Fewer rows have no neighbor graph worth the name, nor have graphs of nothing but neighbors.
_LEAST_ROWS_PER_NEIGHBOR = 2
_N_UMAP_COMPONENTS, _N_DIFFUSION_COMPONENTS = 10, 100
# Of fewer rows, importing UMAP takes longer than all the rest; of more, UMAP takes minutes.
_LEAST_UMAP_ROWS, _MOST_UMAP_ROWS = 100, 20_000

COORDINATES = ("auto", "umap", "diffusion")


class GraphKMeans(ClusterMixin, BaseEstimator):
    """Divide vectors into a stated number of clusters.

    *Method*: scikit-learn's k-means (k-means++ starts, Arthur and Vassilvitskii 2007) on coordinates of the
    graph of the 15 nearest neighbors, which separate long and thin clusters that k-means on the vectors cuts:
    10 coordinates by UMAP (`umap_coordinates`), or 100 diffusion coordinates
    (`spectral.diffusion_coordinates`, four steps). Up to 32 vectors have no such graph; then k-means runs on
    the vectors, scaled to unit length. Of more than 20,000 rows, the starts run on 20,000 random ones, and
    the best goes on with all rows. New vectors are assigned by vote (`ClusterAssigner`), whatever the
    coordinates were.

    Parameters
    ----------
    n_clusters : int, default 8
        At least 1 and at most the number of vectors.
    n_init : int, default 5
        Starts.
    max_iter : int, default 100
        Iterations of each start.
    coordinates : {"auto", "umap", "diffusion"}, default "auto"
        "auto" is UMAP where umap-learn is installed and there are 100 to 20,000 vectors, else diffusion. UMAP
        is as good or better on most data (`benchmarks/cluster.py`), and takes about ten times as long.
    n_neighbors : int, default 15
        Of the graph, at least 2.
    n_components : int, optional
        Coordinates; by default 10 by UMAP and 100 by diffusion.
    false_alarm_rate : float, optional
        In (0, 1). If given, `predict` returns -1 for vectors that are farther from their cluster than all but
        this share of the cluster's own vectors. By default every vector belongs to a cluster.
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
        The largest cluster is 0. Duplicates can leave the last clusters empty.
    assigner_ : ClusterAssigner
        Its limits are infinite without a rate, or if there are too few vectors to calibrate.
    coordinates_ : {"umap", "diffusion", "vectors"}
        What k-means ran on.
    n_iter_ : int
        Iterations of the last run.

    Notes
    -----
    Costs 64 n² operations for the neighbors, about 10^5 n for diffusion coordinates and 10^6 n for UMAP's,
    and at most 100 n k per iteration. UMAP's first import in an environment compiles for 15 s. No rows, or
    fewer than `n_clusters`, are refused; one and two are clusters of their own. Duplicate rows are in one
    cluster; rows that are all the same are in cluster 0. NaN and infinity are refused; a vector of zeros has
    no direction.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.repeat(np.eye(3), 10, axis=0) + 0.1 * np.random.default_rng(0).normal(size=(30, 3))
    >>> sorted(np.bincount(GraphKMeans(n_clusters=3).fit_predict(X)).tolist())
    [10, 10, 10]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "coordinates": [StrOptions(set(COORDINATES))],
        "n_neighbors": [Interval(Integral, 2, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "false_alarm_rate": [Interval(Real, 0, 1, closed="neither"), None],
        "max_rows": [Interval(Integral, 10, None, closed="left")],
        "max_members": [Interval(Integral, 1, None, closed="left")],
        "random_state": [Interval(Integral, 0, None, closed="left")],
        "progress": ["boolean", None],
    }

    def __init__(
        self,
        *,
        n_clusters: int = 8,
        n_init: int = 5,
        max_iter: int = 100,
        coordinates: str = "auto",
        n_neighbors: int = 15,
        n_components: int | None = None,
        false_alarm_rate: float | None = None,
        max_rows: int = 150_000,
        max_members: int = 8192,
        random_state: int = 0,
        progress: bool | None = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.max_iter = max_iter
        self.coordinates = coordinates
        self.n_neighbors = n_neighbors
        self.n_components = n_components
        self.false_alarm_rate = false_alarm_rate
        self.max_rows = max_rows
        self.max_members = max_members
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: ArrayLike, y: None = None) -> "GraphKMeans":
        """Cluster (n, d) vectors.

        Raises
        ------
        InvalidParameterError
            There are fewer vectors than clusters, or a parameter is out of its range.
        MissingExtraError
            `coordinates` is "umap" and umap-learn is not installed: ``pip install 'nearsight[map]'``.
        """
        try:
            self._validate_params()
        except ValueError as error:
            raise InvalidParameterError(str(error)) from error
        vectors = unit_length(np.asarray(validate_data(self, X, dtype=[np.float32, np.float64]), np.float32))
        if len(vectors) < self.n_clusters:
            raise InvalidParameterError(
                f"n_samples={len(vectors)} is less than n_clusters={self.n_clusters};"
                f" ask for at most {len(vectors)}"
            )
        rng = np.random.default_rng(self.random_state)
        rows, sample = np.arange(len(vectors)), vectors
        if len(vectors) > max(self.max_rows, self.n_clusters):
            rows = np.sort(rng.choice(len(vectors), max(self.max_rows, self.n_clusters), replace=False))
            sample = vectors[rows]
        labels = self._numbered_by_size(self._kmeans(self._coordinates(sample), rng))
        assigner = ClusterAssigner.fit(
            sample,
            labels,
            max_rows=self.max_members,
            false_alarm_rate=self.false_alarm_rate,
            random_state=self.random_state,
            progress=self.progress,
        )
        self.labels_ = labels
        if sample is not vectors:
            self.labels_ = assigner.without_limits().assign(vectors, progress=self.progress)
            self.labels_[rows] = labels
        self.assigner_ = assigner
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the cluster of (n, d) vectors; with a rate, -1 for vectors beyond its limit."""
        check_is_fitted(self)
        return self.assigner_.assign(validate_data(self, X, dtype=[np.float32, np.float64], reset=False))

    def _coordinates(self, X: Floats) -> Floats:
        """Return the coordinates that k-means runs on, and set `coordinates_`."""
        if self.coordinates == "umap":
            require_umap("or use diffusion coordinates")
        is_umap = self.coordinates == "umap" or (
            self.coordinates == "auto"
            and _LEAST_UMAP_ROWS <= len(X) <= _MOST_UMAP_ROWS
            and is_umap_installed()
        )
        if not is_umap:
            return self._diffusion_coordinates(X)
        # UMAP draws anew for each row, and equal rows shall not be torn apart.
        first, of_row = unique_rows(X)
        if not self._has_graph(len(first)):
            return self._diffusion_coordinates(X)
        self.coordinates_ = "umap"
        different = X[first]
        coordinates = umap_coordinates(
            different,
            *self._neighbors(different),
            n_components=self.n_components or _N_UMAP_COMPONENTS,
            min_dist=0.0,
            random_state=self.random_state,
            progress=self.progress,
        )
        return coordinates.astype(np.float32)[of_row]

    def _diffusion_coordinates(self, X: Floats) -> Floats:
        if not self._has_graph(len(X)):
            self.coordinates_ = "vectors"
            return X
        self.coordinates_ = "diffusion"
        return diffusion_coordinates(
            *self._neighbors(X),
            self.n_components or _N_DIFFUSION_COMPONENTS,
            n_steps=_N_STEPS,
            random_state=self.random_state,
            progress=self.progress,
        )

    def _has_graph(self, n: int) -> bool:
        return n > _LEAST_ROWS_PER_NEIGHBOR * (self.n_neighbors + 1)

    def _neighbors(self, X: Floats) -> tuple[Floats, NDArray[np.int32]]:
        with bar("comparing neighbors", len(X), unit="rows", progress=self.progress) as shown:
            return euclidean_neighbors(principal_coordinates(X), self.n_neighbors, progress=shown.update)

    def _kmeans(self, coordinates: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the labels of the best of several starts, run one by one to show progress."""
        start_rows = coordinates
        if len(coordinates) > _MOST_START_ROWS:
            start_rows = coordinates[rng.choice(len(coordinates), _MOST_START_ROWS, replace=False)]
        seeds = rng.integers(2**31, size=self.n_init)
        with warnings.catch_warnings():
            # Of duplicates, centers coincide; then there are fewer clusters, and the caller says so.
            warnings.simplefilter("ignore", ConvergenceWarning)
            best = min(
                (
                    KMeans(self.n_clusters, n_init=1, max_iter=self.max_iter, random_state=int(seed)).fit(
                        start_rows
                    )
                    for seed in track(seeds, "running k-means", unit="starts", progress=self.progress)
                ),
                key=lambda model: float(model.inertia_),
            )
            if start_rows is not coordinates:
                best = KMeans(
                    self.n_clusters, init=best.cluster_centers_, n_init=1, max_iter=self.max_iter
                ).fit(coordinates)
        self.n_iter_ = int(best.n_iter_)
        labels: NDArray[np.int64] = best.labels_.astype(np.int64)
        return labels

    def _numbered_by_size(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        order = np.argsort(-np.bincount(labels, minlength=self.n_clusters), kind="stable")
        numbered: NDArray[np.int64] = np.argsort(order)[labels]
        return numbered
