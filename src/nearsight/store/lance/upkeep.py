"""The maintenance of a store: merges fragments, builds indexes, and deletes old versions, when they are due.

LanceDB does none of it by itself. The rules are in `maintenance`.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import filelock

from nearsight.errors import StorageError
from nearsight.store.lance import index_reach, maintenance
from nearsight.store.lance.binary_columns import BinaryColumns
from nearsight.store.lance.compaction import Compaction, Writing, copy_rows, merge_rows
from nearsight.store.lance.index_reach import ReachFile
from nearsight.store.lance.manifest_file import UnknownLayoutError
from nearsight.store.lance.table import Addresses, LanceTables, SharedTable, TableState

_LOG = logging.getLogger(__name__)
# Versions that other processes may still be reading, where the lock cannot rule that out.
_RETENTION = timedelta(hours=1)
# Four bits a dimension and exact distances for a few times k candidates: recall@10 of 0.999 and more
# on clustered vectors, where one bit gives 0.89 to 0.95 at the same speed (benchmarks/search.py).
_INDEX_BITS = 4
# Measuring the size on disk takes milliseconds, too long to do after every write.
_VERSIONS_BETWEEN_CHECKS = 32
# Of a row, besides its vector and what has a table of its own.
_OTHER_ROW_BYTES = 512


class Upkeep:
    """The maintenance of one store.

    Parameters
    ----------
    tables : LanceTables
        Of the store.
    rows : SharedTable
    binary : BinaryColumns
    writing : callable
        The store's write lock.
    lock : callable
        The lock of whoever does maintenance; called with False, it raises `filelock.Timeout` if it is taken.
    reach : ReachFile
    """

    def __init__(
        self,
        tables: LanceTables,
        rows: SharedTable,
        binary: BinaryColumns,
        writing: Writing,
        lock: Callable[[bool], AbstractContextManager[None]],
        reach: ReachFile,
    ) -> None:
        self._place = tables.place
        self._readers_lock = tables.readers_lock
        self._rows = rows
        self._binary = binary
        self._writing = writing
        self._lock = lock
        self._reach = reach
        vector = rows.schema.field("vector").type
        row_bytes = vector.list_size * vector.value_type.bit_width // 8 + _OTHER_ROW_BYTES
        self._compaction = Compaction(
            rows, merge_rows, maintenance.full_fragment_rows(row_bytes), move_few=self._move_few
        )
        self._binary_compaction: Compaction | None = None
        self._n_unchecked = 0
        # Writes and rows since the last look; at first many, since earlier processes wrote.
        self._n_writes, self._n_rows = maintenance.WRITES_PER_LOOK, 0
        self._next_cleanup_check = 0

    def after_append(self, n_rows: int, n_binary: int) -> None:
        """Merge small fragments; the caller holds the write lock."""
        try:
            if n_binary:
                self._compactions()[-1].after_append(n_binary)
            self._compaction.after_append(n_rows)
        except StorageError as error:  # the rows are saved; maintenance can wait
            for compaction in self._compactions():
                compaction.forget()
            _LOG.warning("maintenance postponed: %s", error)

    def after_writing(self, n_rows: int) -> None:
        """Rebuild the indexes each time the number of rows has doubled."""
        self._n_writes, self._n_rows = self._n_writes + 1, self._n_rows + n_rows
        self._n_unchecked += n_rows
        if self._n_unchecked < maintenance.MIN_KEYED_ROWS:
            return
        self._n_unchecked = 0
        try:
            self._maintain(growth=1.0, may_rewrite=False)
        except StorageError as error:
            _LOG.warning("maintenance postponed: %s", error)

    def maintain(self) -> None:
        """Do the maintenance that is due; see VectorStore."""
        if self._n_writes < maintenance.WRITES_PER_LOOK and self._n_rows < maintenance.ROWS_PER_LOOK:
            return
        n_written, self._n_writes, self._n_rows = self._n_rows, 0, 0
        try:
            self._maintain(growth=0.25, may_rewrite=True, n_written=n_written)
        except StorageError as error:
            _LOG.warning("maintenance postponed: %s", error)

    def optimize(self) -> None:
        """Do all maintenance now, after other processes that do so."""
        with self._lock(True):
            # First, since a full disk may have room afterwards.
            self._delete_old_versions()
            self._move_binary_columns()
            self._compact()
            self._build_indexes(growth=0.0)
            self._delete_old_versions()

    def _compactions(self) -> list[Compaction]:
        """Return the compaction of the rows, and that of the binary columns if there are any."""
        if self._binary_compaction is None and self._binary.table is not None:
            n_rows = maintenance.FULL_FRAGMENT_ROWS
            self._binary_compaction = Compaction(self._binary.table, copy_rows, n_rows)
        return [self._compaction, *([self._binary_compaction] if self._binary_compaction else [])]

    def _move_few(self, table: SharedTable, addresses: Addresses) -> None:
        """Move few rows; once they are more, the binary columns in them go to their own table."""
        if len(addresses) < maintenance.LARGE_FRAGMENT_ROWS:
            merge_rows(table, addresses)
        else:
            self._binary.take_out(table, addresses)

    def _tables(self) -> list[SharedTable]:
        return [compaction.table for compaction in self._compactions()]

    def _maintain(self, *, growth: float, may_rewrite: bool, n_written: int = 0) -> None:
        states = self._states()
        if may_rewrite and n_written >= maintenance.SHARE_WRITTEN * states[0].n_rows:
            growth = 0.0
        is_due = self._is_index_due(states, growth) or (
            may_rewrite and (self._is_compaction_due(states) or self._is_cleanup_due(states))
        )
        if not is_due:
            return
        try:
            with self._lock(False):
                # Another process may have done it meanwhile.
                if may_rewrite and self._is_compaction_due(self._states()):
                    _LOG.info("%s: compacting", self._place)
                    self._compact()
                self._build_indexes(growth)
                if may_rewrite and self._is_cleanup_due(self._states()):
                    self._delete_old_versions()
        except filelock.Timeout:
            _LOG.debug("%s: another process does the maintenance", self._place)

    def _states(self) -> list[TableState]:
        return [table.state() for table in self._tables()]

    # --- indexes ------------------------------------------------------------------------------

    def _is_index_due(self, states: list[TableState], growth: float) -> bool:
        return any(_is_key_index_due(state, growth) for state in states) or _is_vector_index_due(
            states[0], growth
        )

    def _build_indexes(self, growth: float) -> None:
        from lancedb.index import BTree, IvfRq

        for table in self._tables():
            if _is_key_index_due(table.state(), growth):
                table.build_index("id", BTree())
        state = self._rows.state()
        is_due = _is_vector_index_due(state, growth)
        if is_due:
            _LOG.info("%s: building the search index of %d rows", self._place, state.n_rows)
            self._rows.build_index("vector", IvfRq(distance_type="cosine", num_bits=_INDEX_BITS))
        if is_due or not growth:
            index_reach.measure(self._rows, self._reach)

    # --- compaction ---------------------------------------------------------------------------

    def _is_compaction_due(self, states: list[TableState]) -> bool:
        return any(c.is_due(state) for c, state in zip(self._compactions(), states, strict=False))

    def _compact(self) -> None:
        self._binary.remove_orphans(self._rows, self._writing)
        for compaction in self._compactions():
            for _ in compaction.run(self._writing):
                # At once, so that the disk needs room for one fragment only.
                self._delete_old_versions([compaction.table])

    def _move_binary_columns(self) -> None:
        """Move what an earlier version kept in the rows."""
        n_at_a_time = self._compaction.full_rows
        for _ in self._binary.move_from(self._rows, self._writing, n_at_a_time, self._check_room):
            self._compaction.forget()
            self._delete_old_versions()

    def _check_room(self, n_rows: int) -> None:
        # Those of the old fragments stay until all their rows have moved.
        self._rows.check_room(n_rows * self._rows.row_bytes())

    # --- old versions -------------------------------------------------------------------------

    def _is_cleanup_due(self, states: list[TableState]) -> bool:
        version, live_bytes = sum(s.version for s in states), sum(s.live_bytes for s in states)
        oldest_s, n_versions, disk_bytes = time.time(), 0, 0
        if version < self._next_cleanup_check:
            return False
        try:
            for table in self._tables():
                kept = table.kept()
                oldest_s, n_versions = min(oldest_s, kept.oldest_s), n_versions + kept.n
                if n_versions >= maintenance.MIN_VERSIONS:
                    disk_bytes += table.size_bytes()
        except OSError:  # another process deletes files meanwhile; the next call tries again
            return False
        if not maintenance.is_cleanup_due(
            n_versions=n_versions, live_bytes=live_bytes, disk_bytes=disk_bytes
        ):
            self._next_cleanup_check = version + _VERSIONS_BETWEEN_CHECKS
            return False
        # While others read, recent versions are kept; if all are recent, nothing can be deleted.
        with self._readers_lock.exclusive() as is_exclusive:
            return is_exclusive or time.time() - oldest_s > _RETENTION.total_seconds()

    def _delete_old_versions(self, tables: list[SharedTable] | None = None) -> None:
        try:
            for table in self._tables() if tables is None else tables:
                table.delete_old_versions(_RETENTION.total_seconds())
        except UnknownLayoutError as error:
            _LOG.warning("old versions stay on disk: %s", error)


def _is_key_index_due(state: TableState, growth: float) -> bool:
    return maintenance.is_key_index_due(state.n_rows, state.n_unindexed["id"], growth=growth)


def _is_vector_index_due(state: TableState, growth: float) -> bool:
    return maintenance.is_vector_index_due(state.n_rows, state.n_unindexed["vector"], growth=growth)
