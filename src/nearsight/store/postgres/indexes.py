"""Indexes: of vectors by pgvector or VectorChord, and of metadata for filters."""

import hashlib
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from nearsight.errors import StorageError
from nearsight.store.postgres.connection import ConnectionPool, unhurried
from nearsight.store.postgres.sql import MAX_NAME_BYTES, TEXT, name_sql, type_sql
from nearsight.store.postgres.tables import Tables, row_fields

#: Fewer rows are compared one by one, so that an index would not be used.
MIN_INDEXED_ROWS = 20_000
#: What pgvector can index; beyond, searches compare all.
MAX_DIM = 4000
_M, _EF_CONSTRUCTION = 16, 64
_MAX_BUILD_MEMORY_MB = 2048
# Metadata, and what filters compare most; anything else is found by reading the narrow rows.
_FILTERED = ("path", "added", "taken")
# From this many rows on, VectorChord divides them into lists.
_LISTED_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """An index of vectors.

    Attributes
    ----------
    name : {"hnsw", "vchordrq"}
        pgvector's graph, or VectorChord's quantized lists.
    dim : int
        Of the vectors.
    casts : bool
        Whether the index is of the vectors cast to float16.
    probes : str
        How many lists of VectorChord are searched; empty if there are none.
    n_rows : float
        Rows of the table, as the server estimates them.
    """

    name: str
    dim: int
    casts: bool
    probes: str = ""
    n_rows: float = 0

    def expression(self, table: str = "") -> str:
        """Return what is indexed, of a table whose name ends in a dot."""
        column = f'{table}"vector"'
        return f"({column}::halfvec({self.dim}))" if self.casts else column

    def create(self, name: str, tables: Tables, n_rows: int) -> str:
        """Return the statement that makes the index without keeping writers out."""
        options = f"m = {_M}, ef_construction = {_EF_CONSTRUCTION}"
        if self.name == "vchordrq":
            n_lists = round(4 * math.sqrt(n_rows)) if n_rows >= _LISTED_ROWS else 0
            lists = f"[{n_lists}]" if n_lists else "[]"
            internal = f"[build.internal]\nlists = {lists}\nspherical_centroids = true"
            options = f"options = $$residual_quantization = true\n{internal}$$"
        return (
            f"CREATE INDEX CONCURRENTLY {name_sql(name)} ON {tables.vectors} USING {self.name}"
            f" ({self.expression()} halfvec_cosine_ops) WITH ({options})"
        )


