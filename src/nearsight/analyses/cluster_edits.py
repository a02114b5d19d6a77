"""What a person changes about clusters: merge, split, move images between them; and undo."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nearsight.analyses.cluster_members import Cluster, ClusterEdit, labels_by_id
from nearsight.analyses.cluster_names import ClusterName, unique_names
from nearsight.analyses.clusters import Clustering
from nearsight.analyses.groups import describe_groups
from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError
from nearsight.estimators.neighbors import similarity_blocks
from nearsight.parameters import require_whole

NOISE = -1
#: Edits that can be undone.
MOST_EDITS = 10
_N_REPRESENTATIVES = 8
# Moved images that later images are compared with; more would make the file large.
_MOST_NEW_ROWS = 1000


def merge_clusters(clustering: Clustering, ids: Sequence[int]) -> Clustering:
    """Return the clusters with several of them as one, which keeps the name of the first.

    Clusters behind one that is gone move up by one number.

    Raises
    ------
    InvalidParameterError
        Fewer than two clusters are named, or one that is not there.
    """
    names = list(dict.fromkeys(ids))
    if len(names) < 2:
        raise InvalidParameterError(f"clusters {names} cannot be merged; name two or more")
    first, *others = (_cluster(clustering, id) for id in names)
    images = [*first.ids, *(id for other in others for id in other.ids)]
    typical = [id for cluster in (first, *others) for id in cluster.representatives]
    merged = replace(first, ids=images, representatives=typical[: max(_N_REPRESENTATIVES, len(names))])
    clusters = {cluster.id: cluster for cluster in clustering.clusters}
    clusters[first.id] = merged
    target = {cluster.id: first.id for cluster in others}
    title = f"merged {', '.join(_title(each) for each in others)} into {_title(first)}"
    return _changed(clustering, title, list(clusters.values()), clustering.noise, target)


def move_images(
    collection: Collection, clustering: Clustering, ids: Sequence[str], to: int | None
) -> Clustering:
    """Return the clusters with some images in another one. A cluster that loses all its images is gone.

    Later images that resemble the moved ones follow them: the assigner learns their vectors.

    Parameters
    ----------
    ids : sequence of str
        Whole ids.
    to : int or None
        A cluster; -1 for noise; None for a new cluster.

    Raises
    ------
    InvalidParameterError
        No images are named, or a cluster that is not there.
    UnknownIdError
        An image is not in the collection.
    """
    moved = list(dict.fromkeys(collection.get(id).id for id in ids))
    if not moved:
        raise InvalidParameterError("ids is empty; name the images to move")
    target = len(clustering.clusters) if to is None else to
    if to is not None and to != NOISE:
        _cluster(clustering, to)
    gone, labels = set(moved), labels_by_id(clustering)
    sources = {labels.get(id, NOISE) for id in moved}
    clusters = [_without(cluster, gone) for cluster in clustering.clusters]
    if to is None:
        clusters.append(Cluster(target, [], []))
    noise = [id for id in clustering.noise if id not in gone]
    if to == NOISE:
        noise += moved
        title = f"took {_count(moved)} out of clusters"
    else:
        own = clusters[target]
        clusters[target] = replace(
            own,
            ids=[*own.ids, *moved],
            representatives=own.representatives or moved[:_N_REPRESENTATIVES],
        )
        title = f"moved {_count(moved)} to {'a new cluster' if to is None else _title(own)}"
    return _changed(
        _with_moved_rows(collection, clustering, moved, target, sources), title, clusters, noise, {}
    )


def split_cluster(
    collection: Collection,
    clustering: Clustering,
    id: int,
    k: int | None = None,
    *,
    words: Sequence[str] | None = None,
    random_state: int = 0,
    progress: bool | None = None,
) -> Clustering:
    """Return the clusters with one of them clustered again, by itself; every image stays in a part of it.

    The largest part keeps the number, the others come last.

    Parameters
    ----------
    k : int, optional
        Number of parts, 2 or more. By default it follows from the data (`DensityClustering`); if that finds
        no parts, there are two.
    words : sequence of str, optional
        See `cluster`.

    Raises
    ------
    InvalidParameterError
        There is no such cluster, or it has fewer images than parts.
    """
    cluster = _cluster(clustering, id)
    require_whole("k", k, optional=True)
    if (k is not None and k < 2) or len(cluster.ids) < (k or 2):
        raise InvalidParameterError(
            f"{_title(cluster)} with {_count(cluster.ids)} cannot be split into {k or 2} parts; there must be"
            " two parts or more, and an image for each"
        )
    present = {item.id for item in collection.items(ids=cluster.ids)}
    ids = [each for each in cluster.ids if each in present]
    X = collection.vectors(ids)
    labels, of_rows = _parts(X, k, clustering, id, random_state, progress)
    n_parts = int(labels.max(initial=0)) + 1
    if n_parts < 2:
        raise InvalidParameterError(f"{_title(cluster)} cannot be split: its images are all alike")
    described = describe_groups(
        collection,
        X,
        ids,
        labels,
        words,
        n_representatives=_N_REPRESENTATIVES,
        random_state=random_state,
        progress=progress,
    )
    numbers = [id, *range(len(clustering.clusters), len(clustering.clusters) + n_parts - 1)]
    parts = {
        number: Cluster(
            number,
            [ids[row] for row in np.flatnonzero(labels == part)],
            description.representatives,
            description.words,
            description.name or (f"{cluster.name} {part + 1}" if cluster.name else None),
        )
        for part, (number, description) in enumerate(zip(numbers, described, strict=True))
    }
    clusters = [parts.pop(each.id, each) for each in clustering.clusters]
    assigner = clustering.assigner
    rows = np.flatnonzero(assigner.labels == id)
    new_labels = assigner.labels.copy()
    new_labels[rows] = np.array(numbers)[of_rows]
    limits = np.concatenate([assigner.limits, np.full(n_parts - 1, assigner.limits[id])])
    clustering_of_parts = replace(clustering, assigner=replace(assigner, labels=new_labels, limits=limits))
    return _changed(
        clustering_of_parts,
        f"split {_title(cluster)} into {n_parts}",
        _uniquely_named([*clusters, *parts.values()]),
        clustering.noise,
        {},
        before=clustering,
    )


def rename_cluster(clustering: Clustering, id: int, name: str) -> Clustering:
    """Return the clusters with another name for one.

    Raises
    ------
    InvalidParameterError
        There is no such cluster.
    """
    title = f"renamed {_title(_cluster(clustering, id))}"
    return _remembering(clustering, title, clustering.renamed({id: name}))


def undo(clustering: Clustering) -> Clustering:
    """Return the clusters before the latest edit.

    Raises
    ------
    InvalidParameterError
        Nothing can be undone.
    """
    if not clustering.edits:
        raise InvalidParameterError("there is no edit to undo")
    return replace(clustering.edits[-1].before, edits=clustering.edits[:-1], keys=clustering.keys)


def _cluster(clustering: Clustering, id: int) -> Cluster:
    if not 0 <= id < len(clustering.clusters):
        raise InvalidParameterError(
            f"there is no cluster {id}; there are {len(clustering.clusters)}, from 0 on"
        )
    return clustering.clusters[id]


def _without(cluster: Cluster, gone: set[str]) -> Cluster:
    ids = [id for id in cluster.ids if id not in gone]
    typical = [id for id in cluster.representatives if id not in gone]
    return replace(cluster, ids=ids, representatives=typical or ids[:_N_REPRESENTATIVES])


def _parts(
    X: NDArray[np.float32],
    k: int | None,
    clustering: Clustering,
    id: int,
    random_state: int,
    progress: bool | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the part of each image, the largest part first, and of each row of the assigner."""
    from nearsight.estimators.clustering import DensityClustering, GraphKMeans

    labels = np.zeros(len(X), np.int64)
    if k is None:
        labels = DensityClustering(random_state=random_state, progress=progress).fit(X).labels_
    if labels.max(initial=-1) < 1:
        labels = GraphKMeans(n_clusters=k or 2, random_state=random_state, progress=progress).fit(X).labels_
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    order = values[np.argsort(-counts, kind="stable")]
    means = np.stack([X[labels == value].mean(0) for value in order])
    # Whoever splits a cluster wants all its images in the parts, noise too.
    parts = np.where(labels < 0, (X @ means.T).argmax(1), np.argsort(order)[np.maximum(labels, 0)])
    rows = clustering.assigner.X[clustering.assigner.labels == id]
    of_rows = np.empty(len(rows), np.int64)
    for block, similarities in similarity_blocks(rows, X):
        of_rows[block] = parts[similarities.argmax(1)]
    return parts, of_rows


