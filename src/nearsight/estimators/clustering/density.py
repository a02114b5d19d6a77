"""Clusters that are there, however many; what belongs to none is noise."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data
from tqdm import tqdm

from nearsight.errors import InvalidParameterError
from nearsight.estimators.clustering.assigner import Members
from nearsight.estimators.clustering.hdbscan_tree import cluster
from nearsight.estimators.clustering.spectral import Floats, diffusion, neighbors, shortened, unit

# Cosines of vectors that differ by rounding only.
_SAME = 1e-5
# By so many standard deviations of a random pair's cosine, members must be more alike than others. On real
# images clusters have 0.6 to 3; what scattered vectors fall into has 0 to 0.3.
_LEAST_COHESION = 0.5
_PAIRS = 20_000
# Whatever the number of images, a hundred alike are a group.
_LARGEST_LEAST = 100
# Clusters are made anew without one part of so many, in turns until so many rows were left out, and twice.
_PARTS, _LEFT_OUT, _LEAST_TURNS = 10, 2000, 2


class DensityClusters(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Find the clusters that are there; vectors between them are noise, labeled -1.

    *Method*: HDBSCAN (Campello, Moulavi and Sander 2013) on coordinates from the graph of nearest
    neighbors, since density means little among hundreds of dimensions: the 15 nearest by cosine (in the 64
    leading principal directions), diffusion coordinates (see `graph.diffusion`), then the clusters of
    greatest excess of mass on the graph of neighbors there. Such a graph has groups even among scattered
    vectors, so a cluster must also be more alike within than to others, by half a standard deviation of
    random pairs. UMAP and EVoC follow the same plan with coordinates found by descent;
    `benchmarks/cluster.py` sets them side by side. New vectors are assigned by vote (see `Members`), without
    fitting anew.

    What is too strange for a cluster is learned in two steps: each member is judged by all others, and then a
    tenth of the vectors at a time is left out, the others clustered anew, and the limits widened by what the
    members among the left out ones need there (cross-conformal prediction, Vovk 2015). The first step alone
    turns too many away, since where clusters are vague they depend on the very vectors that they hold.

    Parameters
    ----------
    min_cluster_size : int, optional
        At least 2: what is smaller is no cluster. By default three quarters
        of the square root of n, within 5..100.
    min_samples : int, default 5
        Neighbors, the vector itself among them, that make a place dense; more gives more noise.
    n_neighbors : int, default 15
        Of the graph. Fewer find finer structure.
    n_components : int, default 10
        Coordinates.
    false_alarm_rate : float, default 0.05
        In (0, 1): the share that `predict` calls noise of later vectors that belong to a cluster, which is
        to say that clustering them with the others, a tenth more at most, puts them into one. It holds on
        average over samples; of one clustering it may be more or less, where clusters are vague. Among so
        many more vectors that they make clusters of their own, more are turned away.
    max_rows : int, default 150000
        Of more vectors, so many random ones are clustered, and the others assigned: n² comparisons have an
        end.
    max_members : int, default 8192
        Vectors kept for `predict`.
    random_state : int, default 0
    progress : bool, default False
        Whether `fit` shows bars on stderr.

    Attributes
    ----------
    labels_ : ndarray of shape (n,), int
        0, 1, ... with the largest cluster first; -1 is noise.
    probabilities_ : ndarray of shape (n,), float
        How firmly each belongs: 1 in the densest place of its cluster, 0 for noise.
    n_clusters_ : int
    members_ : Members

    Notes
    -----
    Cost: n² · 64 operations for the neighbors, n · d for all else, ten times over for up to 2,000 vectors
    (the limits) and three times from 10,000 on; memory 4 · n · (d + 64 + 2 · 15) bytes beside the vectors.
    100,000 x 512 take some minutes on two cores. Vectors are compared by direction, so
    their lengths do not matter.

    No rows are refused; one, two, or fewer than `min_cluster_size` are all noise. Vectors that are all the
    same are one cluster; duplicate rows are neighbors like any other. NaN and infinity are refused; a vector
    of zeros has no direction and is noise.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.repeat(np.eye(4, 32), 50, axis=0) + 0.1 * rng.normal(size=(200, 32))
    >>> found = DensityClusters().fit(X)
    >>> found.n_clusters_, np.bincount(found.labels_).tolist()
    (4, [50, 50, 50, 50])
    >>> found.predict([[-1.0] * 32, X[0]]).tolist() == [-1, found.labels_[0]]
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
        "progress": ["boolean"],
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
        progress: bool = False,
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

    def fit(self, X: ArrayLike, y: None = None) -> "DensityClusters":
        """Cluster (n, d) vectors.

        Raises
        ------
        InvalidParameterError
            A parameter is outside its range.
        """
        self._check()
        vectors = unit(validate_data(self, X, dtype=[np.float32, np.float64]))
        rng = np.random.default_rng(self.random_state)
        if len(vectors) > self.max_rows:
            rows = np.sort(rng.choice(len(vectors), self.max_rows, replace=False))
        else:
            rows = np.arange(len(vectors))
        part = vectors if len(rows) == len(vectors) else vectors[rows]
        few = shortened(part)
        labels, strengths = self._labels(part, few, progress=self.progress)
        members = self._members(part, labels, progress=self.progress)
        self.members_ = members.widened(self._excess(part, few, labels)) if len(members.limits) else members
        self.n_clusters_ = len(self.members_.limits)
        if len(rows) == len(vectors):
            self.labels_, self.probabilities_ = labels, strengths
        else:
            self.labels_ = self.members_.assign(vectors, progress=self.progress)
            self.labels_[rows] = labels
            self.probabilities_ = (self.labels_ >= 0).astype(np.float64)
            self.probabilities_[rows] = strengths
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the cluster of (n, d) vectors, -1 for what belongs to none."""
        check_is_fitted(self)
        return self.members_.assign(validate_data(self, X, dtype=[np.float32, np.float64], reset=False))

    def _members(self, X: Floats, labels: NDArray[np.int64], *, progress: bool) -> Members:
        return Members.of(
            X,
            labels,
            most=self.max_members,
            false_alarm_rate=self.false_alarm_rate,
            random_state=self.random_state,
            progress=progress,
        )

    def _excess(self, X: Floats, few: Floats, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how strange members are for clusters that were made without them and a tenth of all rows."""
        parts = np.array_split(np.random.default_rng(self.random_state).permutation(len(X)), _PARTS)
        turns = min(_PARTS, max(_LEAST_TURNS, -(-_LEFT_OUT * _PARTS // len(X))))
        found = []
        for out in tqdm(parts[:turns], "unseen", unit="part", disable=not self.progress, leave=False):
            kept = np.setdiff1d(np.arange(len(X)), out)
            without = self._members(X[kept], self._labels(X[kept], few[kept])[0], progress=False)
            found.append(without.excess(X[out[labels[out] >= 0]]))
        return np.concatenate(found)

    def _labels(
        self, X: Floats, few: Floats, *, progress: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the cluster of each row and how firmly it belongs; `few` is `shortened(X)`."""
        n = len(X)
        least = self.min_cluster_size or min(max(5, int(0.75 * n**0.5)), _LARGEST_LEAST)
        if n >= max(least, 2) and np.all(X @ X[0] > 1 - _SAME):
            return np.zeros(n, np.int64), np.ones(n)
        if n < max(least, 4):
            return np.full(n, -1), np.zeros(n)
        k = min(self.n_neighbors, n - 1)
        found = neighbors(few, k, progress=progress)
        coordinates = diffusion(*found, self.n_components, random_state=self.random_state, progress=progress)
        near = neighbors(coordinates, k, progress=progress)
        flat = cluster(*near, min_cluster_size=least, min_samples=min(self.min_samples, k + 1))
        labels = self._cohesive(X, flat.labels)
        return _by_size(labels), np.where(labels < 0, 0, flat.strengths)

    def _cohesive(self, X: Floats, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Call noise what hangs together for want of better neighbors only: scattered vectors do, too."""
        rng = np.random.default_rng(self.random_state)
        left, right = rng.integers(len(X), size=(2, _PAIRS))
        left, right = left[left != right], right[left != right]
        deviation = float(np.einsum("ij,ij->i", X[left], X[right]).std())
        k, total = int(labels.max(initial=-1)) + 1, X.sum(0, dtype=np.float64)
        kept = np.full(k + 1, -1)
        for label in range(k):
            inside = labels == label
            m, own = int(inside.sum()), X[inside].sum(0, dtype=np.float64)
            alike = (own @ own - m) / (m * (m - 1))
            elsewhere = own @ (total - own) / (m * max(len(X) - m, 1))
            if m == len(X) or alike - elsewhere > _LEAST_COHESION * deviation:
                kept[label] = label
        # The last place is where -1 points.
        result: NDArray[np.int64] = np.unique(kept[labels], return_inverse=True)[1]
        return result - int((kept[labels] < 0).any())

    def _check(self) -> None:
        try:
            self._validate_params()
        except ValueError as error:
            raise InvalidParameterError(str(error)) from error


def _by_size(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the same clusters, the largest called 0."""
    sizes = np.bincount(labels[labels >= 0])
    order = np.empty(len(sizes) + 1, np.int64)
    order[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    order[-1] = -1
    result: NDArray[np.int64] = order[labels]
    return result