def vector_method(connection: Any, tables: Tables) -> VectorIndex | None:
    """Return the index of vectors that is there and valid."""
    row = connection.execute(
        "SELECT a.amname, pg_get_indexdef(i.indexrelid), i.indexrelid::regclass::text, t.reltuples,"
        " (SELECT atttypmod FROM pg_attribute WHERE attrelid = i.indrelid AND attname = 'vector')"
        " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam"
        " JOIN pg_class t ON t.oid = i.indrelid"
        " WHERE i.indrelid = to_regclass(%s) AND a.amname IN ('hnsw', 'vchordrq') AND i.indisvalid"
        " ORDER BY a.amname DESC LIMIT 1",
        (tables.vectors,),
    ).fetchone()
    if row is None:
        return None
    n_lists = round(4 * math.sqrt(row[3])) if row[3] >= _LISTED_ROWS else 0
    probes = str(max(10, n_lists // 10)) if row[0] == "vchordrq" and n_lists else ""
    return VectorIndex(row[0], int(row[4]), "::halfvec" in row[1], probes, row[3])


class Indexes:
    """The indexes of one store.

    Parameters
    ----------
    database : ConnectionPool
    tables : Tables
    """

    def __init__(self, database: ConnectionPool, tables: Tables) -> None:
        self._database = database
        self._tables = tables

    def maintain(self, schema: pa.Schema) -> None:
        """Make indexes that are missing; what fails is tried again by the next call."""
        with suppress(StorageError):
            self._database.retried(lambda connection: self._make(connection, schema))

    def optimize(self, schema: pa.Schema) -> None:
        """Make indexes that are missing, and let the server clean up and count."""
        self._database.retried(lambda connection: self._make(connection, schema))

        def clean(connection: Any) -> None:
            with unhurried(connection):
                for table in (self._tables.rows, self._tables.vectors, self._tables.binary):
                    connection.execute(f"VACUUM (ANALYZE) {table}")

        self._database.retried(clean)

    def _make(self, connection: Any, schema: pa.Schema) -> None:
        missing = self.missing(connection, schema)
        if not missing:
            return
        # One process makes them; the others go on without.
        key = "hashtextextended(%s, 0)"
        if not connection.execute(f"SELECT pg_try_advisory_lock({key})", (self._tables.vectors,)).fetchone()[
            0
        ]:
            return
        try:
            for name, statement in self.missing(connection, schema).items():
                # What an interrupted call has left is not valid.
                connection.execute(f"DROP INDEX IF EXISTS {name_sql(self._tables.schema)}.{name_sql(name)}")
                self._build(connection, statement())
            for table in (self._tables.rows, self._tables.vectors):
                connection.execute(f"ANALYZE {table}")
        finally:
            connection.execute(f"SELECT pg_advisory_unlock({key})", (self._tables.vectors,))

    def _build(self, connection: Any, statement: str) -> None:
        """Run a statement with as much memory as the server has been given, or as an index needs."""
        [megabytes] = connection.execute(
            "SELECT setting::bigint / 1024 FROM pg_settings WHERE name = 'maintenance_work_mem'"
        ).fetchone()
        [size] = connection.execute(
            "SELECT pg_total_relation_size(to_regclass(%s)) / 1048576", (self._tables.vectors,)
        ).fetchone()
        wanted = max(int(megabytes), min(_MAX_BUILD_MEMORY_MB, 64 + 2 * int(size)))
        connection.execute("SELECT set_config('maintenance_work_mem', %s, false)", (f"{wanted}MB",))
        try:
            with unhurried(connection):
                connection.execute(statement)
        finally:
            if not connection.closed:
                connection.execute("RESET maintenance_work_mem")

    def missing(self, connection: Any, schema: pa.Schema) -> dict[str, Callable[[], str]]:
        """Return the indexes that are missing, and how to make the statement of each."""
        row = connection.execute(
            "SELECT array(SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE i.indrelid = ANY(ARRAY[to_regclass(%s), to_regclass(%s)]::oid[]) AND i.indisvalid),"
            f" (SELECT count(*) FROM (SELECT 1 FROM {self._tables.rows} LIMIT {MIN_INDEXED_ROWS + 1}) AS s),"
            " EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'vchord')",
            (self._tables.rows, self._tables.vectors),
        ).fetchone()
        present, n_rows, has_vchord = set(row[0]), int(row[1]), bool(row[2])
        if n_rows <= MIN_INDEXED_ROWS:
            return {}
        missing: dict[str, Callable[[], str]] = {}
        for field in row_fields(schema):
            if field.name in _FILTERED or field.name.startswith("meta_"):
                # By the number of the column, because its name may be longer than a name may be.
                name = index_name(self._tables.names[0], f"c{schema.get_field_index(field.name)}")
                if name not in present:
                    missing[name] = _filter_index(name, self._tables, field)
        vector = schema.field("vector").type
        name = index_name(self._tables.names[1], "knn")
        if name not in present and vector.list_size <= MAX_DIM:
            method = VectorIndex(
                "vchordrq" if has_vchord else "hnsw", vector.list_size, vector.value_type != pa.float16()
            )

            def make_vectors() -> str:
                [n] = connection.execute(f"SELECT count(*) FROM {self._tables.rows}").fetchone()
                return method.create(name, self._tables, int(n))

            missing[name] = make_vectors
        return missing


def index_name(table: str, ending: str) -> str:
    """Return the name of an index of a table, which is one for each table and ending.

    PostgreSQL cuts a name after 63 bytes; an upgrade makes those of its tables longer.

    >>> index_name("photos", "c7")
    'photos.c7'
    >>> len(index_name("p" * 60, "knn"))
    44
    """
    name = f"{table}.{ending}"
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    return f"{hashlib.sha256(table.encode()).hexdigest()[:40]}.{ending}"


def _filter_index(name: str, tables: Tables, field: pa.Field) -> Callable[[], str]:
    # A text may be too long for a B-tree.
    method = "hash" if type_sql(field) == TEXT else "btree"
    column = name_sql(field.name)
    return lambda: f"CREATE INDEX CONCURRENTLY {name_sql(name)} ON {tables.rows} USING {method} ({column})"
