"""One LanceDB table of a store, at its newest version whoever wrote it."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.errors import CollectionNotFoundError, StorageError
from nearsight.store.lance import maintenance
from nearsight.store.lance.errors import retried, translated
from nearsight.store.lance.manifest_file import VersionFacts, manifest_path
from nearsight.store.lance.old_versions import delete_old_versions, newest_version
from nearsight.store.lance.platform_checks import check_process
from nearsight.store.lance.readers_lock import ReadersLock
from nearsight.store.lance.row_files import RowFiles
from nearsight.store.lance.sql import ids_sql

#: Ids in one condition.
IDS_PER_LOOKUP = 1000
# Files of Lance 2.0 are scanned up to three times faster than those of 2.1 and 2.2, and compacted in half the
# memory: the later formats compress, and vectors and JPEGs hardly get smaller.
FILE_FORMAT = {"new_table_data_storage_version": "2.0"}
# No file system keeps time stamps in larger steps.
_SETTLED_NS = 3 * 10**9
_DISK_MARGIN = 1.1

Addresses = NDArray[np.uint64]


class SharedTable:
    """A table that threads and processes share.

    Parameters
    ----------
    directory : Path
        Of the store.
    table : lancedb.table.Table
    readers_lock : ReadersLock
        Held shared by every operation; it belongs to the store, not to the table.
    """

    def __init__(self, directory: Path, table: Any, readers_lock: ReadersLock) -> None:
        self.root = directory / f"{table.name}.lance"
        self._versions = self.root / "_versions"
        self._last_version = (0, 0)
        # The newest version that was seen, and the hash of its manifest.
        self._last_digest = (0, "")
        #: What errors name.
        self.place: object = directory
        #: Of single rows, where the engine is not needed for them.
        self.files: RowFiles | None = RowFiles(self.root)
        self._table = table
        self._readers_lock = readers_lock

        self._last_schema: tuple[int, pa.Schema] = (-1, None)

    @contextmanager
    def use(self, doing: str) -> Iterator[Any]:
        """Yield LanceDB's table at its newest version; while the block runs, no file of it is deleted."""
        check_process()
        with translated(self.place, doing), self._readers_lock.shared():
            # Once per call, because each look for a newer version lists a directory.
            self._table.checkout_latest()
            yield self._table

    @contextmanager
    def use_at(self, doing: str) -> Iterator[tuple[Any, int]]:
        """Yield what `use` does, and its version; quicker where nothing was written lately."""
        check_process()
        with translated(self.place, doing), self._readers_lock.shared():
            changed_ns, version = self._changed()
            if version is None:
                is_settled = time.time_ns() - changed_ns > _SETTLED_NS
                self._table.checkout_latest()
                version = int(self._table.version)
                self._require_same_table(version)
                if is_settled:
                    self._last_version = (changed_ns, version)
            yield self._table, version

    def _require_same_table(self, version: int) -> None:
        """Raise if a version is not what it was: somebody has deleted the table, and made another one."""
        last, digest = self._last_digest
        if version < last:
            return  # another thread is ahead
        try:
            found = self._digest(version)
        except FileNotFoundError:  # a later version came, and this one was deleted
            return
        if version == last and found != digest:
            raise CollectionNotFoundError(
                f"{self.place}: the collection was deleted, and made anew; open it again"
            )
        self._last_digest = (version, found)

    @property
    def version(self) -> int:
        """Grows with every change."""
        _, version = self._changed()
        if version is not None:
            return version
        with self.use_at("reading") as (_, version):
            return version

    def _changed(self) -> tuple[int, int | None]:
        """Return when something was written last, and the version, if it is known and checked out."""
        seen_ns, version = self._last_version
        # A version is a new file in this directory, whose time stamp is read fifty times as fast as its files
        # are listed. A young stamp may stand for several versions.
        try:
            changed_ns = self._versions.stat().st_mtime_ns
        except OSError:  # what follows says why
            return time.time_ns(), None
        return changed_ns, version if changed_ns == seen_ns else None

    def digest(self) -> str:
        """Return a hash of the newest version's manifest, which names files that no other table has."""
        with self.use_at("reading") as (_, version), suppress(FileNotFoundError):
            return self._digest(version)
        raise StorageError(f"{self._versions} has no version {version}; the store was removed meanwhile")

    def _digest(self, version: int) -> str:
        return hashlib.sha256(manifest_path(self._versions, version).read_bytes()).hexdigest()[:16]

    @property
    def schema(self) -> pa.Schema:
        """The current columns, as they are stored."""
        with self.use_at("reading") as (table, version):
            if self._last_schema[0] != version:
                self._last_schema = (version, table.schema)
            return self._last_schema[1]

    def stream(
        self, columns: Sequence[str], condition: str | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Stream columns of the rows that match."""
        with self.use("reading") as table:
            query = table.search().select(list(columns)).limit(None)
            query = query.where(condition) if condition else query
            yield from query.to_batches(batch_rows)

    def n_rows(self) -> int:
        """Return the number of rows."""
        with self.use("counting") as table:
            return int(table.count_rows())

    def row_bytes(self) -> float:
        """Return the mean size of a row on disk."""
        with self.use("maintenance") as table:
            stats = table.stats()
            return float(stats["total_bytes"] / max(1, stats["num_rows"]))

    def addresses(
        self, *, condition: str | None = None, first: int | None = None, last: int | None = None
    ) -> Addresses:
        """Return where rows lie: the fragment in the upper 32 bits, the row in it below.

        Parameters
        ----------
        condition : str, optional
            Only the rows that match; without `last`.
        first, last : int, optional
            Only so many rows, from the start or the end of a scan.
        """
        with self.use("maintenance") as table:
            query = table.search().with_row_id(True).select(["_rowid"])
            query = query.where(condition) if condition else query
            if last is not None:
                first, query = last, query.offset(max(0, int(table.count_rows()) - last))
            rows: Addresses = np.asarray(query.limit(first).to_arrow()["_rowid"], np.uint64)
        return rows

    def addresses_of(self, ids: Sequence[str]) -> Addresses:
        """Return where the rows of ids lie, oldest first."""
        parts = [
            self.addresses(condition=ids_sql(ids[start : start + IDS_PER_LOOKUP]))
            for start in range(0, len(ids), IDS_PER_LOOKUP)
        ]
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.uint64)

    def take(self, addresses: Addresses, columns: Sequence[str]) -> pa.Table:
        """Return rows by where they lie; addresses hold until the rows are rewritten."""
        if not len(addresses):
            schema = self.schema
            return pa.schema([schema.field(name) for name in columns]).empty_table()
        with self.use("reading") as table:
            return table.take_row_ids(addresses.tolist()).select(list(columns)).to_arrow()

    def take_batches(
        self, addresses: Addresses, columns: Sequence[str], batch_rows: int
    ) -> pa.RecordBatchReader:
        """Return a reader of rows by where they lie, in memory for a few batches."""
        schema = self.schema
        schema = pa.schema([schema.field(name) for name in columns])

        def batches() -> Iterator[pa.RecordBatch]:
            for start in range(0, len(addresses), batch_rows):
                yield from self.take(addresses[start : start + batch_rows], columns).cast(schema).to_batches()

        return pa.RecordBatchReader.from_batches(schema, batches())

    def add(self, rows: pa.Table | pa.RecordBatchReader, doing: str = "saving rows") -> None:
        """Append rows as one fragment."""
        with self.use(doing) as table:
            table.add(rows)

    def merge(
        self, rows: Callable[[], pa.Table | pa.RecordBatchReader], doing: str, *, insert: bool = False
    ) -> None:
        """Overwrite the given columns of the rows with these ids; with `insert`, add those that are new.

        `rows` is called again if another process wrote meanwhile. Whole rows move to one new fragment.
        """

        def merge_rows() -> None:
            source = rows()
            with self.use(doing) as table:
                n_rows = int(table.count_rows())
                n_unindexed = _n_unindexed(n_rows, table.list_indices())
                merge = table.merge_insert("id").when_matched_update_all()
                merge = merge.when_not_matched_insert_all() if insert else merge
                merge.use_index(maintenance.is_key_index_useful(n_rows, n_unindexed["id"])).execute(source)

        retried(merge_rows, "conflict")

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows by their ids; return how many there were."""
        unique, n_deleted = list(dict.fromkeys(ids)), 0
        for start in range(0, len(unique), IDS_PER_LOOKUP):
            condition = ids_sql(unique[start : start + IDS_PER_LOOKUP])

            def delete(condition: str = condition) -> int:
                with self.use("removing rows") as table:
                    n_rows = int(table.count_rows(condition))
                    if n_rows:
                        table.delete(condition)
                    return n_rows

            n_deleted += retried(delete, "conflict")
        return n_deleted

    def delete_at(self, addresses: Addresses) -> None:
        """Remove rows by where they lie: whole runs of a fragment, from the first to the last address."""
        fragments = addresses >> np.uint64(32)
        starts = np.flatnonzero(np.r_[True, fragments[1:] != fragments[:-1]])
        ends = np.r_[starts[1:], len(addresses)] - 1
        runs = [
            f"(_rowid >= {addresses[a]} AND _rowid <= {addresses[b]})"
            for a, b in zip(starts, ends, strict=True)
        ]
        with self.use("removing rows") as table:
            table.delete(" OR ".join(runs))

    def newest_version(self) -> VersionFacts:
        """Return what the newest version consists of.

        Raises
        ------
        UnknownLayoutError
            The manifest is not of a layout that is known for certain.
        """
        return newest_version(self.root)

    def kept(self) -> "KeptVersions":
        """Return the versions that were not deleted yet."""
        written_s = [entry.stat().st_mtime for entry in os.scandir(self._versions)]
        return KeptVersions(len(written_s), min(written_s, default=time.time()))

    def size_bytes(self) -> int:
        """Return the bytes of all files, those of old versions included."""
        return sum(file.stat().st_size for file in self.root.rglob("*") if file.is_file())

    def check_room(self, n_bytes: float) -> None:
        """Raise `StorageError` if the disk has no room for so many bytes."""
        free, needed = shutil.disk_usage(self.root).free, _DISK_MARGIN * n_bytes
        if needed > free:
            raise StorageError(
                f"{self.root}: compacting needs {megabytes(needed)} on the disk, and {megabytes(free)} are"
                " free. Free some space, and run the same command again; rows already saved are intact, and"
                " what was compacted stays so."
            )

    def delete_old_versions(self, keep_s: float) -> None:
        """Delete the files of old versions: all if nobody else reads, else those older than `keep_s`.

        Raises
        ------
        UnknownLayoutError
            The files are not known for certain; then none is deleted.
        """
        with (
            translated(self.place, "deleting old versions"),
            self._readers_lock.exclusive() as is_alone,
        ):
            if is_alone:
                self._table.checkout_latest()
                self._delete_old_versions(is_alone=True, keep_s=keep_s)
        if not is_alone:
            with self.use("deleting old versions"):
                self._delete_old_versions(is_alone=False, keep_s=keep_s)

    def _delete_old_versions(self, *, is_alone: bool, keep_s: float) -> None:
        n_rows, version = int(self._table.count_rows()), int(self._table.version)
        delete_old_versions(self.root, n_rows=n_rows, version=version, is_alone=is_alone, keep_s=keep_s)

    def build_index(self, column: str, config: Any) -> None:
        """Build the index of a column, in the place of an earlier one."""

        def build() -> None:
            with self.use("building an index") as table:
                table.create_index(column, config=config, replace=True)

        retried(build, "conflict")

    def state(self) -> "TableState":
        """Return what the rules of maintenance ask for."""
        with self.use("maintenance") as table:
            stats, indices = table.stats(), list(table.list_indices())
            n_rows = int(stats["num_rows"])
            return TableState(
                version=int(table.version),
                n_rows=n_rows,
                n_unindexed=_n_unindexed(n_rows, indices),
                n_fragments=int(stats["fragment_stats"]["num_fragments"]),
                live_bytes=int(stats["total_bytes"]) + sum(int(index.size_bytes or 0) for index in indices),
            )


@dataclass(frozen=True, slots=True)
class TableState:
    """A table as the rules of maintenance see it.

    Attributes
    ----------
    version, n_rows, n_fragments : int
    n_unindexed : dict of str to int
        By column, how many rows its index lacks.
    live_bytes : int
        Of the data and the indexes, on disk.
    """

    version: int
    n_rows: int
    n_unindexed: dict[str, int]
    n_fragments: int
    live_bytes: int


@dataclass(frozen=True, slots=True)
class KeptVersions:
    """The versions of a table that were not deleted yet.

    Attributes
    ----------
    n : int
    oldest_s : float
        When the oldest was written, in seconds since 1970.
    """

    n: int
    oldest_s: float


class LanceTables:
    """The tables of a store in a directory.

    Parameters
    ----------
    directory : Path
    connection : lancedb.DBConnection
    readers_lock : ReadersLock
    """

    def __init__(self, directory: Path, connection: Any, readers_lock: ReadersLock) -> None:
        self.place: object = directory
        self._directory = directory
        self._connection = connection
        self.readers_lock = readers_lock

    def open(self, name: str) -> SharedTable | None:
        """Open a table; return None if there is none, or it is not finished."""
        if not (self._directory / f"{name}.lance" / "_versions").is_dir():
            return None
        with translated(self.place, "opening the collection"):
            try:
                table = self._connection.open_table(name)
            except ValueError:  # without a single version
                return None
        return self._shared(table)

    def make(self, name: str, schema: pa.Schema) -> SharedTable:
        """Create a table, or open the one that another process has created just now."""
        with translated(self.place, "making the collection"):
            try:
                table = self._connection.create_table(name, schema=schema, storage_options=FILE_FORMAT)
            except ValueError:
                table = self._connection.open_table(name)
        return self._shared(table)

    def _shared(self, table: Any) -> SharedTable:
        return SharedTable(self._directory, table, self.readers_lock)


def megabytes(n_bytes: float) -> str:
    """Return a size as text.

    Examples
    --------
    >>> megabytes(1_234_567), megabytes(9_876_543_210)
    ('1.2 MB', '9,876.5 MB')
    """
    return f"{n_bytes / 1e6:,.1f} MB"


def _n_unindexed(n_rows: int, indices: Iterable[Any]) -> dict[str, int]:
    """Return by column how many rows its index lacks."""
    lacking = {index.columns[0]: int(index.num_unindexed_rows or 0) for index in indices}
    return {"vector": n_rows, "id": n_rows, **lacking}


def in_chunks(values: Addresses, n: int) -> Iterable[Addresses]:
    """Return an array in parts of n."""
    return (values[start : start + n] for start in range(0, len(values), n))
