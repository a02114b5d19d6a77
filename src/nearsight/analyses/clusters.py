"""Clusters of a collection's images, their names, and the assignment of later images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from nearsight.analyses import cluster_members
from nearsight.analyses.cluster_members import Cluster, ClusterEdit, labels_by_id
from nearsight.analyses.cluster_names import ClusterName, unique_names
from nearsight.analyses.groups import GroupDescription, describe_groups, read_groups
from nearsight.artifacts import write_artifact
from nearsight.collection import Collection
from nearsight.collection.arrays import batch_vectors, read_vectors
from nearsight.collection.notebook import ShownImage, Thumbnails, rows_html
from nearsight.errors import InvalidParameterError
from nearsight.estimators.neighbors import unit_length
from nearsight.models import Fingerprint
from nearsight.parameters import require_whole
from nearsight.progress import bar, steps
from nearsight.text_format import ShortRepr, count

if TYPE_CHECKING:
    from nearsight.estimators.clustering import ClusterAssigner

Algorithm = Literal["density", "kmeans"]
Coordinates = Literal["auto", "umap", "diffusion"]

#: File of the collection's own clusters, in its directory.
FILENAME = "clusters.npz"
_KIND, _FORMAT = "clustering", 1
_N_REPRESENTATIVES = 8
_UNLISTED = -2
_LEAST_SAMPLED = 1000
# Bars of a full run, embedding the words of the names included.
_N_STEPS = {"density": 7, "kmeans": 5}


@dataclass(frozen=True, slots=True, repr=False)
class Clustering(ShortRepr):
    """The result of `Collection.cluster` or `Collection.predict_clusters`.

    Attributes
    ----------
    clusters : list of Cluster
    noise : list of str
        Images in no cluster.
    algorithm : {"density", "kmeans"}
    tree : list of (int, int, float, int)
        How clusters merge: two nodes, the mean cosine between their images, and the number of images in both.
        Clusters are nodes 0..k-1; row i makes node k + i.
    assigner : ClusterAssigner
        Assigns other images.
    fingerprint : Fingerprint
        Of the vectors.
    levels : list of int
        The number of clusters at each level of detail of "density", the coarsest first. Not saved.
    level : int
        Which of these levels this is.
    coordinates : {"umap", "diffusion", "vectors"} or None
        What the images were clustered by. None: the file of an earlier version does not say.
    edits : list of ClusterEdit
        What somebody changed since, the latest last: `analyses.cluster_edits`.
    keys : list of str
        The metadata under which the clusters are saved, too, if they are the collection's own.
    thumbnails : Thumbnails
        Of the collection, for notebooks.
    """

    clusters: list[Cluster]
    noise: list[str]
    algorithm: Algorithm
    tree: list[tuple[int, int, float, int]]
    assigner: "ClusterAssigner"
    fingerprint: Fingerprint
    levels: list[int] = field(default_factory=list)
    level: int = 0
    coordinates: str | None = None
    edits: list[ClusterEdit] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    thumbnails: Thumbnails = field(default_factory=Thumbnails, repr=False, compare=False)

    def _repr_html_(self) -> str:
        rows = [
            (f"{c.name or c.id}: {count(len(c.ids), 'image')}", [ShownImage(id) for id in c.representatives])
            for c in self.clusters
        ]
        return rows_html(rows, self.thumbnails)

    def merged(self, n: int) -> "Clustering":
        """Merge the most similar clusters until at most `n` are left.

        Raises
        ------
        InvalidParameterError
            `n` is less than 1.
        """
        require_whole("n", n)
        k = len(self.clusters)
        parts: dict[int, list[int]] = {i: [i] for i in range(k)}
        for node, (a, b, _, _) in enumerate(self.tree[: max(k - n, 0)], k):
            parts[node] = parts.pop(a) + parts.pop(b)
        ordered = sorted(
            parts.values(), key=lambda part: (-sum(len(self.clusters[i].ids) for i in part), min(part))
        )
        # The last entry is that of noise.
        new_labels = np.full(k + 1, -1)
        for label, part in enumerate(ordered):
            new_labels[part] = label
        limits = np.array([self.assigner.limits[part].max() for part in ordered])
        assigner = replace(self.assigner, labels=new_labels[self.assigner.labels], limits=limits)
        clusters = [self._merge(id, part) for id, part in enumerate(ordered)]
        return replace(self, clusters=clusters, tree=[], assigner=assigner, edits=[])

    def renamed(self, words: Mapping[int, str]) -> "Clustering":
        """Return the same clusters, with another name for some, which is their first word, too.

        Parameters
        ----------
        words : mapping of int to str
            The new name by cluster id.
        """
        names = unique_names(
            [
                ClusterName([words[c.id], *c.words], words[c.id])
                if c.id in words
                else ClusterName(c.words, c.name)
                for c in self.clusters
            ]
        )
        clusters = [
            replace(c, words=name.words, name=name.name) for c, name in zip(self.clusters, names, strict=True)
        ]
        return replace(self, clusters=clusters)

    def _merge(self, id: int, part: Sequence[int]) -> Cluster:
        clusters = sorted((self.clusters[i] for i in part), key=lambda cluster: -len(cluster.ids))
        # The most typical image of each cluster, then the second of each, and so on.
        n_rounds = max(len(cluster.representatives) for cluster in clusters)
        images = [
            cluster.representatives[i]
            for i in range(n_rounds)
            for cluster in clusters
            if i < len(cluster.representatives)
        ]
        words = list(dict.fromkeys(cluster.words[0] for cluster in clusters if cluster.words))
        return Cluster(
            id,
            [image for cluster in clusters for image in cluster.ids],
            images[: max(_N_REPRESENTATIVES, len(clusters))],
            words,
            ", ".join(words[:3]) or None,
        )

    def refitted(self, collection: Collection) -> "Clustering":
        """Return the same clusters of the same images, by the vectors that the collection has now.

        Raises
        ------
        InvalidParameterError
            The file was of an earlier version, which names no images, or none is left in the collection.
        """
        from nearsight.estimators.clustering import ClusterAssigner, merge_tree

        listed, table = labels_by_id(self), read_vectors(collection)
        labels = np.array([listed.get(id, _UNLISTED) for id in table.ids], np.int64)
        rows = np.flatnonzero(labels != _UNLISTED)
        if not (labels >= 0).any():
            raise InvalidParameterError("it names no image of the collection")
        X, labels = unit_length(table.X[rows]), labels[rows]
        k = len(self.clusters)
        assigner = ClusterAssigner.fit(
            X,
            labels,
            max_rows=max(len(self.assigner.X), _LEAST_SAMPLED),
            false_alarm_rate=self.assigner.false_alarm_rate,
            random_state=0,
        )
        limits = np.append(assigner.limits, np.full(k - len(assigner.limits), np.inf))
        means = [X[labels == c].mean(0) if (labels == c).any() else np.zeros(X.shape[1]) for c in range(k)]
        sizes = [max(1, int((labels == c).sum())) for c in range(k)]
        tree = merge_tree(np.array(means), np.array(sizes))
        return replace(
            self,
            tree=[(int(a), int(b), float(1 - distance), int(size)) for a, b, distance, size in tree],
            assigner=replace(assigner, limits=limits),
            fingerprint=collection.fingerprint,
            edits=[],
            levels=[],
        )

    def save(self, file: str | Path) -> None:
        """Write a ``.npz`` file that `load` reads to assign other images; it holds no pickle.

        Raises
        ------
        StorageError
            The file cannot be written.
        """
        facts = {
            "algorithm": self.algorithm,
            "fingerprint": self.fingerprint.to_dict(),
            "tree": self.tree,
            "coordinates": self.coordinates,
            "clusters": cluster_members.describe(self.clusters),
            "edits": cluster_members.to_facts(self.edits),
            "keys": self.keys,
        }
        arrays = {**self.assigner.to_arrays(), **cluster_members.to_arrays(self)}
        write_artifact(Path(file), _KIND, _FORMAT, facts, arrays, compressed=True)

    @classmethod
    def load(cls, file: str | Path) -> "Clustering":
        """Read a file that `save` wrote, for `Collection.predict_clusters`.

        Files of earlier versions name no images, so that their clusters are empty.

        Raises
        ------
        InvalidParameterError
            There is no such file, or it is another kind of file.
        NewerFormatError
            A newer nearsight wrote it.
        """
        from nearsight.estimators.clustering import ClusterAssigner

        remedy = "find clusters first: nearsight cluster"
        with read_groups(file, _KIND, _FORMAT, remedy) as (facts, arrays, fingerprint):
            clusters = [_described(c["id"], [], GroupDescription.from_facts(c)) for c in facts["clusters"]]
            tree = [(int(a), int(b), float(s), int(n)) for a, b, s, n in facts["tree"]]
            assigner = ClusterAssigner.from_arrays(arrays)
            loaded = cls(
                clusters,
                [],
                facts["algorithm"],
                tree,
                assigner,
                fingerprint,
                coordinates=facts.get("coordinates"),
                keys=facts.get("keys", []),
            )
            return cluster_members.with_members(loaded, facts.get("edits", []), arrays)


def _described(id: int, ids: list[str], description: GroupDescription) -> Cluster:
    return Cluster(id, ids, description.representatives, description.words, description.name)


def cluster(
    collection: Collection,
    k: int | None = None,
    *,
    algorithm: Algorithm | None = None,
    coordinates: Coordinates = "auto",
    where: str | None = None,
    words: Sequence[str] | None = None,
    min_cluster_size: int | None = None,
    detail: int = 0,
    n_representatives: int = _N_REPRESENTATIVES,
    false_alarm_rate: float = 0.05,
    random_state: int = 0,
    progress: bool | None = None,
) -> Clustering:
    """Find groups of images that look alike.

    Parameters
    ----------
    k : int, optional
        Number of clusters. By default it follows from the data, and images between clusters are noise.
    algorithm : {"density", "kmeans"}, optional
        By default "kmeans" where `k` is given, else "density". With "density" and `k`, the most similar
        clusters are merged until `k` are left.
    coordinates : {"auto", "umap", "diffusion"}, default "auto"
        For "kmeans": see `GraphKMeans`. "density" uses diffusion.
    where : str, optional
        Only the images that match, such as one cluster for a closer look.
    words : sequence of str, optional
        Vocabulary of the cluster names; an empty one gives no names. By default 1,140 words and their
        categories (`models.text.vocabulary`), if the model can read text.
    min_cluster_size : int, optional
        For "density": see `DensityClustering`.
    detail : int, default 0
        For "density": levels of detail above (more clusters) or below the default one.
    n_representatives : int, default 8
        Representative images of each cluster.
    false_alarm_rate : float, default 0.05
        In (0, 1): the share of later images of a cluster that `predict_clusters` may call noise; see
        `DensityClustering` for the assumptions.
    random_state : int, default 0
    progress : bool, optional
        Show progress on stderr; by default only where that is a terminal.

    Raises
    ------
    InvalidParameterError
        `k` exceeds the number of images, `algorithm` is "kmeans" without `k` or with `detail`, there is no
        such algorithm, or `coordinates` is "umap" with "density".
    MissingExtraError
        `coordinates` is "umap" and umap-learn is not installed: ``pip install 'nearsight[map]'``.
    FilterError
        `where` is not understood.

    Notes
    -----
    Memory: all vectors, 4 bytes a number. For the time see `DensityClustering` and `GraphKMeans`. With
    "density", fewer images than `min_cluster_size` are noise. Identical images are one cluster, whatever `k`
    is.
    """
    from nearsight.estimators.clustering import merge_tree

    require_whole("k", k, optional=True)
    algorithm = algorithm or ("density" if k is None else "kmeans")
    if algorithm not in ("density", "kmeans"):
        raise InvalidParameterError(f"there is no algorithm {algorithm!r}; there are density and kmeans")
    if algorithm == "kmeans" and k is None:
        raise InvalidParameterError("kmeans needs the number of clusters; give k, or use density")
    if algorithm == "kmeans" and detail:
        raise InvalidParameterError(f"detail is {detail}, which is for density; with kmeans, k says how many")
    if algorithm == "density" and coordinates == "umap":
        raise InvalidParameterError("density has no UMAP coordinates; use kmeans with k, or diffusion")
    table = read_vectors(collection, where)
    with steps(_N_STEPS[algorithm]):
        fitted = _fit(
            table.X,
            algorithm,
            k,
            coordinates,
            min_cluster_size,
            detail,
            false_alarm_rate,
            random_state,
            progress,
        )
        labels = fitted.labels
        descriptions = describe_groups(
            collection,
            table.X,
            table.ids,
            labels,
            words,
            n_representatives=n_representatives,
            random_state=random_state,
            progress=progress,
        )
    clusters, means, sizes = [], [], []
    for id, description in enumerate(descriptions):
        rows = np.flatnonzero(labels == id)
        means.append(table.X[rows].mean(0) if len(rows) else np.zeros(collection.spec.dim))
        sizes.append(max(len(rows), 1))
        clusters.append(_described(id, [table.ids[i] for i in rows], description))
    tree = merge_tree(np.array(means), np.array(sizes)) if clusters else np.empty((0, 4))
    clustering = Clustering(
        clusters,
        [table.ids[i] for i in np.flatnonzero(labels < 0)],
        algorithm,
        [(int(a), int(b), float(1 - distance), int(size)) for a, b, distance, size in tree],
        fitted.assigner,
        collection.fingerprint,
        fitted.levels,
        fitted.level,
        fitted.coordinates,
        thumbnails=Thumbnails(collection.thumbnails),
    )
    return clustering.merged(k) if algorithm == "density" and k is not None else clustering


@dataclass(frozen=True, slots=True)
class _Fitted:
    """The label of each row, the assigner of other rows, and the levels of detail."""

    labels: NDArray[np.int64]
    assigner: "ClusterAssigner"
    coordinates: str
    levels: list[int] = field(default_factory=list)
    level: int = 0


def _fit(
    X: NDArray[np.float32],
    algorithm: Algorithm,
    k: int | None,
    coordinates: Coordinates,
    min_cluster_size: int | None,
    detail: int,
    false_alarm_rate: float,
    random_state: int,
    progress: bool | None,
) -> _Fitted:
    # The estimators refuse an empty array.
    from nearsight.estimators.clustering import ClusterAssigner, DensityClustering, GraphKMeans

    if len(X) == 0 and algorithm == "density":
        nothing = np.empty(0, np.int64)
        return _Fitted(nothing, ClusterAssigner(X, nothing, np.empty(0), false_alarm_rate), "diffusion")
    if algorithm == "density":
        density = DensityClustering(
            min_cluster_size=min_cluster_size,
            detail=detail,
            false_alarm_rate=false_alarm_rate,
            random_state=random_state,
            progress=progress,
        ).fit(X)
        return _Fitted(density.labels_, density.assigner_, "diffusion", density.levels_, density.level_)
    if k is not None and k > len(X):
        raise InvalidParameterError(
            f"k is {k}, and there are {len(X)} images; ask for at most so many, or index more"
        )
    kmeans = GraphKMeans(
        n_clusters=k or 1,
        coordinates=coordinates,
        false_alarm_rate=false_alarm_rate,
        random_state=random_state,
        progress=progress,
    ).fit(X)
    return _Fitted(kmeans.labels_, kmeans.assigner_, kmeans.coordinates_)


def predict_clusters(
    collection: Collection,
    clustering: Clustering,
    *,
    where: str | None = None,
    progress: bool | None = None,
) -> Clustering:
    """Assign images to saved clusters instead of clustering again.

    Parameters
    ----------
    clustering : Clustering
        From `cluster` or `Clustering.load`, of this collection or another of the same fingerprint.
    where : str, optional
        Only the images that match, such as those that were added since.
    progress : bool, optional
        Show progress on stderr; by default only where that is a terminal.

    Returns
    -------
    Clustering
        The same clusters. An image that the clustering lists keeps its cluster; the others are assigned.

    Raises
    ------
    FingerprintMismatchError
        The clusters are of vectors of another model.

    Notes
    -----
    Memory: the vectors of a few thousand images at a time. For the time see `ClusterAssigner.assign`.
    """
    remedy = f"Find the clusters of {collection.uri} with nearsight cluster"
    clustering.fingerprint.require_same(collection.fingerprint, "the clustering", remedy)
    ids_by_cluster: list[list[str]] = [[] for _ in clustering.clusters]
    noise: list[str] = []
    listed = labels_by_id(clustering)
    with bar("assigning images to clusters", collection.count(where), progress=progress) as shown:
        for batch in collection.iter_batches(["id", "vector"], where):
            ids = batch.column("id").to_pylist()
            labels = np.array([listed.get(id, _UNLISTED) for id in ids], np.int64)
            new = np.flatnonzero(labels == _UNLISTED)
            if len(new):
                labels[new] = clustering.assigner.assign(batch_vectors(batch.take(new)))
            for id, label in zip(ids, labels.tolist(), strict=True):
                (noise if label < 0 else ids_by_cluster[label]).append(id)
            shown.update(len(batch))
    clusters = [replace(c, ids=ids) for c, ids in zip(clustering.clusters, ids_by_cluster, strict=True)]
    thumbnails = Thumbnails(collection.thumbnails)
    return replace(clustering, clusters=clusters, noise=noise, thumbnails=thumbnails)
