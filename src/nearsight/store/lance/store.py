"""The embedded engine: LanceDB tables, safe to share between processes.

One table holds the rows, another their binary columns (see `binary_columns`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.errors import CollectionNotFoundError, MetadataError, StorageError, VectorError
from nearsight.store.base import Hit, check_queries, check_rows
from nearsight.store.filters.ast import Filter
from nearsight.store.lance import binary_columns, index_reach, maintenance
from nearsight.store.lance.arrow import hits_by_query, is_storable, public_batch, public_schema, stored_rows
from nearsight.store.lance.binary_columns import BinaryColumns, binary_names
from nearsight.store.lance.compaction import Writing
from nearsight.store.lance.engine import import_lancedb, new_session
from nearsight.store.lance.errors import retried, translated
from nearsight.store.lance.index_reach import LocalReachFile, Reach, ReachFile, vector_index
from nearsight.store.lance.nearest import nearest
from nearsight.store.lance.readers_lock import ReadersLock
from nearsight.store.lance.sql import filter_sql, ids_sql
from nearsight.store.lance.table import IDS_PER_LOOKUP, LanceTables, SharedTable
from nearsight.store.lance.upkeep import Upkeep

#: Of the rows.
TABLE = "pictures"
_IN_USE_LOCK, _WRITE_LOCK, _UPKEEP_LOCK = ".in-use.lock", ".write.lock", ".upkeep.lock"
# Rows of a batch, without and with vectors: several batches are in flight at once. With thumbnails it is one,
# and looking up many at once is faster.
_NARROW_BATCH_ROWS, _WIDE_BATCH_ROWS, _BINARY_BATCH_ROWS = 4096, 256, 1024
_QUERIES_PER_CALL = 64


@dataclass(frozen=True, slots=True)
class _Facts:
    """A version as searches see it: `reach` is how far to go with the index, once that is known."""

    version: int
    n_rows: int
    schema: pa.Schema
    index: Any
    reach: Reach | None


class LanceStore:
    """A VectorStore of two LanceDB tables.

    Use `create` or `open`. Threads may share an object, any number of processes may open a directory;
    forked children may not use it.
    """

    def __init__(
        self, rows: SharedTable, binary: BinaryColumns, upkeep: Upkeep, writing: Writing, reach: ReachFile
    ) -> None:
        self._vector_type: pa.DataType = rows.schema.field("vector").type
        self._rows = rows
        self._binary = binary
        self._upkeep = upkeep
        # The write lock: what is written in several steps is seen by other writers as one.
        self._writing = writing
        self._reach = reach
        self._facts: _Facts | None = None

    # --- opening ------------------------------------------------------------------------------

    @classmethod
    def create(cls, directory: Path, schema: pa.Schema) -> "LanceStore":
        """Create a table in `directory`; if there is one with these columns, open that.

        Parameters
        ----------
        directory : Path
            It is made if it does not exist.
        schema : pa.Schema
            With ``id`` (string) and ``vector`` (fixed-size list of float32 or float16) at least.

        Raises
        ------
        StorageError, UnsupportedMachineError
            If the disk refuses, or the processor cannot run the engine.
        """
        if not is_storable(schema):
            raise VectorError(
                f"a table needs columns 'id' (string) and 'vector' (float32[d] or float16[d]), not {schema}."
            )
        tables = _tables(directory, import_lancedb(), "making the collection")
        rows = tables.make(TABLE, schema)
        check_columns(rows, schema, "directory")
        return cls._of(directory, tables, rows)

    @classmethod
    def open(cls, directory: Path) -> "LanceStore":
        """Open the table in `directory`.

        Raises
        ------
        CollectionNotFoundError
            If there is none.
        StorageError, UnsupportedMachineError
            If it cannot be read, or the processor cannot run the engine.
        """
        if not cls.is_at(directory):
            raise CollectionNotFoundError(
                f"{directory}: there is no collection. Check the path, or create one."
            )
        tables = _tables(directory, import_lancedb(), "opening the collection")
        rows = tables.open(TABLE)
        if rows is None:
            raise CollectionNotFoundError(
                f"{directory}: the collection was never finished; delete {directory}, and create it again."
            )
        return cls._of(directory, tables, rows)

    @classmethod
    def _of(cls, directory: Path, tables: LanceTables, rows: SharedTable) -> "LanceStore":
        @contextmanager
        def writing() -> Iterator[None]:
            lock = filelock.FileLock(directory / _WRITE_LOCK, thread_local=False)
            with translated(directory, "waiting for other writers"), lock:
                yield

        @contextmanager
        def maintaining(blocking: bool) -> Iterator[None]:
            lock = filelock.FileLock(directory / _UPKEEP_LOCK, blocking=blocking, thread_local=False)
            with translated(directory, "maintenance"), lock:
                yield

        binary, reach = BinaryColumns(tables), LocalReachFile(directory)
        upkeep = Upkeep(tables, rows, binary, writing, maintaining, reach)
        return cls(rows, binary, upkeep, writing, reach)

    @staticmethod
    def is_at(directory: Path) -> bool:
        """Whether a directory holds the table, finished or not."""
        return (directory / f"{TABLE}.lance").is_dir()

    @staticmethod
    def is_unfinished_at(directory: Path, *, with_rows: bool) -> bool:
        """Whether a directory holds nothing but files of a table; without `with_rows`, one without rows."""
        tables = [f"{TABLE}.lance", f"{binary_columns.TABLE}.lance"]
        known = {*tables, _IN_USE_LOCK, _WRITE_LOCK, _UPKEEP_LOCK, index_reach.FILE}
        if not directory.is_dir() or any(entry.name not in known for entry in directory.iterdir()):
            return False
        data = [directory / table / "data" for table in tables]
        return with_rows or not any(any(folder.iterdir()) for folder in data if folder.is_dir())

    # --- reading ------------------------------------------------------------------------------

    @property
    def schema(self) -> pa.Schema:
        """The current columns, with the vector in float32 whatever is stored."""
        return public_schema(self._rows.schema)

    @property
    def version(self) -> int:
        """Grows with every change, by any process; maintenance may count as one."""
        return self._rows.version + self._binary.version

    @property
    def revision(self) -> str:
        """Names the current version; no other version has the same, and none of another store."""
        return f"{self.version}-{self._rows.digest()}"

    def count(self, where: Filter | None = None) -> int:
        """Return the number of rows."""
        with self._rows.use("counting") as table:
            return int(table.count_rows(filter_sql(where) if where else None))

    def scan(
        self, columns: Sequence[str], where: Filter | None = None, *, ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream `columns`; see VectorStore."""
        condition = filter_sql(where) if where else None
        if ids is None:
            yield from self._scan(columns, condition)
            return
        unique = list(dict.fromkeys(ids))
        for start in range(0, len(unique), IDS_PER_LOOKUP):
            named = ids_sql(unique[start : start + IDS_PER_LOOKUP])
            yield from self._scan(columns, f"{named} AND {condition}" if condition else named)

    def _scan(self, columns: Sequence[str], condition: str | None) -> Iterator[pa.RecordBatch]:
        schema = self._rows.schema
        fields = pa.schema([schema.field(name) for name in columns])
        if not binary_names(fields):
            batch_rows = _WIDE_BATCH_ROWS if "vector" in fields.names else _NARROW_BATCH_ROWS
            yield from map(public_batch, self._rows.stream(columns, condition, batch_rows))
            return
        names = list(dict.fromkeys(["id", *columns]))
        for batch in self._rows.stream(names, condition, _BINARY_BATCH_ROWS):
            yield public_batch(self._binary.filled(batch).select(list(columns)))

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
        queries = check_queries(vectors, k, self._vector_type.list_size)
        condition = filter_sql(where) if where else None
        names = list(dict.fromkeys(["id", *columns]))
        hits: list[list[Hit]] = []
        for start in range(0, len(queries), _QUERIES_PER_CALL):
            block = queries[start : start + _QUERIES_PER_CALL]
            # Another process may delete the version that this one is about to read.
            table = retried(partial(self._nearest, block, k, condition, names, exact), "gone")
            hits += hits_by_query(self._filled(table), len(block), names, k)
        return hits

    def _filled(self, table: pa.Table) -> pa.Table:
        if not binary_names(table.schema) or not table.num_rows:
            return table
        return pa.Table.from_batches([self._binary.filled(table.combine_chunks().to_batches()[0])])

    def _nearest(
        self, queries: NDArray[np.float32], k: int, condition: str | None, columns: list[str], exact: bool
    ) -> pa.Table:
        with self._rows.use_at("searching") as (lance_table, version):
            facts = self._facts_of(lance_table, version)
            if facts.n_rows == 0:
                return facts.schema.empty_table().select(columns)
            files, reach, k = self._rows.files, facts.reach, min(k, facts.n_rows)
            rows = files.at(version, facts.schema) if files is not None else None
            if exact or reach is None or facts.n_rows < maintenance.MIN_INDEXED_ROWS:
                return nearest(lance_table, queries, k, columns, condition=condition, rows=rows)
            if k > index_reach.MAX_K:
                reach = index_reach.FARTHEST
            elif condition:  # that matches few rows, which may lie anywhere
                reach = replace(reach, n_probes=0)
            found = nearest(lance_table, queries, k, columns, condition=condition, reach=reach, rows=rows)
            if reach.n_probes and found.num_rows < k * len(queries):
                found = nearest(lance_table, queries, k, columns, reach=index_reach.FARTHEST, rows=rows)
            return found

    def _facts_of(self, table: Any, version: int) -> "_Facts":
        """Return what searches ask for; computed once per version."""
        facts = self._facts
        if facts is None or facts.version != version:
            index = vector_index(table)
            facts = _Facts(version, int(table.count_rows()), table.schema, index, None)
            self._facts = facts
        if facts.index is not None and facts.reach is None:
            # Measured after the index was built, maybe by another process just now.
            reach = index_reach.read(self._reach, facts.index, facts.n_rows)
            self._facts = replace(facts, reach=reach)
            facts = replace(facts, reach=reach or index_reach.FARTHEST)
        return facts

    # --- writing ------------------------------------------------------------------------------

    def append(self, rows: pa.Table) -> None:
        """Add rows; see VectorStore."""
        schema = self.schema
        rows = check_rows(rows, schema)
        if "vector" not in rows.column_names:
            raise VectorError("the rows have no column 'vector'.")
        if not rows.num_rows:
            return
        separate = binary_names(schema)
        n_bytes = sum(rows[name].nbytes for name in separate if name in rows.column_names)
        if maintenance.is_binary_kept_in_rows(rows.num_rows, n_bytes):
            separate = []
        with self._writing():
            n_binary = self._binary.append(rows) if separate else 0
            columns = [
                rows[field.name]
                if field.name in rows.column_names and field.name not in separate
                else pa.nulls(rows.num_rows, field.type)
                for field in schema
            ]
            self._rows.add(stored_rows(pa.table(columns, schema=schema), self._vector_type))
            self._upkeep.after_append(rows.num_rows, n_binary)
        self._upkeep.after_writing(rows.num_rows)

    def update(self, rows: pa.Table) -> None:
        """Overwrite the given columns of some rows; see VectorStore."""
        schema = self.schema
        rows = check_rows(rows, schema)
        if not rows.num_rows or rows.num_columns == 1:
            return
        binary = binary_names(rows.schema)
        with self._writing():
            if binary:
                self._update_binary(rows.select(["id", *binary]))
                rows = rows.drop_columns(binary)
            n_moved = self._update_rows(rows, schema) if rows.num_columns > 1 else 0
        self._upkeep.after_writing(n_moved)

    def _update_binary(self, rows: pa.Table) -> None:
        exists = {
            id for batch in self.scan(["id"], ids=rows["id"].to_pylist()) for id in batch["id"].to_pylist()
        }
        rows = rows.filter(pa.array([id in exists for id in rows["id"].to_pylist()], pa.bool_()))
        if rows.num_rows:
            self._binary.update(rows)

    def _update_rows(self, rows: pa.Table, schema: pa.Schema) -> int:
        """Update the table of rows; return how many rows moved to a new fragment."""
        with self._rows.use("updating rows") as table:
            stats = table.stats()
            in_place = maintenance.is_update_in_place_cheaper(
                n_rows=stats["num_rows"],
                n_updated=rows.num_rows,
                row_bytes=stats["total_bytes"] / max(1, stats["num_rows"]),
                updated_bytes=rows.nbytes / rows.num_rows,
            )
        if not in_place:
            rows = self._completed(rows, schema)
        if not rows.num_rows:
            return 0
        rows = stored_rows(rows, self._vector_type)
        self._rows.merge(lambda: rows, "updating rows")
        n_moved = 0 if in_place else rows.num_rows
        self._upkeep.after_append(n_moved, 0)
        return n_moved

    def _completed(self, rows: pa.Table, schema: pa.Schema) -> pa.Table:
        """Return the rows that exist, with their other columns read from the table."""
        ids = rows["id"].to_pylist()
        others = [name for name in schema.names if name == "id" or name not in rows.column_names]
        conditions = [ids_sql(ids[at : at + IDS_PER_LOOKUP]) for at in range(0, len(ids), IDS_PER_LOOKUP)]
        batches = [
            public_batch(batch)
            for condition in conditions
            for batch in self._rows.stream(others, condition, _WIDE_BATCH_ROWS)
        ]
        if not batches:
            return rows.slice(0, 0)
        joined = pa.Table.from_batches(batches)
        positions = {id: position for position, id in enumerate(ids)}
        updated = rows.take([positions[id] for id in joined["id"].to_pylist()])
        return pa.table(
            [(updated if name in updated.column_names else joined)[name] for name in schema.names],
            schema=schema,
        )

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows; return how many there were."""
        with self._writing():
            n_deleted = self._rows.delete(ids)
            # Last: a row without its values would be worse than values without a row.
            self._binary.delete(ids)
        return n_deleted

    def add_columns(self, columns: Sequence[pa.Field]) -> None:
        """Add nullable columns; those that exist with the same type already are left alone."""
        with self._rows.use("adding columns") as table:
            schema = table.schema
            for field in columns:
                if field.name in schema.names and schema.field(field.name).type != field.type:
                    raise MetadataError(
                        f"column {field.name!r} holds {schema.field(field.name).type}, not {field.type}. "
                        "Use another name, or values of that type."
                    )
            new = [field.with_nullable(True) for field in columns if field.name not in schema.names]
            if new:
                table.add_columns(new)

    # --- maintenance --------------------------------------------------------------------------

    def maintain(self) -> None:
        """Do the maintenance that is due; see VectorStore."""
        self._upkeep.maintain()

    def optimize(self) -> None:
        """Compact, rebuild the indexes and delete old versions now, after other processes that do so."""
        self._upkeep.optimize()


def check_columns(rows: SharedTable, schema: pa.Schema, what: str) -> None:
    """Raise `StorageError` if a table lacks columns, or has them with other types."""
    types = {field.name: field.type for field in rows.schema}
    if any(types.get(field.name) != field.type for field in schema):
        raise StorageError(f"{rows.place}: there is a table with other columns. Choose another {what}.")


def _tables(directory: Path, lancedb: Any, doing: str) -> LanceTables:
    with translated(directory, doing):
        connection = lancedb.connect(directory, read_consistency_interval=None, session=new_session())
    return LanceTables(directory, connection, ReadersLock(directory / _IN_USE_LOCK))
