"""Arrow tables as an engine keeps them, and as callers see them: vectors are always float32 to those."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.errors import VectorError
from nearsight.store.base import NUMBER_TYPES, Hit


def is_storable(schema: pa.Schema) -> bool:
    """Whether a table has an ``id`` (string) and a ``vector`` (fixed-size list of one of `NUMBER_TYPES`)."""
    types = {field.name: field.type for field in schema}
    vector = types.get("vector", pa.null())
    return (
        types.get("id") == pa.string()
        and pa.types.is_fixed_size_list(vector)
        and vector.value_type in NUMBER_TYPES.values()
    )


def as_seen(schema: pa.Schema) -> pa.Schema:
    """Return the columns as callers see them."""
    at = schema.get_field_index("vector")
    field = schema.field(at)
    return schema.set(at, field.with_type(pa.list_(pa.float32(), field.type.list_size)))


def seen(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows with their vectors in float32."""
    at = batch.schema.get_field_index("vector")
    if at < 0 or batch.schema.field(at).type.value_type == pa.float32():
        return batch
    vectors = _as_list(batch.column(at), np.float32)
    return batch.set_column(at, batch.schema.field(at).with_type(vectors.type), vectors)


def as_kept(rows: pa.Table, type_: pa.DataType) -> pa.Table:
    """Return rows with their vectors in the type that the engine keeps.

    Raises
    ------
    VectorError
        A number is larger than that type can hold.
    """
    if "vector" not in rows.column_names or type_.value_type == pa.float32():
        return rows
    at = rows.schema.get_field_index("vector")
    vectors = [_as_list(chunk, np.float16) for chunk in rows["vector"].chunks]
    if any(np.isinf(chunk.flatten().to_numpy(zero_copy_only=False)).any() for chunk in vectors):
        raise VectorError(
            "a vector holds a number beyond 65,504, which float16 cannot; keep such vectors in float32"
        )
    return rows.set_column(at, rows.schema.field(at).with_type(type_), pa.chunked_array(vectors, type_))


def hits_of(table: pa.Table, n_queries: int, wanted: Sequence[str], k: int) -> list[list[Hit]]:
    """Return what LanceDB found, by query, the most similar first."""
    found: list[list[Hit]] = [[] for _ in range(n_queries)]
    for row in table.to_pylist():
        distance, place = row.pop("_distance"), row.pop("query_index", 0)
        values = {name: row[name] for name in wanted if name != "id"}
        found[place].append(Hit(row["id"], min(1.0, max(-1.0, 1.0 - distance)), values))
    return [sorted(hits, key=lambda hit: (-hit.similarity, hit.id))[:k] for hits in found]


def _as_list(column: pa.Array, dtype: type[np.floating]) -> pa.Array:
    flat: NDArray[np.floating] = column.flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        flat = flat.astype(dtype)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), column.type.list_size)
