"""Groups a collection's images, names the groups, and says where later images belong."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nearsight.analyses.cluster_names import labels_of, name_groups
from nearsight.artifacts import read_artifact, write_artifact
from nearsight.collection import Collection
from nearsight.collection.arrays import batch_vectors, read_vectors
from nearsight.errors import InvalidParameterError
from nearsight.estimators.clustering import (
    ClusterAssigner,
    DensityClustering,
    SphericalKMeans,
    merge_tree,
    representatives,
)
from nearsight.models import Fingerprint

Algorithm = Literal["density", "kmeans"]

#: Where a collection keeps its clusters unless told otherwise.
FILENAME = "clusters.npz"
_KIND, _FORMAT = "clustering", 1
_N_REPRESENTATIVES = 8


@dataclass(frozen=True, slots=True)
class Cluster:
    """Images that belong together.

    Attributes
    ----------
    id : int
        0 is the largest when the clusters were found.
    ids : list of str
        The images.
    representatives : list of str
        Images that stand for all, the most typical first.
    words : list of str
        What sets it apart, the most telling first; empty where texts cannot be read.
    label : str or None
        Of those words, a name.
    """

    id: int
    ids: list[str]
    representatives: list[str]
    words: list[str] = field(default_factory=list)
    label: str | None = None

    @property
    def representative(self) -> str | None:
        """The most typical image."""
        return self.representatives[0] if self.representatives else None


@dataclass(frozen=True, slots=True)
class Clustering:
    """What `Collection.cluster` found.

    Attributes
    ----------
    clusters : list of Cluster
    noise : list of str
        Images that belong to none.
    algorithm : {"density", "kmeans"}
    tree : list of (int, int, float, int)
        How clusters join into ever fewer: two nodes, the mean cosine between their images, and how many
        there are in both. Clusters are nodes 0..k-1, row i makes node k + i.
    members : ClusterAssigner
        Says where other images belong.
    fingerprint : Fingerprint
        What made the vectors.
    """

    clusters: list[Cluster]
    noise: list[str]
    algorithm: Algorithm
    tree: list[tuple[int, int, float, int]]
    members: ClusterAssigner
    fingerprint: Fingerprint

    def joined(self, n: int) -> "Clustering":
        """Return at most `n` clusters, the most alike being one: zoom out. To zoom in, see `where`.

        Raises
        ------
        InvalidParameterError
            `n` is less than 1.
        """
        if n < 1:
            raise InvalidParameterError(f"n is {n}; it must be at least 1")
        k = len(self.clusters)
        groups: dict[int, list[int]] = {i: [i] for i in range(k)}
        for new, (a, b, _, _) in enumerate(self.tree[: max(k - n, 0)], k):
            groups[new] = groups.pop(a) + groups.pop(b)
        parts = sorted(
            groups.values(), key=lambda part: (-sum(len(self.clusters[i].ids) for i in part), min(part))
        )
        place = np.full(k + 1, -1)
        for number, part in enumerate(parts):
            place[part] = number
        limits = np.array([self.members.limits[part].max() for part in parts])
        members = replace(self.members, labels=place[self.members.labels], limits=limits)
        return replace(
            self, clusters=[self._join(i, part) for i, part in enumerate(parts)], tree=[], members=members
        )

    def _join(self, id: int, part: Sequence[int]) -> Cluster:
        inside = sorted((self.clusters[i] for i in part), key=lambda cluster: -len(cluster.ids))
        # The typical image of each, in turns: all that was joined is shown.
        most = max(len(cluster.representatives) for cluster in inside)
        shown = [c.representatives[i] for i in range(most) for c in inside if i < len(c.representatives)]
        words = list(dict.fromkeys(c.words[0] for c in inside if c.words))
        label = ", ".join(words[:3]) or None
        return Cluster(
            id,
            [i for c in inside for i in c.ids],
            shown[: max(_N_REPRESENTATIVES, len(inside))],
            words,
            label,
        )

    def save(self, file: str | Path) -> None:
        """Write to one ``.npz`` what `load` needs to assign other images; JSON and arrays, no pickle.

        Raises
        ------
        StorageError
            The disk refuses.
        """
        facts = {
            "algorithm": self.algorithm,
            "fingerprint": self.fingerprint.to_dict(),
            "tree": self.tree,
            "clusters": [
                {"id": c.id, "representatives": c.representatives, "words": c.words, "label": c.label}
                for c in self.clusters
            ],
        }
        write_artifact(Path(file), _KIND, _FORMAT, facts, self.members.to_arrays(), compressed=True)

    @classmethod
    def load(cls, file: str | Path) -> "Clustering":
        """Read what `save` wrote: clusters without images, which `Collection.assign` fills.

        Raises
        ------
        InvalidParameterError
            There is no such file, or it is another.
        NewerFormatError
            A newer nearsight wrote it.
        """
        remedy = "find clusters first: nearsight cluster"
        with read_artifact(Path(file), _KIND, _FORMAT, error=InvalidParameterError, remedy=remedy) as (
            facts,
            arrays,
        ):
            clusters = [
                Cluster(c["id"], [], c["representatives"], c["words"], c["label"]) for c in facts["clusters"]
            ]
            tree = [(int(a), int(b), float(s), int(n)) for a, b, s, n in facts["tree"]]
            fingerprint = Fingerprint.from_dict(facts["fingerprint"])
            return cls(
                clusters, [], facts["algorithm"], tree, ClusterAssigner.from_arrays(arrays), fingerprint
            )


def cluster(
    self: Collection,
    k: int | None = None,
    *,
    algorithm: Algorithm | None = None,
    where: str | None = None,
    words: Sequence[str] | None = None,
    min_cluster_size: int | None = None,
    n_representatives: int = _N_REPRESENTATIVES,
    false_alarm_rate: float = 0.05,
    random_state: int = 0,
    progress: bool | None = None,
) -> Clustering:
    """Find groups of images that look alike.

    Parameters
    ----------
    k : int, optional
        How many groups. By default, those that are there, and images between them are noise.
    algorithm : {"density", "kmeans"}, optional
        By default "kmeans" where `k` is given, else "density". With "density" and `k`, the clusters that
        are most alike are joined until `k` are left.
    where : str, optional
        Only the images that match; such as one cluster, to see what is in it.
    words : sequence of str, optional
        To name groups with; none if empty. By default the names of ImageNet's classes, where texts can be
        read.
    min_cluster_size : int, optional
        Of "density": see `DensityClustering`.
    n_representatives : int, default 8
        Images that stand for each group.
    false_alarm_rate : float, default 0.05
        In (0, 1): the share of later images of a group that `assign` may turn away; on what that holds, see
        `DensityClustering`.
    random_state : int, default 0
    progress : bool, optional
        Show progress bars on stderr; by default only when that is a terminal.

    Raises
    ------
    InvalidParameterError
        `k` is more than there are images, "kmeans" without `k`, or no such algorithm.
    FilterError
        `where` is not understood.

    Notes
    -----
    Vectors are held in memory, 4 bytes a number. For the time see `DensityClustering` and `SphericalKMeans`.

    No images have no clusters; with "density", fewer than `min_cluster_size` are noise. Images that are
    all the same are one cluster, whatever `k` is.
    """
    algorithm = algorithm or ("density" if k is None else "kmeans")
    if algorithm not in ("density", "kmeans"):
        raise InvalidParameterError(f"there is no algorithm {algorithm!r}; there are density and kmeans")
    if algorithm == "kmeans" and k is None:
        raise InvalidParameterError("kmeans needs to know how many groups; give k, or use density")
    read = read_vectors(self, where)
    shows = sys.stderr.isatty() if progress is None else progress
    labels, members = _fit(read.X, algorithm, k, min_cluster_size, false_alarm_rate, random_state, shows)
    n = int(labels.max(initial=-1)) + 1
    words_of = name_groups(self, read.X, labels, words, random_state=random_state, progress=shows)
    clusters, means, sizes = [], [], []
    for number, (own, label) in enumerate(zip(words_of, labels_of(words_of), strict=True)):
        inside = np.flatnonzero(labels == number)
        vectors = read.X[inside]
        means.append(vectors.mean(0) if len(inside) else np.zeros(self.spec.dim))
        sizes.append(max(len(inside), 1))
        shown = inside[representatives(vectors, n_representatives, random_state=random_state)]
        clusters.append(
            Cluster(number, [read.ids[i] for i in inside], [read.ids[i] for i in shown], own, label)
        )
    tree = merge_tree(np.array(means), np.array(sizes)) if n else np.empty((0, 4))
    found = Clustering(
        clusters,
        [read.ids[i] for i in np.flatnonzero(labels < 0)],
        algorithm,
        [(int(a), int(b), float(1 - d), int(m)) for a, b, d, m in tree],
        members,
        self.fingerprint,
    )
    return found.joined(k) if algorithm == "density" and k is not None else found


def _fit(
    X: NDArray[np.float32],
    algorithm: Algorithm,
    k: int | None,
    min_cluster_size: int | None,
    rate: float,
    random_state: int,
    progress: bool,
) -> tuple[NDArray[np.int64], ClusterAssigner]:
    """Return labels and members; of no images at all, there is nothing to group."""
    if len(X) == 0 and (k is None or algorithm == "density"):
        return np.empty(0, np.int64), ClusterAssigner(X, np.empty(0, np.int64), np.empty(0), rate)
    if algorithm == "density":
        found = DensityClustering(
            min_cluster_size=min_cluster_size,
            false_alarm_rate=rate,
            random_state=random_state,
            progress=progress,
        ).fit(X)
        return found.labels_, found.assigner_
    if k is not None and k > len(X):
        raise InvalidParameterError(
            f"k is {k}, and there are {len(X)} images; ask for at most so many, or index more"
        )
    means = SphericalKMeans(
        n_clusters=k or 1, false_alarm_rate=rate, random_state=random_state, progress=progress
    ).fit(X)
    # A center is the one member that has a say.
    return means.labels_, ClusterAssigner(means.cluster_centers_, np.arange(k or 1), means.limits_, rate)


def predict_clusters(
    self: Collection, found: Clustering, *, where: str | None = None, progress: bool | None = None
) -> Clustering:
    """Say to which of the clusters found earlier each image belongs; they stay as they are.

    Parameters
    ----------
    found : Clustering
        Of this collection or another of the same fingerprint; from `cluster` or `Clustering.load`.
    where : str, optional
        Only the images that match, such as those added since.
    progress : bool, optional
        Show a progress bar on stderr; by default only when that is a terminal.

    Raises
    ------
    FingerprintMismatchError
        The clusters are of vectors that cannot be compared with these.

    Notes
    -----
    A few thousand images are in memory at a time. For the time see `ClusterAssigner.assign`. Without images,
    all clusters are empty.
    """
    remedy = f"Find those of {self.directory} with nearsight cluster"
    found.fingerprint.require_same(self.fingerprint, "the clustering", remedy)
    held: list[list[str]] = [[] for _ in found.clusters]
    noise: list[str] = []
    shown = sys.stderr.isatty() if progress is None else progress
    total = self.count(where) if shown else None
    with tqdm(desc="assigning", total=total, unit=" images", disable=not shown, leave=False) as bar:
        for batch in self.iter_batches(["id", "vector"], where):
            labels = found.members.assign(batch_vectors(batch))
            for id, label in zip(batch.column("id").to_pylist(), labels.tolist(), strict=True):
                (noise if label < 0 else held[label]).append(id)
            bar.update(len(batch))
    clusters = [replace(c, ids=ids) for c, ids in zip(found.clusters, held, strict=True)]
    return replace(found, clusters=clusters, noise=noise)
