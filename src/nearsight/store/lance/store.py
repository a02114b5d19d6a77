"""The embedded engine: one LanceDB table in a directory, safe to share between processes.

LanceDB does no maintenance by itself, so this module does: it merges the small fragments that single appends
leave, builds indexes, and deletes old versions, when the rules in `maintenance` say so.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
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
from nearsight.store.lance import maintenance
from nearsight.store.lance.arrow import hits_by_query, is_storable, public_batch, public_schema, stored_rows
from nearsight.store.lance.engine import import_lancedb
from nearsight.store.lance.errors import retried, translated
from nearsight.store.lance.platform_checks import check_process
from nearsight.store.lance.readers_lock import ReadersLock
from nearsight.store.lance.sql import filter_sql, ids_sql

_LOG = logging.getLogger(__name__)
_TABLE = "pictures"
_IN_USE_LOCK, _UPKEEP_LOCK = ".in-use.lock", ".upkeep.lock"
# Files of Lance 2.0 are scanned up to three times faster than those of 2.1 and 2.2, and compacted in half the
# memory: the later formats compress, and vectors and JPEGs hardly get smaller.
_FILE_FORMAT = {"new_table_data_storage_version": "2.0"}
# Versions that other processes may still be reading, where the lock cannot rule that out.
_RETENTION = timedelta(hours=1)
# Rows of a batch, without and with vectors or thumbnails: several batches are in flight at once.
_NARROW_BATCH_ROWS, _WIDE_BATCH_ROWS = 4096, 256
_IDS_PER_LOOKUP = 1000
_QUERIES_PER_CALL = 64
# Four bits a dimension and exact distances for five times k candidates: recall@10 of 0.999 and more
# on clustered vectors, where one bit gives 0.89 to 0.95 at the same speed (benchmarks/search.py).
_INDEX_BITS = 4
_REFINE_FACTOR = 5
_N_PROBES = 20
# Measuring the size on disk takes milliseconds, too long to do after every write.
_VERSIONS_BETWEEN_CHECKS = 64


class LanceStore:
    """A VectorStore in a local directory.

    Use `create` or `open`. Threads may share an object, any number of processes may open a directory;
    forked children may not use it.
    """

    def __init__(self, directory: Path, table: Any) -> None:
        self._directory = directory
        self._table = table
        self._readers_lock = ReadersLock(directory / _IN_USE_LOCK)
        self._vector_type: pa.DataType = table.schema.field("vector").type
        self._mutex = threading.Lock()
        # A version, and the sizes of its last fragments; None when they must be looked up.
        self._last_fragments: tuple[int, list[int]] | None = None
        self._n_unchecked = 0
        self._next_cleanup_check = 0
        self._counts: tuple[int, int, bool] = (-1, 0, False)

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
        lancedb = import_lancedb()
        with translated(directory, "making the collection"):
            connection = lancedb.connect(directory, read_consistency_interval=None)
            try:
                table = connection.create_table(_TABLE, schema=schema, storage_options=_FILE_FORMAT)
            except ValueError:  # there is one, perhaps created by another process just now
                table = connection.open_table(_TABLE)
        types = {field.name: field.type for field in table.schema}
        if any(types.get(field.name) != field.type for field in schema):
            raise StorageError(f"{directory}: there is a table with other columns. Choose another directory.")
        return cls(directory, table)

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
        lancedb = import_lancedb()
        with translated(directory, "opening the collection"):
            connection = lancedb.connect(directory, read_consistency_interval=None)
            try:
                return cls(directory, connection.open_table(_TABLE))
            except ValueError as error:  # what LanceDB raises for a table without a single version
                raise CollectionNotFoundError(
                    f"{directory}: the collection was never finished. {error}"
                ) from error

    @staticmethod
    def is_at(directory: Path) -> bool:
        """Whether a directory holds the table, finished or not."""
        return (directory / f"{_TABLE}.lance").is_dir()

    @staticmethod
    def is_unfinished_at(directory: Path, *, with_rows: bool) -> bool:
        """Whether a directory holds nothing but files of a table; without `with_rows`, one without rows."""
        table, known = directory / f"{_TABLE}.lance", {f"{_TABLE}.lance", _IN_USE_LOCK, _UPKEEP_LOCK}
        if not directory.is_dir() or any(entry.name not in known for entry in directory.iterdir()):
            return False
        return with_rows or not (table / "data").is_dir() or not any((table / "data").iterdir())

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        check_process()
        with translated(self._directory, what), self._readers_lock.shared():
            # Once per call, because each look for a newer version lists a directory.
            self._table.checkout_latest()
            yield

    # --- reading ------------------------------------------------------------------------------

    @property
    def schema(self) -> pa.Schema:
        """The current columns, with the vector in float32 whatever is stored."""
        with self._doing("reading"):
            return public_schema(self._table.schema)

    @property
    def version(self) -> int:
        """Grows with every change, by any process; maintenance may count as one."""
        with self._doing("reading"):
            return int(self._table.version)

    def count(self, where: Filter | None = None) -> int:
        """Return the number of rows."""
        with self._doing("counting"):
            return int(self._table.count_rows(filter_sql(where) if where else None))

    def scan(
        self, columns: Sequence[str], where: Filter | None = None, *, ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream `columns`; see VectorStore."""
        condition = filter_sql(where) if where else None
        if ids is None:
            yield from self._scan(columns, condition)
            return
        unique = list(dict.fromkeys(ids))
        for start in range(0, len(unique), _IDS_PER_LOOKUP):
            named = ids_sql(unique[start : start + _IDS_PER_LOOKUP])
            yield from self._scan(columns, f"{named} AND {condition}" if condition else named)

    def _scan(self, columns: Sequence[str], condition: str | None) -> Iterator[pa.RecordBatch]:
        with self._doing("reading"):
            query = self._table.search().select(list(columns)).limit(None)
            query = query.where(condition) if condition else query
            types = [self._table.schema.field(name).type for name in columns]
            wide = any(pa.types.is_binary(type_) or pa.types.is_fixed_size_list(type_) for type_ in types)
            yield from map(public_batch, query.to_batches(_WIDE_BATCH_ROWS if wide else _NARROW_BATCH_ROWS))

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
            hits += hits_by_query(table, len(block), names, k)
        return hits

    def _nearest(
        self, queries: NDArray[np.float32], k: int, condition: str | None, columns: list[str], exact: bool
    ) -> pa.Table:
        with self._doing("searching"):
            n_rows, has_index = self._state()
            if n_rows == 0:
                return self._table.schema.empty_table().select(columns)
            query = self._table.search(
                queries if len(queries) > 1 else queries[0], vector_column_name="vector"
            )
            query = query.distance_type("cosine").select([*columns, "_distance"]).limit(min(k, n_rows))
            query = query.where(condition, prefilter=True) if condition else query
            if exact or not has_index or n_rows < maintenance.MIN_INDEXED_ROWS:
                query = query.bypass_vector_index()
            else:
                # All partitions are searched if needed; a narrow filter would otherwise give fewer than k.
                query = query.minimum_nprobes(_N_PROBES).maximum_nprobes(0).refine_factor(_REFINE_FACTOR)
            return query.to_arrow()

    def _state(self) -> tuple[int, bool]:
        """Return the number of rows and whether there is a vector index; computed once per version."""
        version = int(self._table.version)
        counted_version, n_rows, has_index = self._counts
        if counted_version != version:
            n_rows = int(self._table.count_rows())
            has_index = any(index.columns == ["vector"] for index in self._table.list_indices())
            self._counts = (version, n_rows, has_index)
        return n_rows, has_index

    # --- writing ------------------------------------------------------------------------------

    def append(self, rows: pa.Table) -> None:
        """Add rows; see VectorStore."""
        schema = self.schema
        rows = check_rows(rows, schema)
        if "vector" not in rows.column_names:
            raise VectorError("the rows have no column 'vector'.")
        if not rows.num_rows:
            return
        for position, field in enumerate(schema):
            if field.name not in rows.column_names:
                rows = rows.add_column(position, field, pa.nulls(rows.num_rows, field.type))
        rows = stored_rows(rows, self._vector_type)
        with self._doing("saving rows"):
            self._table.add(rows)
        self._after_writing(rows.num_rows)

    def update(self, rows: pa.Table) -> None:
        """Overwrite the given columns of some rows; see VectorStore."""
        schema = self.schema
        rows = check_rows(rows, schema)
        if not rows.num_rows or rows.num_columns == 1:
            return
        with self._doing("updating rows"):
            stats = self._table.stats()
            in_place = maintenance.is_update_in_place_cheaper(
                n_rows=stats["num_rows"],
                n_updated=rows.num_rows,
                row_bytes=stats["total_bytes"] / max(1, stats["num_rows"]),
                updated_bytes=rows.nbytes / rows.num_rows,
            )
        if not in_place and rows.num_columns < len(schema):
            rows = self._completed(rows, schema)
        if rows.num_rows:
            self._merge(stored_rows(rows, self._vector_type), "updating rows")
            self._after_writing(0 if in_place else rows.num_rows)

    def _completed(self, rows: pa.Table, schema: pa.Schema) -> pa.Table:
        """Return the rows that exist, with their other columns read from the table."""
        others = [name for name in schema.names if name == "id" or name not in rows.column_names]
        batches = list(self.scan(others, ids=rows["id"].to_pylist()))
        if not batches:
            return rows.slice(0, 0)
        joined = pa.Table.from_batches(batches)
        positions = {id: position for position, id in enumerate(rows["id"].to_pylist())}
        updated = rows.take([positions[id] for id in joined["id"].to_pylist()])
        return pa.table(
            [(updated if name in updated.column_names else joined)[name] for name in schema.names],
            schema=schema,
        )

    def _merge(self, rows: pa.Table, doing: str) -> None:
        def merge_rows() -> None:
            with self._doing(doing):
                n_rows, n_unindexed = self._index_state()
                merge = self._table.merge_insert("id").when_matched_update_all()
                merge.use_index(maintenance.is_key_index_useful(n_rows, n_unindexed["id"])).execute(rows)

        retried(merge_rows, "conflict")

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows; return how many there were."""
        unique, n_deleted = list(dict.fromkeys(ids)), 0
        for start in range(0, len(unique), _IDS_PER_LOOKUP):
            condition = ids_sql(unique[start : start + _IDS_PER_LOOKUP])

            def delete(condition: str = condition) -> int:
                with self._doing("removing rows"):
                    n_rows = int(self._table.count_rows(condition))
                    if n_rows:
                        self._table.delete(condition)
                    return n_rows

            n_deleted += retried(delete, "conflict")
        return n_deleted

    def add_columns(self, columns: Sequence[pa.Field]) -> None:
        """Add nullable columns; those that exist with the same type already are left alone."""
        with self._doing("adding columns"):
            schema = self._table.schema
            for field in columns:
                if field.name in schema.names and schema.field(field.name).type != field.type:
                    raise MetadataError(
                        f"column {field.name!r} holds {schema.field(field.name).type}, not {field.type}. "
                        "Use another name, or values of that type."
                    )
            new = [field.with_nullable(True) for field in columns if field.name not in schema.names]
            if new:
                self._table.add_columns(new)

    # --- maintenance --------------------------------------------------------------------------

    def _after_writing(self, n_rows: int) -> None:
        """Merge small fragments, and rebuild the indexes each time the number of rows has doubled."""
        try:
            with self._mutex:
                self._merge_fragments(n_rows)
            self._n_unchecked += n_rows
            if self._n_unchecked >= maintenance.MIN_KEYED_ROWS:
                self._n_unchecked = 0
                self._maintain(growth=1.0, may_rewrite=False)
        except StorageError as error:  # the rows are saved; maintenance can wait
            self._last_fragments = None
            _LOG.warning("maintenance postponed: %s", error)

    def _merge_fragments(self, n_appended: int) -> None:
        if n_appended >= maintenance.LARGE_FRAGMENT_ROWS:
            self._last_fragments = None
            return
        version = self.version
        if self._last_fragments is not None and self._last_fragments[0] == version - 1 and n_appended:
            sizes = [*self._last_fragments[1], n_appended]
        else:
            sizes = self._last_fragment_sizes()
        n_due = maintenance.n_fragments_to_merge(sizes)
        if n_due:
            n_rows = sum(sizes[-n_due:])
            # Updating the rows with their own values moves them to one new fragment, and only them: LanceDB's
            # optimize() would rewrite the whole table.
            with self._doing("maintenance"):
                query = (
                    self._table.search().offset(max(0, int(self._table.count_rows()) - n_rows)).limit(n_rows)
                )
                rows = query.to_arrow()
            self._merge(rows, "maintenance")
            sizes, version = [*sizes[:-n_due], n_rows], version + 1
        self._last_fragments = (version, sizes)

    def _last_fragment_sizes(self) -> list[int]:
        """Return the numbers of rows of the last fragments; the first may be incomplete."""
        window = 4 * maintenance.LARGE_FRAGMENT_ROWS
        with self._doing("maintenance"):
            n_rows = int(self._table.count_rows())
            query = self._table.search().with_row_id(True).select(["_rowid"]).offset(max(0, n_rows - window))
            row_ids = np.asarray(query.limit(window).to_arrow()["_rowid"])
        return maintenance.fragment_sizes(row_ids >> np.uint64(32), is_cut=n_rows > window)

    def maintain(self) -> None:
        """Do the maintenance that is due; see VectorStore."""
        try:
            self._maintain(growth=0.25, may_rewrite=True)
        except StorageError as error:
            _LOG.warning("maintenance postponed: %s", error)

    def optimize(self) -> None:
        """Compact, rebuild the indexes and delete old versions now, after other processes that do so."""
        with self._maintenance_lock(blocking=True):
            self._build_indexes(growth=0.0)
            self._compact()

    def _maintain(self, *, growth: float, may_rewrite: bool) -> None:
        if not self._is_index_due(growth) and not (may_rewrite and self._is_rewrite_due()):
            return
        try:
            with self._maintenance_lock(blocking=False):
                self._build_indexes(growth)
                if may_rewrite and self._is_rewrite_due():
                    _LOG.info("%s: compacting", self._directory)
                    self._compact()
        except filelock.Timeout:
            _LOG.debug("%s: another process does the maintenance", self._directory)

    def _is_index_due(self, growth: float) -> bool:
        with self._doing("maintenance"):
            n_rows, n_unindexed = self._index_state()
        return maintenance.is_vector_index_due(
            n_rows, n_unindexed["vector"], growth=growth
        ) or maintenance.is_key_index_due(n_rows, n_unindexed["id"], growth=growth)

    def _index_state(self) -> tuple[int, dict[str, int]]:
        """Return the number of rows, and by column how many of them its index lacks."""
        n_rows = int(self._table.count_rows())
        n_unindexed = {"vector": n_rows, "id": n_rows}
        for index in self._table.list_indices():
            n_unindexed[index.columns[0]] = int(index.num_unindexed_rows or 0)
        return n_rows, n_unindexed

    def _build_indexes(self, growth: float) -> None:
        from lancedb.index import BTree, IvfRq

        with self._doing("maintenance"):
            n_rows, n_unindexed = self._index_state()
        if maintenance.is_key_index_due(n_rows, n_unindexed["id"], growth=growth):
            self._build("id", BTree())
        if maintenance.is_vector_index_due(n_rows, n_unindexed["vector"], growth=growth):
            _LOG.info("%s: building the search index of %d rows", self._directory, n_rows)
            self._build("vector", IvfRq(distance_type="cosine", num_bits=_INDEX_BITS))

    def _build(self, column: str, config: Any) -> None:
        def build() -> None:
            with self._doing("building an index"):
                self._table.create_index(column, config=config, replace=True)

        retried(build, "conflict")

    def _is_rewrite_due(self) -> bool:
        with self._doing("maintenance"):
            version, stats = int(self._table.version), self._table.stats()
            n_rows, n_fragments = stats["num_rows"], stats["fragment_stats"]["num_fragments"]
            live_bytes = int(stats["total_bytes"])
            if maintenance.is_compaction_due(n_rows=n_rows, n_fragments=n_fragments, live_bytes=live_bytes):
                return True
            if version < self._next_cleanup_check:
                return False
            live_bytes += sum(int(index.size_bytes or 0) for index in self._table.list_indices())
        root = self._directory / f"{_TABLE}.lance"
        try:
            versions = [entry.stat().st_mtime for entry in os.scandir(root / "_versions")]
            if len(versions) < maintenance.MIN_VERSIONS:
                return False
            disk_bytes = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
        except OSError:  # another process deletes files meanwhile; the next call tries again
            return False
        if not maintenance.is_cleanup_due(
            n_versions=len(versions), live_bytes=live_bytes, disk_bytes=disk_bytes
        ):
            self._next_cleanup_check = version + _VERSIONS_BETWEEN_CHECKS
            return False
        # While others read, recent versions are kept; if all are recent, a rewrite frees nothing.
        with self._readers_lock.exclusive() as is_exclusive:
            return is_exclusive or time.time() - min(versions) > _RETENTION.total_seconds()

    def _compact(self) -> None:
        def compact() -> None:
            with self._doing("compacting"):
                self._table.optimize(cleanup_older_than=_RETENTION)

        retried(compact, "conflict")

        def delete_old_versions() -> None:
            with (
                translated(self._directory, "deleting old versions"),
                self._readers_lock.exclusive() as is_exclusive,
            ):
                if is_exclusive:
                    # Nobody else reads or writes, so every file without a version is a leftover.
                    self._table.optimize(cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True)

        # A write that began before the lock was held may still have come first.
        retried(delete_old_versions, "conflict")

    @contextmanager
    def _maintenance_lock(self, *, blocking: bool) -> Iterator[None]:
        lock = filelock.FileLock(self._directory / _UPKEEP_LOCK, blocking=blocking, thread_local=False)
        with translated(self._directory, "maintenance"), lock:
            yield
