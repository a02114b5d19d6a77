"""Edits of a collection's own clusters: the file first, then the metadata that hold the clusters, too."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from nearsight.analyses import cluster_edits
from nearsight.analyses.cluster_members import labels_by_id
from nearsight.analyses.clusters import Clustering
from nearsight.analyses.saved_clusters import save_clusters
from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError
from nearsight.services.clusters import clustering_file
from nearsight.store import Filter
from nearsight.text_format import shortened

# Exists from before the file of the clusters changes until the metadata agree with it.
_PENDING = "clusters.pending"
_LOCK = "clusters.lock"


class ClusterEdits:
    """Merges, splits and renames a collection's own clusters, and moves images between them.

    Each edit replaces the file of the clusters, so that it is done whole or not at all. Where the clusters
    are saved as metadata, too, these follow; after a crash in between, the next use completes them.

    Parameters
    ----------
    collection : Collection
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._file = clustering_file(collection)

    @property
    def revision(self) -> str:
        """Changes with every edit; empty if no clusters are saved."""
        try:
            info = self._file.stat()
        except FileNotFoundError:
            return ""
        return f"{info.st_mtime_ns:x}-{info.st_ino:x}"

    def read(self) -> Clustering:
        """Return the clusters with their images.

        Raises
        ------
        InvalidParameterError
            No clusters are saved.
        """
        if self._pending.exists():
            with self._lock:
                self._complete()
        return self._read()

    def merge(self, ids: Sequence[int], *, revision: str | None = None) -> Clustering:
        """Make one cluster of several; see `cluster_edits.merge_clusters`."""
        return self._change(lambda before: cluster_edits.merge_clusters(before, ids), revision)

    def move(self, ids: Sequence[str], to: int | None, *, revision: str | None = None) -> Clustering:
        """Move images to another cluster; see `cluster_edits.move_images`."""
        return self._change(
            lambda before: cluster_edits.move_images(self._collection, before, ids, to), revision
        )

    def rename(self, id: int, name: str, *, revision: str | None = None) -> Clustering:
        """Rename a cluster."""
        return self._change(lambda before: cluster_edits.rename_cluster(before, id, name), revision)

    def split(
        self, id: int, k: int | None = None, *, revision: str | None = None, progress: bool | None = None
    ) -> Clustering:
        """Cluster one cluster again, by itself; see `cluster_edits.split_cluster`."""
        # It can take long, and others need not wait: what changed meanwhile is noticed at the end.
        self._check(revision)
        start = revision or self.revision
        after = cluster_edits.split_cluster(self._collection, self.read(), id, k, progress=progress)
        return self._change(lambda _: after, start)

    def undo(self, *, revision: str | None = None) -> Clustering:
        """Take the latest edit back."""
        return self._change(cluster_edits.undo, revision)

    def save_as(
        self, clustering: Clustering, key: str, *, is_own: bool = True, overwrite: bool = False
    ) -> int:
        """Save clusters as metadata, and return the number of images; see `save_clusters`.

        Parameters
        ----------
        is_own : bool, default True
            Whether they are the collection's own clusters, or images assigned to these: then later edits
            change the metadata, too.
        """
        with self._lock:
            n_saved = save_clusters(self._collection, clustering, key, overwrite=overwrite)
            if not self._file.exists() or not os.access(self._file.parent, os.W_OK):
                return n_saved
            own = self._read()
            keys = [each for each in own.keys if each != key]
            if is_own:
                own, keys = _with_new_images(own, clustering), [*keys, key]
            if is_own or keys != own.keys:
                replace(own, keys=keys).save(self._file)
        return n_saved

    def _read(self) -> Clustering:
        clustering = Clustering.load(self._file)
        if labels_by_id(clustering) or not clustering.clusters:
            return clustering
        # An earlier version wrote the file, which names no images.
        return self._collection.predict_clusters(clustering, progress=False)

    def _change(self, change: Callable[[Clustering], Clustering], revision: str | None) -> Clustering:
        with self._lock:
            self._complete()
            self._check(revision)
            after = change(self._read())
            if after.keys:
                self._pending.touch()
            after.save(self._file)
            self._complete()
        return after

    def _check(self, revision: str | None) -> None:
        if revision is not None and revision != self.revision:
            raise InvalidParameterError(
                "the clusters have changed meanwhile, so their numbers may mean others; look at them again"
            )

    def _complete(self) -> None:
        if not self._pending.exists():
            return
        clustering = self._read()
        for key in clustering.keys:
            save_clusters(self._collection, clustering, key)
        self._pending.unlink(missing_ok=True)

    @property
    def _pending(self) -> Path:
        return self._file.with_name(_PENDING)

    @property
    def _lock(self) -> FileLock:
        return FileLock(self._file.with_name(_LOCK))


def cluster_condition(
    collection: Collection, names: Sequence[str | int], where: str | None = None
) -> str | Filter | None:
    """Return the filter of images that are in one of several clusters of the collection and match `where`.

    Parameters
    ----------
    collection : Collection
    names : sequence of str or int
        Clusters by name or number. All clusters of a name are meant. Without any, `where` alone counts.
    where : str, optional

    Raises
    ------
    InvalidParameterError
        There are no clusters, or none of that name.
    FilterError
        `where` is not understood.
    """
    if not names:
        return where
    clusters = ClusterEdits(collection).read().clusters
    ids: dict[str, None] = {}
    for name in map(str, names):
        named = [each for each in clusters if (each.name or "").casefold() == name.strip().casefold()]
        chosen = named or [each for each in clusters if str(each.id) == name.strip()]
        if not chosen:
            known = shortened([f"{each.id} {each.name or ''}".strip() for each in clusters], 10)
            raise InvalidParameterError(f"there is no cluster {name[:80]!r}; the clusters are: {known}")
        ids |= dict.fromkeys(id for each in chosen for id in each.ids)
    return collection.condition(where, ids=list(ids))


def _with_new_images(own: Clustering, assigned: Clustering) -> Clustering:
    listed = labels_by_id(own)
    clusters = [
        replace(each, ids=[*each.ids, *(id for id in others.ids if id not in listed)])
        for each, others in zip(own.clusters, assigned.clusters, strict=True)
    ]
    return replace(
        own, clusters=clusters, noise=[*own.noise, *(id for id in assigned.noise if id not in listed)]
    )
