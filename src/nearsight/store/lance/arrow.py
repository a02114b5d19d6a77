"""Arrow tables as the engine stores them, and as callers see them: with vectors in float32."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.errors import VectorError
from nearsight.store.base import NUMBER_TYPES, Hit


def is_storable(schema: pa.Schema) -> bool:
    """Return whether a table has an ``id`` (string) and a ``vector`` (fixed-size list of `NUMBER_TYPES`)."""
    types = {field.name: field.type for field in schema}
    vector = types.get("vector", pa.null())
    return (
        types.get("id") == pa.string()
        and pa.types.is_fixed_size_list(vector)
        and vector.value_type in NUMBER_TYPES.values()
    )


def public_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns with the vector in float32."""
    position = schema.get_field_index("vector")
    field = schema.field(position)
    return schema.set(position, field.with_type(pa.list_(pa.float32(), field.type.list_size)))


def public_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows with their vectors in float32."""
    position = batch.schema.get_field_index("vector")
    if position < 0 or batch.schema.field(position).type.value_type == pa.float32():
        return batch
    vectors = _cast_vectors(batch.column(position), np.float32)
    return batch.set_column(position, batch.schema.field(position).with_type(vectors.type), vectors)


def stored_rows(rows: pa.Table, type_: pa.DataType) -> pa.Table:
    """Return rows with their vectors in the stored type.

    Raises
    ------
    VectorError
        A number is beyond what the stored type can hold.
    """
    if "vector" not in rows.column_names or type_.value_type == pa.float32():
        return rows
    position = rows.schema.get_field_index("vector")
    vectors = [_cast_vectors(chunk, np.float16) for chunk in rows["vector"].chunks]
    if any(np.isinf(chunk.flatten().to_numpy(zero_copy_only=False)).any() for chunk in vectors):
        raise VectorError(
            "a vector holds a number beyond 65,504, which float16 cannot; keep such vectors in float32"
        )
    return rows.set_column(
        position, rows.schema.field(position).with_type(type_), pa.chunked_array(vectors, type_)
    )


def hits_by_query(table: pa.Table, n_queries: int, columns: Sequence[str], k: int) -> list[list[Hit]]:
    """Return the rows of a LanceDB search by query, the most similar first."""
    hits: list[list[Hit]] = [[] for _ in range(n_queries)]
    for row in table.to_pylist():
        distance, query = row.pop("_distance"), row.pop("query_index", 0)
        values = {name: row[name] for name in columns if name != "id"}
        hits[query].append(Hit(row["id"], min(1.0, max(-1.0, 1.0 - distance)), values))
    return [sorted(own, key=lambda hit: (-hit.similarity, hit.id))[:k] for own in hits]


def _cast_vectors(column: pa.Array, dtype: type[np.floating]) -> pa.Array:
    flat: NDArray[np.floating] = column.flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        flat = flat.astype(dtype)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), column.type.list_size)
