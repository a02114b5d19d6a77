"""Write a collection to a file for other tools, streamed, whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nearsight.artifacts import exported, write_npz
from nearsight.collection import schema as row_schema
from nearsight.errors import InvalidParameterError
from nearsight.images import decode_path
from nearsight.store import Filter, VectorStore
from nearsight.text_format import csv_cell, csv_row


def export(store: VectorStore, file: Path, where: Filter | None, facts: Mapping[str, str]) -> int:
    """Write rows to a ``.parquet``, ``.npz`` or ``.csv`` file; return the number of rows.

    Parquet holds every column but the thumbnails, metadata under ``metadata.KEY``, and the facts in the
    file's own metadata. npz holds ``vectors`` (n, dim) float32, ``ids``, ``paths``, and the facts. CSV holds
    ``path`` and the metadata, as ``nearsight index --metadata`` reads it.
    """
    if file.suffix.lower() == ".parquet":
        return _parquet(store, file, where, facts)
    if file.suffix.lower() == ".csv":
        return _csv(store, file, where)
    if file.suffix.lower() != ".npz":
        raise InvalidParameterError(f"cannot export to {file}: the name must end in .parquet, .npz or .csv")
    chunks = (
        (
            batch.column("id").to_pylist(),
            [decode_path(path) for path in batch.column("path").to_pylist()],
            batch.column("vector").flatten().to_numpy(zero_copy_only=False),
        )
        for batch in store.scan(["id", "path", "vector"], where)
    )
    return write_npz(file, store.schema.field("vector").type.list_size, chunks, facts)


def _parquet(store: VectorStore, file: Path, where: Filter | None, facts: Mapping[str, str]) -> int:
    columns = [name for name in store.schema.names if name not in ("thumbnail", "keys", "stamps")]
    schema = pa.schema(
        [store.schema.field(column).with_name(_public_name(column)) for column in columns],
        metadata={f"nearsight.{key}": value for key, value in facts.items()},
    )
    n_rows = 0
    with exported(file) as handle, pq.ParquetWriter(handle, schema) as writer:
        for batch in store.scan(columns, where):
            n_rows += len(batch)
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
    return n_rows


def _csv(store: VectorStore, file: Path, where: Filter | None) -> int:
    columns = row_schema.metadata_columns(store.schema)
    n_rows = 0
    with exported(file) as handle:
        handle.write(csv_row(["path", *(column.removeprefix(row_schema.PREFIX) for column in columns)]))
        for batch in store.scan(["path", *columns], where):
            for row in batch.to_pylist():
                n_rows += 1
                handle.write(csv_row([decode_path(row["path"]), *(csv_cell(row[c]) for c in columns)]))
    return n_rows


def _public_name(column: str) -> str:
    return (
        f"metadata.{column.removeprefix(row_schema.PREFIX)}"
        if column.startswith(row_schema.PREFIX)
        else column
    )
