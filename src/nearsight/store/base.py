"""The protocol of a store: rows with vectors, behind which engines are exchangeable."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearsight.errors import RowsRefusedError, VectorError
from nearsight.store.filters.ast import Filter
from nearsight.text_format import count

#: The types that a number of a stored vector can have.
NUMBER_TYPES = {"float32": pa.float32(), "float16": pa.float16()}
# Rows that are named in a message.
_MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class Hit:
    """A row of a search result.

    Attributes
    ----------
    id : str
        Key of the row.
    similarity : float
        Cosine in -1..1; higher is closer.
    row : dict
        The other columns of the search.
    """

    id: str
    similarity: float
    row: dict[str, Any]


@runtime_checkable
class VectorStore(Protocol):
    """Rows keyed by ``id`` with one ``vector`` each; every write is durable when the call returns.

    The store knows columns, not images. Vectors are float32 and finite, and compared by cosine.
    The next call sees rows that another process has written. Small maintenance happens after each write;
    `maintain` does the larger jobs that are due.

    Every method raises StorageError if the disk refuses, and VectorError for invalid vectors, rows or k. An
    engine that cannot hold every row raises RowsRefusedError, which names those rows, before it writes any.
    """

    @property
    def schema(self) -> pa.Schema:
        """The current columns."""
        ...

    @property
    def version(self) -> int:
        """Grows with every change by any process; maintenance may count as one."""
        ...

    @property
    def revision(self) -> str:
        """Names the current version; no other version has the same, and none of another store."""
        ...

    def count(self, where: Filter | None = None) -> int:
        """Return the number of rows."""
        ...

    def scan(
        self, columns: Sequence[str], where: Filter | None = None, *, ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream `columns` of the rows that match `where` and have one of `ids`, in bounded memory.

        The order is the engine's; ids that do not exist are ignored.
        """
        ...

    def append(self, rows: pa.Table) -> None:
        """Add rows whose ids are new; the caller holds the write lock and has checked that they are.

        Missing columns become null. Few large calls are cheaper than many small ones.
        """
        ...

    def update(self, rows: pa.Table) -> None:
        """Overwrite the given columns of the rows with these ids, in one transaction.

        The caller holds the write lock. Ids that do not exist are ignored.
        """
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows; return how many there were."""
        ...

    def add_columns(self, columns: Sequence[pa.Field]) -> None:
        """Add nullable columns, except those that exist with the same type.

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

        With `where`, the k nearest among the rows that match; fewer only if fewer match. With `exact`, no
        index is used.
        """
        ...

    def maintain(self) -> None:
        """Do the maintenance that is due; call it after writing, without the write lock.

        It takes about a millisecond if nothing is due. A full disk or another process at the same work is no
        error: the next call tries again.
        """
        ...

    def optimize(self) -> None:
        """Do all maintenance now: compact, index, delete old versions.

        It needs bounded memory, and rewrites in proportion to what is new since the last time. It raises
        StorageError before a step for which memory or the disk does not suffice.
        """
        ...


def check_queries(vectors: NDArray[np.float32], k: int, dim: int) -> NDArray[np.float32]:
    """Return the queries as (n, dim) float32, or raise `VectorError` for invalid ones or an invalid k."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise VectorError(f"k is {k!r}: ask for a whole number of neighbors, 1 or more.")
    queries = np.asarray(vectors, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise VectorError(f"the query vectors have shape {queries.shape}; this collection needs (n, {dim}).")
    _check_values(queries, "query vector")
    return np.ascontiguousarray(queries)


def check_rows(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return `rows` with the types and the order of `schema`, or raise `VectorError`."""
    unknown = [name for name in rows.column_names if name not in schema.names]
    if unknown or len(set(rows.column_names)) != len(rows.column_names):
        raise VectorError(
            f"columns {unknown or rows.column_names} do not fit the table, which has {schema.names}."
        )
    columns = pa.schema([schema.field(name) for name in schema.names if name in rows.column_names])
    if "id" not in columns.names:
        raise VectorError("the rows have no column 'id', which names them.")
    if "vector" in columns.names:
        _check_vectors(rows["vector"], columns.field("vector").type)
    if rows["id"].null_count:
        raise VectorError("some rows have no id.")
    try:
        rows = rows.select(columns.names).cast(columns)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise VectorError(f"the rows do not fit the table's types: {error}.") from error
    if pc.count_distinct(rows["id"]).as_py() != rows.num_rows:
        raise VectorError("several rows have the same id; give each id once.")
    return rows


def require_accepted(engine: str, reasons: Mapping[str, str], remedy: str = "") -> None:
    """Raise `RowsRefusedError` if an engine has a reason, by id, not to hold a row."""
    if reasons:
        named = [f"{id}: {reason}" for id, reason in list(reasons.items())[:_MAX_NAMED]]
        more = ["..."] if len(reasons) > _MAX_NAMED else []
        raise RowsRefusedError(
            f"{engine} cannot hold {count(len(reasons), 'image')}: {'; '.join([*named, *more])}"
            f"{remedy and f'. {remedy}'}",
            reasons,
        )


def append_accepted(store: VectorStore, rows: pa.Table) -> dict[str, str]:
    """Append the rows that a store can hold; return why it refuses the others, by id."""
    refused: dict[str, str] = {}
    while rows.num_rows:
        try:
            store.append(rows)
            return refused
        except RowsRefusedError as error:  # noqa: PERF203 - twice at most
            kept = rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(list(error.reasons), pa.string()))))
            if kept.num_rows == rows.num_rows:
                raise
            refused |= error.reasons
            rows = kept
    return refused


def _check_vectors(column: pa.ChunkedArray, type_: pa.DataType) -> None:
    if not pa.types.is_fixed_size_list(column.type) or column.type.list_size != type_.list_size:
        raise VectorError(f"the vectors are {column.type}; this collection needs {type_}.")
    if column.null_count:
        raise VectorError("some rows have no vector.")
    for chunk in column.chunks:
        values = chunk.flatten()
        if values.null_count:
            raise VectorError("some vectors have missing values.")
        _check_values(np.asarray(values).reshape(len(chunk), type_.list_size), "vector")


def _check_values(vectors: NDArray[np.float32], what: str) -> None:
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    invalid = np.flatnonzero(~np.isfinite(squares) | (squares == 0))
    if len(invalid):
        raise VectorError(
            f"{what} {invalid[0]} is all zeros or holds NaN or infinity: it has no direction to compare. "
            "The model or its input is at fault; leave that row out."
        )
