"""Rewrites the rows of small fragments as larger ones: few at a time, and none twice at one level.

LanceDB's own compaction takes no bound. It merges all fragments below a million rows each time, which is the
whole table where rows are wide (https://github.com/lancedb/lancedb/issues/2325).
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np

from nearsight import process_memory
from nearsight.errors import StorageError
from nearsight.store.lance import maintenance
from nearsight.store.lance.manifest_file import UnknownLayoutError
from nearsight.store.lance.table import Addresses, SharedTable, TableState, megabytes

_LOG = logging.getLogger(__name__)
_BATCH_ROWS = 256
# Bytes in memory for each byte of a fragment that is merged, and for one that is copied in batches.
_MERGE_MEMORY, _COPY_MEMORY_BYTES = 5, 256 * 2**20

Writing = Callable[[], AbstractContextManager[None]]
Move = Callable[[SharedTable, Addresses], None]


def merge_rows(table: SharedTable, addresses: Addresses) -> None:
    """Move rows to a new fragment in one transaction, by updating them with their own values."""
    # As one batch, since the engine works on several in parallel and loses their order.
    rows = table.take(addresses, table.schema.names).combine_chunks()
    table.merge(lambda: rows, "maintenance")


def copy_rows(table: SharedTable, addresses: Addresses) -> None:
    """Move rows to a new fragment in two transactions: add copies, and delete the originals.

    It needs memory for a few rows, but a crash in between leaves rows twice.
    """
    table.add(table.take_batches(addresses, table.schema.names, _BATCH_ROWS), "maintenance")
    table.delete_at(addresses)


class Compaction:
    """Keeps the fragments of a table few.

    Parameters
    ----------
    table : SharedTable
    move : callable
        `merge_rows` or `copy_rows`.
    full_rows : int
        Rows of a full fragment.
    move_few : callable, optional
        What moves the rows of small fragments at the end, instead of `move`.
    """

    def __init__(
        self, table: SharedTable, move: Move, full_rows: int, *, move_few: Move | None = None
    ) -> None:
        self.table = table
        self.full_rows = full_rows
        self._move = move
        self._move_few = move_few or move
        # A version, and the sizes of its last fragments; None when they must be looked up.
        self._last_fragments: tuple[int, list[int]] | None = None

    def after_append(self, n_appended: int) -> None:
        """Merge the small fragments at the end, if there are many; the caller holds the write lock."""
        if n_appended >= maintenance.LARGE_FRAGMENT_ROWS:
            self._last_fragments = None
            return
        version = self.table.version
        if self._last_fragments is not None and self._last_fragments[0] == version - 1 and n_appended:
            sizes = [*self._last_fragments[1], n_appended]
        else:
            sizes = self._last_fragment_sizes()
        n_due = maintenance.n_fragments_to_merge(sizes)
        if n_due:
            n_rows = sum(sizes[-n_due:])
            self._move_few(self.table, self.table.addresses(last=n_rows))
            sizes, version = [*sizes[:-n_due], n_rows], self.table.version
        self._last_fragments = (version, sizes)

    def forget(self) -> None:
        """Look up the fragments at the next call."""
        self._last_fragments = None

    def _last_fragment_sizes(self) -> list[int]:
        """Return the numbers of rows of the last fragments; the first may be incomplete."""
        window = 4 * maintenance.LARGE_FRAGMENT_ROWS
        addresses = self.table.addresses(last=window)
        return maintenance.fragment_sizes(addresses >> np.uint64(32), is_cut=self.table.n_rows() > window)

    def is_due(self, state: TableState) -> bool:
        """Whether there are many small fragments."""
        return maintenance.is_compaction_due(
            n_rows=state.n_rows, n_fragments=state.n_fragments, full_rows=self.full_rows
        )

    def run(self, writing: Writing) -> Iterator[int]:
        """Rewrite what is due; yield the number of rows after each fragment.

        The write lock is held for one fragment at a time, and each is safe on disk when its number is
        yielded. A killed run goes on with the next call.

        Raises
        ------
        StorageError
            The next fragment needs more memory or room on the disk than there is. Those before it are done.
        """
        for plan in (self._sparse_rows, self._rows_at_the_end):
            parts: list[Addresses] = []
            version = -1
            while True:
                with writing():
                    # Where rows lie holds until somebody else writes.
                    if self.table.version != version:
                        parts = plan()
                    if not parts:
                        break
                    part = parts.pop(0)
                    self._check_room(part)
                    self._move(self.table, part)
                    self._last_fragments = None
                    version = self.table.version
                # Else what each fragment took would add up.
                process_memory.return_freed()
                yield len(part)

    def _rows_at_the_end(self) -> list[Addresses]:
        addresses = self.table.addresses()
        sizes = maintenance.fragment_sizes(addresses >> np.uint64(32), is_cut=False)
        return [addresses[a:b] for a, b in maintenance.rows_to_compact(sizes, self.full_rows)]

    def _sparse_rows(self) -> list[Addresses]:
        """Return the rows of fragments of which much is deleted."""
        try:
            facts = self.table.newest_version()
        except UnknownLayoutError as error:
            _LOG.warning("deleted rows stay on disk: %s", error)
            return []
        sparse = [f.number for f in facts.fragments if maintenance.is_sparse(f.n_rows, f.n_deleted)]
        addresses = self.table.addresses() if sparse else np.empty(0, np.uint64)
        rows = addresses[np.isin(addresses >> np.uint64(32), np.array(sparse, np.uint64))]
        return [rows[start : start + self.full_rows] for start in range(0, len(rows), self.full_rows)]

    def _check_room(self, rows: Addresses) -> None:
        n_bytes = self.table.row_bytes() * len(rows)
        self.table.check_room(n_bytes)
        n_memory = _MERGE_MEMORY * n_bytes if self._move is merge_rows else _COPY_MEMORY_BYTES
        free = process_memory.free_bytes()
        if n_memory > free:
            raise StorageError(
                f"{self.table.root}: compacting the next {len(rows):,} rows needs about {megabytes(n_memory)}"
                f" of memory, and {megabytes(free)} are free. Close other programs, and run the same"
                " command again; what was compacted stays so."
            )
