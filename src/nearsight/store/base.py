"""What a collection asks of the engine below it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearsight.errors import VectorError
from nearsight.store.filters.ast import Filter

#: The types that a number of a stored vector can have.
NUMBER_TYPES = {"float32": pa.float32(), "float16": pa.float16()}


@dataclass(frozen=True, slots=True)
class Hit:
    """One row found by similarity.

    Attributes
    ----------
    id : str
        Key of the row.
    similarity : float
        Cosine in -1..1; higher is closer.
    row : dict
        The other columns that were asked for.
    """

    id: str
    similarity: float
    row: dict[str, Any]


@runtime_checkable
class VectorStore(Protocol):
    """Rows keyed by ``id`` with one ``vector`` each; every write is durable when the call returns.

    The store knows columns, not images. Vectors are float32 and finite, and compared by cosine.
    Rows written by another process are seen by the next call. Writing keeps the table tidy as it
    goes; `maintain` does the larger jobs that have become due.

    Every method raises StorageError when the disk refuses, and VectorError for vectors, rows or
    numbers that cannot be.
    """

    @property
    def schema(self) -> pa.Schema:
        """Columns as they are now."""
        ...

    @property
    def version(self) -> int:
        """Grows with every change, by whichever process; housekeeping may count as one."""
        ...

    def count(self, where: Filter | None = None) -> int:
        """Return the number of rows."""
        ...

    def scan(
        self, columns: Sequence[str], where: Filter | None = None, *, ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream `columns` of all rows, of those that match, of those named, or both, in bounded memory.

        The order is the engine's; ids that do not exist are passed over.
        """
        ...

    def append(self, rows: pa.Table) -> None:
        """Add rows whose ids are new (the caller holds the write lock and has looked).

        Columns that are left out become null. Few large calls are cheaper than many small ones.
        """
        ...

    def update(self, rows: pa.Table) -> None:
        """Overwrite the given columns of the rows with these ids, in one transaction.

        The caller holds the write lock. Ids that do not exist are passed over.
        """
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows; return how many there were."""
        ...

    def add_columns(self, columns: Sequence[pa.Field]) -> None:
        """Add nullable columns; those that exist with the same type already are left alone.

        Raises
        ------
        MetadataError
            If a column exists with another type.
        """
        ...

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        *,
        where: Filter | None = None,
        columns: Sequence[str] = (),
        exact: bool = False,
    ) -> list[list[Hit]]:
        """Return for each of the (n, d) vectors its k nearest rows, the most similar first.

        With `where`, the k nearest among the rows that match: fewer only if fewer match.
        `exact` compares with every row, whatever index there is.
        """
        ...

    def maintain(self) -> None:
        """Do the housekeeping that is due, if any; call it after writing, without the write lock.

        Costs about a millisecond when nothing is due. Never raises for want of disk space or because
        another process is at it: the next call tries again.
        """
        ...

    def optimize(self) -> None:
        """Do all housekeeping now: compact, index, drop old versions."""
        ...


def check_queries(vectors: NDArray[np.float32], k: int, dim: int) -> NDArray[np.float32]:
    """Return the (n, dim) float32 queries, or say what is wrong with them or with k."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise VectorError(f"k is {k!r}: ask for a whole number of neighbors, 1 or more.")
    queries = np.asarray(vectors, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise VectorError(f"the query vectors have shape {queries.shape}; this collection needs (n, {dim}).")
    _check_values(queries, "query vector")
    return np.ascontiguousarray(queries)


def check_rows(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return `rows` with the types of `schema`, in its order, or say what is wrong with them."""
    unknown = [name for name in rows.column_names if name not in schema.names]
    if unknown or len(set(rows.column_names)) != len(rows.column_names):
        raise VectorError(
            f"columns {unknown or rows.column_names} do not fit the table, which has {schema.names}."
        )
    wanted = pa.schema([schema.field(name) for name in schema.names if name in rows.column_names])
    if "id" not in wanted.names:
        raise VectorError("the rows have no column 'id', which names them.")
    if "vector" in wanted.names:
        _check_vectors(rows["vector"], wanted.field("vector").type)
    if rows["id"].null_count:
        raise VectorError("some rows have no id.")
    try:
        rows = rows.select(wanted.names).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise VectorError(f"the rows do not fit the table's types: {error}.") from error
    if pc.count_distinct(rows["id"]).as_py() != rows.num_rows:
        raise VectorError("several rows have the same id; give each id once.")
    return rows


def _check_vectors(column: pa.ChunkedArray, wanted: pa.DataType) -> None:
    if not pa.types.is_fixed_size_list(column.type) or column.type.list_size != wanted.list_size:
        raise VectorError(f"the vectors are {column.type}; this collection needs {wanted}.")
    if column.null_count:
        raise VectorError("some rows have no vector.")
    for chunk in column.chunks:
        values = chunk.flatten()
        if values.null_count:
            raise VectorError("some vectors have missing values.")
        _check_values(np.asarray(values).reshape(len(chunk), wanted.list_size), "vector")


def _check_values(vectors: NDArray[np.float32], what: str) -> None:
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(squares) | (squares == 0))
    if len(wrong):
        raise VectorError(
            f"{what} {wrong[0]} is all zeros or holds NaN or infinity: it has no direction to compare. "
            "The model or its input is at fault; leave that row out."
        )
