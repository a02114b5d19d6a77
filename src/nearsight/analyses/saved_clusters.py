"""Writes clusters into the metadata of images, and nothing of the user's own over."""

import json
import os
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from filelock import BaseFileLock

from nearsight.analyses.cluster_names import NamedGroups
from nearsight.analyses.clusters import Clustering
from nearsight.artifacts import exported
from nearsight.collection import schema
from nearsight.collection.writer import Batch, Note, Writer
from nearsight.errors import FilterError, MetadataError, StorageError
from nearsight.store import VectorStore
from nearsight.store.filters.parser import parse

#: Where a collection remembers which of its metadata are clusters.
FILENAME = "cluster_keys.json"
# Rows whose metadata is written at once.
_ROWS = 4096


class SavedClusters(NamedGroups, Protocol):
    """A collection that can be written to."""

    _store: VectorStore

    @property
    def _lock(self) -> BaseFileLock: ...

    def _writer(self) -> Writer: ...


def check_key(view: SavedClusters, key: str, *, overwrite: bool = False) -> None:
    """See beforehand whether `save_clusters` will take a key.

    Raises
    ------
    MetadataError, StorageError
        See there.
    """
    if not os.access(view.directory, os.W_OK):
        raise StorageError(
            f"{view.directory} cannot be written to, so no clusters can be saved in it; copy it to a place"
            " where you can write"
        )
    names = (key, _label(key))
    known = {field.name: field.type for field in view._store.schema}
    schema.metadata_types({key: 0, _label(key): ""}, known)
    if key in schema.schema(1).names:
        raise MetadataError(
            f"clusters cannot be saved under {key!r}: every image has its own {key} already, and `where`"
            f" means that; choose another key, such as {key}_group"
        )
    try:
        parse(f"{key} = 0", {key: pa.float64()})
    except FilterError as error:
        raise MetadataError(
            f"clusters cannot be saved under {key!r}, which `where` takes for a word of its own; choose"
            f" another key, such as {key}_group"
        ) from error
    if overwrite or key in _written(view.directory):
        return
    for name in names:
        n = view.count(f"{name} IS NOT NULL") if schema.PREFIX + name in known else 0
        if n:
            raise MetadataError(
                f"{n:,} images have metadata {name!r} already, which is no cluster saved earlier; choose"
                f" another key, such as {key}_group, or write over it (--overwrite, overwrite=True)"
            )


def save_clusters(
    self: SavedClusters, found: Clustering, key: str = "cluster", *, overwrite: bool = False
) -> int:
    """Write each image's cluster into its metadata; return how many images were written to.

    The number goes under `key` (-1 for noise) and the label, where there is one, under ``key_label``, so
    that both can be used in `where`.

    Parameters
    ----------
    found : Clustering
    key : str, default "cluster"
        Clusters that were saved under it before are written over.
    overwrite : bool, default False
        Whether anything else may be, too.

    Raises
    ------
    MetadataError
        `key` is no name, is that of a fact or a word in `where`, holds text already, or is metadata that
        was not written by this method.
    StorageError
        The disk refuses, or the collection cannot be written to.
    """
    check_key(self, key, overwrite=overwrite)
    written = _written(self.directory)
    if key not in written:
        with exported(self.directory / FILENAME) as file:
            file.write(json.dumps({"keys": [*written, key]}).encode("ascii"))
    notes: list[Note] = []
    for group in found.clusters:
        facts: dict[str, Any] = {key: group.id, _label(key): group.label}
        notes += [Note(id, facts, was_unchanged=True) for id in group.ids]
    notes += [Note(id, {key: -1, _label(key): None}, was_unchanged=True) for id in found.noise]
    writer = self._writer()
    for at in range(0, len(notes), _ROWS):
        writer.write(Batch(notes=notes[at : at + _ROWS]))
    return len(notes)


def _label(key: str) -> str:
    return f"{key}_label"


def _written(directory: Path) -> list[str]:
    """Return the keys that clusters were saved under."""
    try:
        return [str(key) for key in json.loads((directory / FILENAME).read_bytes())["keys"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
