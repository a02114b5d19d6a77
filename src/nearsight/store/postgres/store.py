"""A store in PostgreSQL: a `VectorStore` whose tables any number of processes share."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.errors import CollectionNotFoundError, MetadataError, VectorError
from nearsight.store.base import Hit, check_queries, check_rows
from nearsight.store.filters.ast import Filter
from nearsight.store.location import StoreCheck
from nearsight.store.postgres import connection as connections
from nearsight.store.postgres import vectors
from nearsight.store.postgres.checks import check_collection
from nearsight.store.postgres.connection import ConnectionPool, LostConnectionError
from nearsight.store.postgres.indexes import Indexes
from nearsight.store.postgres.search import Search
from nearsight.store.postgres.sql import filter_sql, in_query, name_sql, type_sql
from nearsight.store.postgres.tables import (
    ROW,
    Tables,
    array_of,
    binary_fields,
    copy_in,
    renamings,
    require_texts,
    row_fields,
)

if TYPE_CHECKING:
    from nearsight.store.postgres.location import CollectionLock

T = TypeVar("T")

# Rows of a batch: narrow, with vectors, and with binary columns.
_NARROW_ROWS, _VECTOR_ROWS, _BINARY_ROWS = 4096, 1024, 512
_IDS_PER_LOOKUP = 1000


class PostgresStore:
    """A VectorStore in three tables of a database. `PostgresLocation` opens and creates it.

    Each write is one transaction, and each counts up the version in the store's entry: so writers take turns,
    and a write whose answer was lost is known to have been done.

    Parameters
    ----------
    database : ConnectionPool
    lock : CollectionLock
        Of the collection.
    tables : Tables
    stores : str
        The table with the entries of stores.
    id : int
        Of this store's entry.
    """

    def __init__(
        self, database: ConnectionPool, lock: "CollectionLock", tables: Tables, stores: str, id: int
    ) -> None:
        self._database = database
        self._lock = lock
        self._tables = tables
        self._stores = stores
        self._id = id
        self._schemas: tuple[bytes, pa.Schema, pa.Schema] = (b"", pa.schema([]), pa.schema([]))
        self._search = Search(tables)
        self._indexes = Indexes(database, tables)
        self._counts: tuple[int, int] = (-1, 0)
        self._entry(database.retried(self._read_entry))
        if renamed := renamings(self._schemas[1]):
            database.retried(lambda connection: tables.rename_columns(connection, renamed))

    # --- reading ------------------------------------------------------------------------------

    @property
    def schema(self) -> pa.Schema:
        """The current columns, with the vector in float32 whatever is stored."""
        self._entry(self._database.retried(self._read_entry))
        return self._schemas[2]

    @property
    def stored_schema(self) -> pa.Schema:
        """The current columns, with the vector as it is stored."""
        self._entry(self._database.retried(self._read_entry))
        return self._schemas[1]

    @property
    def version(self) -> int:
        """Grows with every change by any process."""
        version, _, _ = self._database.retried(self._read_entry)
        return version

    @property
    def revision(self) -> str:
        """Names the current version; see VectorStore."""
        version, _, incarnation = self._database.retried(self._read_entry)
        return f"{version}-{incarnation}"

    def _read_entry(self, connection: Any) -> tuple[int, bytes, uuid.UUID]:
        row = connection.execute(
            f"SELECT version, arrow_schema, incarnation FROM {self._stores} WHERE id = %s", (self._id,)
        ).fetchone()
        if row is None:
            raise CollectionNotFoundError(
                f"{self._database.address.shown}: the collection was deleted, or made anew; open it again"
            )
        return int(row[0]), bytes(row[1]), row[2]

    def _entry(self, entry: tuple[int, bytes, uuid.UUID]) -> None:
        """Follow the columns; as long as they are the same, so is the object."""
        if entry[1] == self._schemas[0]:
            return
        stored = pa.ipc.read_schema(pa.py_buffer(entry[1]))
        position = stored.get_field_index("vector")
        vector = stored.field(position)
        public = stored.set(position, vector.with_type(pa.list_(pa.float32(), vector.type.list_size)))
        self._schemas = (entry[1], stored, public)

    def _condition(self, connection: Any, where: Filter | None) -> str | None:
        return filter_sql(where, self._search.case_collation(connection)) if where else None

    def count(self, where: Filter | None = None) -> int:
        """Return the number of rows."""

        def counted(connection: Any) -> int:
            condition = self._condition(connection, where)
            query = f"SELECT count(*) FROM {self._tables.rows}" + (f" WHERE {condition}" if condition else "")
            return int(connection.execute(query).fetchone()[0])

        return self._database.retried(counted)

    def scan(
        self, columns: Sequence[str], where: Filter | None = None, *, ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream `columns` in the order that the rows came in; see VectorStore.

        Each batch is a query of its own, so no transaction stays open while the caller works.
        """
        schema = self.schema
        fields = [schema.field(name) for name in columns]
        if ids is not None:
            unique = list(dict.fromkeys(ids))
            for start in range(0, len(unique), _IDS_PER_LOOKUP):
                some = unique[start : start + _IDS_PER_LOOKUP]
                yield from self._scan(fields, where, some)
            return
        yield from self._scan(fields, where, None)

    def _scan(
        self, fields: Sequence[pa.Field], where: Filter | None, ids: list[str] | None
    ) -> Iterator[pa.RecordBatch]:
        last, end = -1, self._database.retried(self._next_row)
        n_rows = _batch_rows(fields)
        while True:

            def read(connection: Any, last: int = last) -> list[tuple[Any, ...]]:
                condition = self._condition(connection, where)
                query = self._batch_query(fields, condition, ids is not None)
                values = [last, end, *([ids] if ids is not None else []), n_rows]
                with connection.cursor(binary=True) as cursor:
                    return list(cursor.execute(query, values).fetchall())

            rows = self._database.retried(read)
            if rows:
                yield self._batch(fields, rows)
                last = rows[-1][0]
            if len(rows) < n_rows:
                return

    def _next_row(self, connection: Any) -> int:
        query = f"SELECT next_row FROM {self._stores} WHERE id = %s"
        row = connection.execute(query, (self._id,)).fetchone()
        return int(row[0]) if row else 0

    def _batch_query(self, fields: Sequence[pa.Field], condition: str | None, by_ids: bool) -> str:
        names = [in_query(name_sql(field.name)) for field in fields]
        kinds = {_kind(field) for field in fields}
        joined = self._tables.rows
        joined += f" JOIN {self._tables.vectors} USING ({ROW})" if "vector" in kinds else ""
        joined += f" LEFT JOIN {self._tables.binary} USING ({ROW})" if "binary" in kinds else ""
        where = f"{ROW} > %s AND {ROW} < %s"
        where += ' AND "id" = ANY(%s)' if by_ids else ""
        where += f" AND {in_query(condition)}" if condition else ""
        return f"SELECT {', '.join([ROW, *names])} FROM {joined} WHERE {where} ORDER BY {ROW} LIMIT %s"

    def _batch(self, fields: Sequence[pa.Field], rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
        stored = self._schemas[1].field("vector").type
        columns = list(zip(*rows, strict=True))[1:]
        arrays = [
            vectors.read(values, stored) if field.name == "vector" else array_of(values, field.type)
            for field, values in zip(fields, columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        *,
        where: Filter | None = None,
        columns: Sequence[str] = (),
        exact: bool = False,
    ) -> list[list[Hit]]:
        """Return the k nearest rows of each vector; see VectorStore."""
        entry = self._database.retried(self._read_entry)
        self._entry(entry)
        stored, public = self._schemas[1], self._schemas[2]
        queries = check_queries(vectors, k, stored.field("vector").type.list_size)
        wanted = [name for name in dict.fromkeys(columns) if name != "id"]
        narrow = [public.field(name) for name in wanted if _kind(public.field(name)) == "row"]

        def searched(connection: Any) -> list[list[Hit]]:
            condition = self._condition(connection, where)
            return self._search.nearest(
                connection, queries, k, stored.field("vector").type, condition, narrow, entry[0], exact=exact
            )

        hits = self._database.retried(searched)
        others = [name for name in wanted if _kind(public.field(name)) != "row"]
        return self._completed(hits, others) if others else hits

    def _completed(self, hits: list[list[Hit]], columns: list[str]) -> list[list[Hit]]:
        """Return hits with columns of the other tables."""
        ids = list({hit.id for own in hits for hit in own})
        rows = {
            row.pop("id"): row for batch in self.scan(["id", *columns], ids=ids) for row in batch.to_pylist()
        }
        empty = dict.fromkeys(columns)
        return [
            [Hit(hit.id, hit.similarity, {**hit.row, **rows.get(hit.id, empty)}) for hit in own]
            for own in hits
        ]

    # --- writing ------------------------------------------------------------------------------

    def _write(self, work: Callable[[Any, int], T], n_rows: int = 0) -> T:
        """Return what `work` returns in a transaction; `work` gets the first of `n_rows` new row numbers.

        A connection that was lost is made anew, and the work is done again, unless it was done already.
        """
        token, version = uuid.uuid4(), 0
        results: list[T] = []
        for pause in (*connections.PAUSES_S, None):
            try:
                with self._database.connection() as connection:
                    if not (results and self._is_last_write(connection, token)):
                        with connection.transaction():
                            version, end = self._begin(connection, token, n_rows)
                            results.append(work(connection, end - n_rows))
                self._database.held.versions = {**self._database.held.versions, self._id: version}
                return results[-1]
            except LostConnectionError:  # noqa: PERF203 - a few times, with pauses between
                if pause is None:
                    raise
                time.sleep(pause)
                if self._database.held.connection is not None:
                    self._lock.renew(token)
        raise AssertionError

    def _begin(self, connection: Any, token: uuid.UUID, n_rows: int) -> tuple[int, int]:
        """Count up the version first: other writers wait here until the transaction ends."""
        row = connection.execute(
            f"UPDATE {self._stores} SET version = version + 1, last_write = %s, next_row = next_row + %s"
            " WHERE id = %s RETURNING version, next_row",
            (token, n_rows, self._id),
        ).fetchone()
        if row is None:
            raise CollectionNotFoundError(
                f"{self._database.address.shown}: the collection was deleted, or made anew; open it again"
            )
        return int(row[0]), int(row[1])

    def _is_last_write(self, connection: Any, token: uuid.UUID) -> bool:
        query = f"SELECT last_write = %s FROM {self._stores} WHERE id = %s"
        row = connection.execute(query, (token, self._id)).fetchone()
        return bool(row and row[0])

    def append(self, rows: pa.Table) -> None:
        """Add rows; one with the id of a new row is replaced. See VectorStore."""
        schema = self.schema
        rows = check_rows(rows, schema)
        if "vector" not in rows.column_names:
            raise VectorError("the rows have no column 'vector'.")
        if not rows.num_rows:
            return
        require_texts(rows)
        stored = self._schemas[1].field("vector").type
        X = vectors.stored(vectors.matrix(rows["vector"], stored.list_size), stored)
        ids = rows["id"].to_pylist()
        given = [field for field in row_fields(schema) if field.name in rows.column_names]
        binary = [field for field in binary_fields(schema) if field.name in rows.column_names]

        def add(connection: Any, first: int) -> None:
            connection.execute(f'DELETE FROM {self._tables.rows} WHERE "id" = ANY(%s)', (ids,))
            numbers = range(first, first + len(ids))
            copy_in(connection, self._tables.rows, given, numbers, rows)
            statement = f'COPY {self._tables.vectors} ({ROW}, "vector") FROM STDIN (FORMAT BINARY)'
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(vectors.copy_rows(numbers, X, stored))
            if binary:
                copy_in(connection, self._tables.binary, binary, numbers, rows)

        self._write(add, len(ids))

    def update(self, rows: pa.Table) -> None:
        """Overwrite the given columns of some rows; see VectorStore."""
        schema = self.schema
        rows = check_rows(rows, schema)
        if not rows.num_rows or rows.num_columns == 1:
            return
        require_texts(rows)
        given = [schema.field(name) for name in rows.column_names if name not in ("id", "vector")]
        stored = self._schemas[1].field("vector")
        narrow = [field for field in given if not pa.types.is_binary(field.type)]
        binary = [field for field in given if pa.types.is_binary(field.type)]

        def change(connection: Any, _: int) -> None:
            self._send_changes(connection, rows, given, stored)
            if narrow:
                assigned = ", ".join(f"{name_sql(f.name)} = c.{name_sql(f.name)}" for f in narrow)
                connection.execute(
                    f'UPDATE {self._tables.rows} r SET {assigned} FROM changes c WHERE r."id" = c."id"'
                )
            if "vector" in rows.column_names:
                connection.execute(
                    f'UPDATE {self._tables.vectors} v SET "vector" = x."vector" FROM changed_vectors x'
                    f' JOIN changes c ON c.number = x.number JOIN {self._tables.rows} r ON r."id" = c."id"'
                    f" WHERE v.{ROW} = r.{ROW}"
                )
            if binary:
                names = [name_sql(field.name) for field in binary]
                assigned = ", ".join(f"{name} = EXCLUDED.{name}" for name in names)
                connection.execute(
                    f"INSERT INTO {self._tables.binary} ({', '.join([ROW, *names])})"
                    f" SELECT r.{ROW}, {', '.join(f'c.{name}' for name in names)} FROM changes c"
                    f' JOIN {self._tables.rows} r ON r."id" = c."id"'
                    f" ON CONFLICT ({ROW}) DO UPDATE SET {assigned}"
                )

        self._write(change)

    def _send_changes(
        self, connection: Any, rows: pa.Table, given: Sequence[pa.Field], stored: pa.Field
    ) -> None:
        """Send rows to tables that end with the transaction."""
        columns = "".join(f", {name_sql(field.name)} {type_sql(field)}" for field in given)
        id_field = pa.field("id", pa.string())
        connection.execute(
            f'CREATE TEMPORARY TABLE changes (number bigint, "id" {type_sql(id_field)}{columns})'
            " ON COMMIT DROP"
        )
        number = pa.field("number", pa.int64())
        numbers = pa.array(range(len(rows)), pa.int64())
        copy_in(connection, "changes", [number, id_field, *given], None, rows.append_column(number, numbers))
        if "vector" in rows.column_names:
            X = vectors.stored(vectors.matrix(rows["vector"], stored.type.list_size), stored.type)
            connection.execute(
                "CREATE TEMPORARY TABLE changed_vectors (number bigint,"
                f' "vector" {type_sql(stored)}) ON COMMIT DROP'
            )
            with (
                connection.cursor() as cursor,
                cursor.copy("COPY changed_vectors FROM STDIN (FORMAT BINARY)") as copy,
            ):
                copy.write(vectors.copy_rows(range(len(X)), X, stored.type))

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows; return how many there were."""
        if not ids:
            return 0
        query = f'DELETE FROM {self._tables.rows} WHERE "id" = ANY(%s)'
        return self._write(lambda connection, _: int(connection.execute(query, (list(ids),)).rowcount))

    def add_columns(self, columns: Sequence[pa.Field]) -> None:
        """Add nullable columns; those that exist with the same type already are left alone."""

        def add(connection: Any, _: int) -> None:
            # Read again: the entry is locked now.
            self._entry(self._read_entry(connection))
            stored = self._schemas[1]
            new = [field.with_nullable(True) for field in _missing(columns, stored)]
            for field in new:
                connection.execute(self._tables.add_column(field))
            schema = pa.schema([*stored, *new])
            connection.execute(
                f"UPDATE {self._stores} SET arrow_schema = %s WHERE id = %s",
                (schema.serialize().to_pybytes(), self._id),
            )

        if _missing(columns, self.stored_schema):
            self._write(add)

    def checks(self) -> Iterator[StoreCheck]:
        """Check rows, indexes and statistics; see CheckedLocation."""
        schema = self.stored_schema
        with self._database.connection() as connection:
            yield from check_collection(connection, self._tables, self._indexes, schema)

    # --- maintenance --------------------------------------------------------------------------

    def maintain(self) -> None:
        """Make indexes that are missing; see VectorStore."""
        self._indexes.maintain(self.stored_schema)

    def optimize(self) -> None:
        """Make the indexes, and let the server clean up what was deleted; see VectorStore."""
        self._indexes.optimize(self.stored_schema)


def _missing(columns: Sequence[pa.Field], schema: pa.Schema) -> list[pa.Field]:
    for field in columns:
        if field.name in schema.names and schema.field(field.name).type != field.type:
            raise MetadataError(
                f"column {field.name!r} holds {schema.field(field.name).type}, not {field.type}. "
                "Use another name, or values of that type."
            )
    return [field for field in columns if field.name not in schema.names]


def _kind(field: pa.Field) -> str:
    """Return which of the tables a column is in."""
    return "vector" if field.name == "vector" else "binary" if pa.types.is_binary(field.type) else "row"


def _batch_rows(fields: Sequence[pa.Field]) -> int:
    kinds = {_kind(field) for field in fields}
    return _BINARY_ROWS if "binary" in kinds else _VECTOR_ROWS if "vector" in kinds else _NARROW_ROWS
