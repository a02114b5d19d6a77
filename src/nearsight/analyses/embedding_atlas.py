"""A map as a table that Apple's embedding-atlas reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nearsight.analyses.map import Map
from nearsight.artifacts import exported
from nearsight.collection import Collection
from nearsight.collection.schema import Item

# Neighbors of each row, as many as embedding-atlas finds itself.
_NEIGHBORS = 15
# They cost the square of the rows: of more, the column is left out, and the tool works without.
_MOST_FOR_NEIGHBORS = 20_000
_BLOCK = 1024

_NEIGHBOR_TYPE = pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))])
_IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_atlas(file: Path, view: Collection, found: Map, items: Sequence[Item]) -> None:
    """Write a Parquet file with ``projection_x``, ``projection_y``, ``neighbors``, ``image`` and metadata.

    Shown by ``embedding-atlas FILE --image image --x projection_x --y projection_y --neighbors neighbors``.

    Parameters
    ----------
    file : Path
        Replaced whole.
    view : Collection
    found : Map
    items : sequence of Item, length n
        Of the same images, in the same order.

    Raises
    ------
    StorageError
        The disk refuses.

    Notes
    -----
    ``neighbors`` holds zero-based rows and cosine distances, the nearest first; it is left out of a table of
    more than 20,000 rows. Thumbnails are written some thousand rows at a time.
    """
    keys = sorted({key for item in items for key in item.metadata})
    columns: dict[str, pa.Array] = {
        "id": pa.array(found.ids, pa.string()),
        "path": pa.array([_utf8(item.path) for item in items], pa.string()),
        "projection_x": pa.array(found.places[:, 0], pa.float32()),
        "projection_y": pa.array(found.places[:, 1], pa.float32()),
    }
    for key in keys:
        name = key if key not in (*columns, "neighbors", "image") else f"metadata.{key}"
        columns[name] = pa.array([_alike(item.metadata.get(key)) for item in items])
    if len(items) <= _MOST_FOR_NEIGHBORS:
        columns["neighbors"] = _neighbors(view.vectors(found.ids))
    whole = pa.table(columns)
    schema = whole.schema.append(pa.field("image", _IMAGE_TYPE))
    with exported(file) as handle, pq.ParquetWriter(handle, schema) as writer:
        for at in range(0, len(whole), _BLOCK):
            part = whole.slice(at, _BLOCK)
            ids = found.ids[at : at + _BLOCK]
            thumbnails = view.thumbnails(ids)
            images = [{"bytes": thumbnails.get(id), "path": f"{id}.jpg"} for id in ids]
            writer.write_table(part.append_column(schema.field("image"), pa.array(images, _IMAGE_TYPE)))


def _neighbors(X: Any) -> pa.Array:
    k = min(_NEIGHBORS, len(X) - 1)
    told = []
    for at in range(0, len(X), _BLOCK):
        similarities = X[at : at + _BLOCK] @ X.T
        rows = np.arange(len(similarities))
        similarities[rows, at + rows] = -np.inf
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        distances = 1 - np.take_along_axis(similarities, order, axis=1)
        told += [
            {"ids": i.tolist(), "distances": np.maximum(d, 0).tolist()}
            for i, d in zip(order, distances, strict=True)
        ]
    return pa.array(told, _NEIGHBOR_TYPE)


def _alike(value: Any) -> Any:
    # Whole numbers are kept as numbers with a fraction; a column is of one type.
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _utf8(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
