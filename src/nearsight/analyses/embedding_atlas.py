"""A map as a Parquet table for Apple's embedding-atlas."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nearsight.analyses.map import ImageMap
from nearsight.artifacts import exported
from nearsight.collection import Collection, Item
from nearsight.estimators.neighbors import nearest_neighbors

# As many as embedding-atlas computes itself.
_N_NEIGHBORS = 15
# Neighbors take quadratic time: a larger table has none, and the tool works without.
_MAX_ROWS_WITH_NEIGHBORS = 20_000
_ROWS_PER_WRITE = 1024

_NEIGHBOR_TYPE = pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))])
_IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_embedding_atlas(
    file: Path, collection: Collection, image_map: ImageMap, items: Sequence[Item]
) -> None:
    """Write a Parquet file with ``projection_x``, ``projection_y``, ``neighbors``, ``image`` and metadata.

    Open it with
    ``embedding-atlas FILE --image image --x projection_x --y projection_y --neighbors neighbors``.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
    image_map : ImageMap
    items : sequence of Item, length n
        The images of the map, in its order.

    Raises
    ------
    StorageError
        The file cannot be written.

    Notes
    -----
    ``neighbors`` holds row numbers from 0 and cosine distances, the nearest first. It takes quadratic time,
    and a table of more than 20,000 rows has none.
    """
    columns: dict[str, pa.Array] = {
        "id": pa.array(image_map.ids, pa.string()),
        "path": pa.array([_utf8(item.path) for item in items], pa.string()),
        "projection_x": pa.array(image_map.positions[:, 0], pa.float32()),
        "projection_y": pa.array(image_map.positions[:, 1], pa.float32()),
    }
    for key in sorted({key for item in items for key in item.metadata}):
        name = key if key not in (*columns, "neighbors", "image") else f"metadata.{key}"
        columns[name] = pa.array([_integer_as_float(item.metadata.get(key)) for item in items])
    if len(items) <= _MAX_ROWS_WITH_NEIGHBORS:
        columns["neighbors"] = _neighbor_column(collection.vectors(image_map.ids))
    table = pa.table(columns)
    schema = table.schema.append(pa.field("image", _IMAGE_TYPE))
    with exported(file) as handle, pq.ParquetWriter(handle, schema) as writer:
        for start in range(0, len(table), _ROWS_PER_WRITE):
            ids = image_map.ids[start : start + _ROWS_PER_WRITE]
            thumbnails = collection.thumbnails(ids)
            images = [{"bytes": thumbnails.get(id), "path": f"{id}.jpg"} for id in ids]
            part = table.slice(start, _ROWS_PER_WRITE)
            writer.write_table(part.append_column(schema.field("image"), pa.array(images, _IMAGE_TYPE)))


def _neighbor_column(X: NDArray[np.float32]) -> pa.Array:
    n_neighbors = min(_N_NEIGHBORS, len(X) - 1)
    rows, similarities = nearest_neighbors(X, X, max(1, n_neighbors), own=np.arange(len(X)))
    distances = np.maximum(1 - similarities, 0)
    cells = [
        {"ids": row[:n_neighbors].tolist(), "distances": distance[:n_neighbors].tolist()}
        for row, distance in zip(rows, distances, strict=True)
    ]
    return pa.array(cells, _NEIGHBOR_TYPE)


def _integer_as_float(value: Any) -> Any:
    # A column has one type, and a key may have integers for some images and fractions for others.
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _utf8(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
