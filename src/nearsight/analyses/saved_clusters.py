"""Writes clusters into the metadata of images, and nothing of the user's own over."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from nearsight.analyses.clusters import Clustering
from nearsight.artifacts import exported
from nearsight.collection import Collection, schema
from nearsight.errors import FilterError, MetadataError, StorageError
from nearsight.store import parse

#: Where a collection remembers which of its metadata are clusters.
FILENAME = "cluster_keys.json"


def check_key(view: Collection, key: str, *, overwrite: bool = False, where: str | None = None) -> None:
    """Check whether `save_clusters` accepts a key, before the work is done.

    Parameters
    ----------
    where : str, optional
        The images that were clustered, if not all. The other images must have no cluster under the key:
        one number would mean two clusters.

    Raises
    ------
    MetadataError, StorageError
        See `save_clusters`. Or images outside `where` have a cluster under this key already.
    """
    if not os.access(view.directory, os.W_OK):
        raise StorageError(
            f"{view.directory} cannot be written to, so no clusters can be saved in it; copy it to a place"
            " where you can write"
        )
    names = (key, _label(key))
    view.check_metadata({key: 0, _label(key): ""})
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
    if overwrite:
        return
    if where is not None and key in view.metadata_types():
        # Not by NOT: rows for which `where` is unknown would be on neither side.
        has_key = f"{key} IS NOT NULL"
        n_others = view.count(has_key) - view.count(f"{has_key} AND ({where})")
        if n_others:
            raise MetadataError(
                f"{n_others:,} images outside `where` have a {key!r} already, so its numbers would mean two"
                f" things; choose another key, such as {key}_part, or overwrite it (--overwrite)"
            )
    if key in _written(view.directory):
        return
    for name in names:
        n = view.count(f"{name} IS NOT NULL") if name in view.metadata_types() else 0
        if n:
            raise MetadataError(
                f"{n:,} images have metadata {name!r} already, which is no cluster saved earlier; choose"
                f" another key, such as {key}_group, or write over it (--overwrite, overwrite=True)"
            )


def save_clusters(
    self: Collection, found: Clustering, key: str = "cluster", *, overwrite: bool = False
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
    metadata: dict[str, dict[str, Any]] = {id: {key: -1, _label(key): None} for id in found.noise}
    for group in found.clusters:
        metadata |= {id: {key: group.id, _label(key): group.label} for id in group.ids}
    self.update_metadata(list(metadata), list(metadata.values()), missing_ok=True)
    return len(metadata)


def _label(key: str) -> str:
    return f"{key}_label"


def _written(directory: Path) -> list[str]:
    """Return the keys that clusters were saved under."""
    try:
        return [str(key) for key in json.loads((directory / FILENAME).read_bytes())["keys"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
