"""Saves clusters as metadata of the images, without overwriting the user's own metadata."""

import json
import os
from pathlib import Path

import pyarrow as pa

from nearsight.analyses.clusters import Clustering
from nearsight.artifacts import exported
from nearsight.collection import Collection, schema
from nearsight.errors import FilterError, MetadataError, StorageError
from nearsight.store import parse

#: File in the collection's directory that lists the metadata keys of saved clusters.
FILENAME = "cluster_keys.json"


def check_key(collection: Collection, key: str, *, overwrite: bool = False, where: str | None = None) -> None:
    """Check whether `save_clusters` accepts a key, before the work is done.

    Parameters
    ----------
    key, overwrite
        See `save_clusters`.
    where : str, optional
        The images that were clustered, if not all. The other images must have no cluster under the key:
        one number would mean two clusters.

    Raises
    ------
    MetadataError, StorageError
        See `save_clusters`. Or images outside `where` have a cluster under this key already.
    """
    if not os.access(collection.directory, os.W_OK):
        raise StorageError(
            f"{collection.directory} cannot be written to, so no clusters can be saved in it; copy it to a"
            " place where you can write"
        )
    name_key = _name_key(key)
    collection.check_metadata({key: 0, name_key: ""})
    if key in schema.schema(1).names:
        raise MetadataError(
            f"clusters cannot be saved under {key!r}: every image has its own {key} already, and `where`"
            f" means that; choose another key, such as {key}_group"
        )
    try:
        parse(f"{key} = 0", {key: pa.float64()})
    except FilterError as error:
        raise MetadataError(
            f"clusters cannot be saved under {key!r}, which is a keyword of `where`; choose another key, such"
            f" as {key}_group"
        ) from error
    if overwrite:
        return
    existing = collection.metadata_types()
    if where is not None and key in existing:
        # Not by NOT: rows for which `where` is unknown would be on neither side.
        has_key = f"{key} IS NOT NULL"
        n_others = collection.count(has_key) - collection.count(f"{has_key} AND ({where})")
        if n_others:
            raise MetadataError(
                f"{n_others:,} images outside `where` have a {key!r} already, so its numbers would mean two"
                f" things; choose another key, such as {key}_part, or overwrite it (--overwrite)"
            )
    if key in _cluster_keys(collection.directory):
        return
    for name in (key, name_key):
        n_images = collection.count(f"{name} IS NOT NULL") if name in existing else 0
        if n_images:
            raise MetadataError(
                f"{n_images:,} images have metadata {name!r} already, and no saved clusters wrote it; choose"
                f" another key, such as {key}_group, or overwrite it (--overwrite, overwrite=True)"
            )


def save_clusters(
    collection: Collection, clustering: Clustering, key: str = "cluster", *, overwrite: bool = False
) -> int:
    """Save each image's cluster in its metadata, and return the number of images.

    The cluster's number is saved under `key` (-1 for noise) and its name, if it has one, under ``key_label``:
    both can be used in `where`.

    Parameters
    ----------
    clustering : Clustering
    key : str, default "cluster"
        Clusters that were saved under it before are overwritten.
    overwrite : bool, default False
        Whether other metadata under the key may be overwritten, too.

    Raises
    ------
    MetadataError
        `key` is not a valid name, is the name of a column or a keyword of `where`, holds text already, or is
        metadata that was not saved by this method.
    StorageError
        The collection cannot be written to.
    """
    check_key(collection, key, overwrite=overwrite)
    name_key, keys = _name_key(key), _cluster_keys(collection.directory)
    if key not in keys:
        with exported(collection.directory / FILENAME) as file:
            file.write(json.dumps({"keys": [*keys, key]}).encode("ascii"))
    values: dict[str, tuple[int, str | None]] = dict.fromkeys(clustering.noise, (-1, None))
    for cluster in clustering.clusters:
        values |= dict.fromkeys(cluster.ids, (cluster.id, cluster.name))
    metadata = [{key: number, name_key: name} for number, name in values.values()]
    collection.update_metadata(list(values), metadata, missing_ok=True)
    return len(values)


def _name_key(key: str) -> str:
    return f"{key}_label"


def _cluster_keys(directory: Path) -> list[str]:
    """Return the keys of saved clusters."""
    try:
        return [str(key) for key in json.loads((directory / FILENAME).read_bytes())["keys"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