def _with_moved_rows(
    collection: Collection, clustering: Clustering, moved: Sequence[str], target: int, sources: set[int]
) -> Clustering:
    assigner, sample = clustering.assigner, moved[:: max(1, len(moved) // _MOST_NEW_ROWS)]
    limits = assigner.limits
    if target == len(limits):
        known = [limits[source] for source in sources if source >= 0]
        limits = np.append(limits, max(known, default=np.inf))
    learned = replace(assigner, limits=limits).with_rows(collection.vectors(sample), target)
    return replace(clustering, assigner=learned)


def _changed(
    clustering: Clustering,
    title: str,
    clusters: Sequence[Cluster],
    noise: list[str],
    target: dict[int, int],
    *,
    before: Clustering | None = None,
) -> Clustering:
    """Return the clusters after an edit, numbered without gaps.

    Parameters
    ----------
    target : dict of int to int
        What became of merged clusters; a cluster without images is gone as well.
    """
    remaining = [c for c in clusters if c.id not in target and c.ids]
    number = {c.id: i for i, c in enumerate(remaining)}
    new_labels = np.full(len(clusters) + 1, NOISE)
    for c in clusters:
        new_labels[c.id] = number.get(target.get(c.id, c.id), NOISE)
    old = clustering.assigner
    limits = np.array([old.limits[new_labels[:-1] == i].max() for i in range(len(remaining))])
    assigner = replace(old, labels=new_labels[old.labels], limits=limits)
    after = replace(
        clustering,
        clusters=[replace(c, id=number[c.id]) for c in remaining],
        noise=noise,
        tree=[],
        assigner=assigner,
    )
    return _remembering(before or clustering, title, after)


def _remembering(before: Clustering, title: str, after: Clustering) -> Clustering:
    edit = ClusterEdit(title, replace(before, edits=[], levels=[]))
    return replace(after, edits=[*before.edits, edit][-MOST_EDITS:], levels=[])


def _uniquely_named(clusters: Sequence[Cluster]) -> list[Cluster]:
    names = unique_names([ClusterName(cluster.words, cluster.name) for cluster in clusters])
    return [replace(c, words=n.words, name=n.name) for c, n in zip(clusters, names, strict=True)]


def _title(cluster: Cluster) -> str:
    return cluster.name or f"cluster {cluster.id}"


def _count(ids: Sequence[str]) -> str:
    return f"{len(ids):,} image{'' if len(ids) == 1 else 's'}"
