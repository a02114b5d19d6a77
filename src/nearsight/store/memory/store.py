"""A store whose searches are answered from memory, once there have been a few."""

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.errors import NearsightError
from nearsight.store.base import Hit, VectorStore, check_queries
from nearsight.store.filters.ast import Filter
from nearsight.store.memory.build import ChangedError, Loaded, Loader, StoppedError, n_background_threads
from nearsight.store.memory.cache import MemoryCache
from nearsight.store.memory.rows import Rows

_LOG = logging.getLogger(__name__)
# The first search of a process is often the last.
_SEARCHES_BEFORE_LOADING = 2
# Loading again waits ten times as long as it took, so that a store that changes all the time costs a tenth of
# a core; after a graph was built, which is rare, not as long.
_PAUSE_RATIO, _MAX_PAUSE_S = 10, 60
_PAUSE_AFTER_FAILURE_S = 30
_MAX_CHANGED_NUMBERS = 4_000_000
_EXIT_S = 10


@dataclass(frozen=True, slots=True)
class _Change:
    """What one write of this process changed, between two versions of the store."""

    before: int
    after: int
    kind: Literal["append", "update", "delete", "columns"]
    rows: pa.Table
    ids: tuple[str, ...] = ()


class MemoryStore:
    """A `VectorStore` that searches in memory and leaves everything else to another store.

    The second search starts to load the rows in the background, or `load` does. Until then, and whenever the
    rows in memory are not those of the store's current version, the other store answers. Memory never owns
    anything: it follows what this object writes, and is read again when somebody else has written.

    Parameters
    ----------
    store : VectorStore
        The rows.
    cache : Path
        Directory for what took long to build; it is made when needed.
    columns : callable from pa.Schema to sequence of str, optional
        The columns to hold, ``id`` among them; by default all but the vector and binary ones. Filters on
        others are left to the store.
    enabled : bool, default True
        Whether to search in memory at all.
    """

    def __init__(
        self,
        store: VectorStore,
        cache: Path,
        *,
        columns: Callable[[pa.Schema], Sequence[str]] | None = None,
        enabled: bool = True,
    ) -> None:
        self._store = store
        self._cache = MemoryCache(cache)
        self._columns = columns or _all_columns
        self._is_enabled = enabled
        self._n_searches = 0
        # Guards what follows; held for milliseconds.
        self._mutex = threading.Lock()
        self._loaded: Loaded | None = None
        self._schema: pa.Schema = None
        self._is_complete = False
        self._changes: list[_Change] = []
        self._changed_numbers = 0
        self._thread: threading.Thread | None = None
        self._next_load = 0.0
        self._is_loading = threading.Lock()
        # Held during each write, so that its versions before and after are known.
        self._writing = threading.RLock()
        self._stop = threading.Event()
        _STORES.add(self)

    # --- reading ------------------------------------------------------------------------------

    @property
    def schema(self) -> pa.Schema:
        """The current columns; see VectorStore."""
        # The same object as long as nothing changes, so that callers can keep what they derive from it.
        return self._store.schema if self._rows() is None else self._schema

    @property
    def version(self) -> int:
        """See VectorStore."""
        return self._store.version

    @property
    def revision(self) -> str:
        """See VectorStore."""
        return self._store.revision

    @property
    def is_loaded(self) -> bool:
        """Whether the rows in memory are those of the store's current version."""
        return self._rows() is not None

    def count(self, where: Filter | None = None) -> int:
        """Return the number of rows; see VectorStore."""
        rows = self._rows() if where else None
        mask = rows.mask(where) if rows else None
        return self._store.count(where) if mask is None else int(np.count_nonzero(mask))

    def scan(
        self, columns: Sequence[str], where: Filter | None = None, *, ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream `columns`; see VectorStore. Rows that are named by their ids are read from memory."""
        rows = self._rows() if ids is not None else None
        mask = rows.mask(where) if rows else None
        if rows is None or ids is None or mask is None or not rows.holds(columns):
            yield from self._store.scan(columns, where, ids=ids)
            return
        positions = rows.positions(ids)
        yield from rows.take(positions[mask[positions]], columns).to_batches()

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
        return self.snapshot().search(vectors, k, where=where, columns=columns, exact=exact)

    def snapshot(self) -> "Snapshot":
        """Return the store as it is now, for a caller that needs its schema and then searches."""
        rows = self._rows()
        return Snapshot(self, rows, self._store.schema if rows is None else self._schema)

    def _search(
        self,
        rows: Rows | None,
        vectors: NDArray[np.float32],
        k: int,
        where: Filter | None,
        columns: Sequence[str],
        exact: bool,
    ) -> list[list[Hit]]:
        self._n_searches += 1
        is_due = rows is None or rows.is_worn or not self._is_complete
        if is_due and (self._loaded is not None or self._n_searches >= _SEARCHES_BEFORE_LOADING):
            self._load_in_background()
        if rows is not None and rows.holds(columns):
            hits = rows.search(check_queries(vectors, k, rows.dim), k, where, columns, exact=exact)
            if hits is not None:
                return hits
        return self._store.search(vectors, k, where=where, columns=columns, exact=exact)

    # --- writing ------------------------------------------------------------------------------

    def append(self, rows: pa.Table) -> None:
        """Add rows; see VectorStore."""
        with self._noting("append", rows=rows):
            self._store.append(rows)

    def update(self, rows: pa.Table) -> None:
        """Overwrite columns of some rows; see VectorStore."""
        with self._noting("update", rows=rows):
            self._store.update(rows)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows; see VectorStore."""
        with self._noting("delete", ids=ids):
            return self._store.delete(ids)

    def add_columns(self, columns: Sequence[pa.Field]) -> None:
        """Add nullable columns; see VectorStore."""
        with self._noting("columns"):
            self._store.add_columns(columns)

    def maintain(self) -> None:
        """Do the maintenance that is due; see VectorStore."""
        self._store.maintain()

    def optimize(self) -> None:
        """Do all maintenance now, and delete what is saved of removed rows; see VectorStore."""
        self._store.optimize()
        with self._cache.lock() as is_locked:
            if is_locked:
                self._cache.discard()

    # --- following the store ------------------------------------------------------------------

    @contextlib.contextmanager
    def _noting(
        self,
        kind: Literal["append", "update", "delete", "columns"],
        rows: pa.Table | None = None,
        ids: Sequence[str] = (),
    ) -> Iterator[None]:
        """Note what a write changes, if rows are in memory or being read."""
        with self._writing:
            if self._loaded is None and not self._is_loading.locked():
                yield
                return
            before = self._store.version
            yield
            change = _Change(before, self._store.version, kind, rows, tuple(ids))
            if change.before == change.after:
                return
            with self._mutex:
                self._changes.append(change)
                width = self._store.schema.field("vector").type.list_size
                self._changed_numbers += width * (len(rows) if rows is not None else len(change.ids))
                if self._changed_numbers > _MAX_CHANGED_NUMBERS:
                    # Too many to hold: they are read from the store, when somebody searches again.
                    self._changes.clear()
                    self._changed_numbers = 0

    def _rows(self) -> Rows | None:
        """Return the rows in memory if they are those of the current version."""
        if self._loaded is None:
            return None
        version = self._store.version
        with self._mutex:
            if self._loaded.version != version:
                self._apply_changes(self._loaded)
            if self._loaded.version == version:
                return self._loaded.rows
        return None

    def _apply_changes(self, loaded: Loaded) -> None:
        """Bring the rows to the version after the last change that follows without a gap."""
        for change in self._changes:
            if change.before == loaded.version:
                rows = _applied(loaded.rows, change, self._store.schema, self._columns)
                loaded = Loaded(rows, change.after)
        if not self._is_loading.locked():
            # Rows that are being read may be of a version before these changes.
            self._changes, self._changed_numbers = [], 0
        if loaded is not self._loaded:
            self._loaded, self._schema = loaded, self._store.schema

    # --- loading ------------------------------------------------------------------------------

    def load(self) -> bool:
        """Load the rows now, if they are not in memory; return whether they are.

        A large store is left where it is if usearch is missing, or if its directory cannot be written.
        """
        if self._is_enabled and not self.is_loaded:
            self._load(os.cpu_count() or 1)
        return self.is_loaded

    def _load_in_background(self) -> None:
        with self._mutex:
            if not self._is_enabled or self._thread or time.monotonic() < self._next_load:
                return
            self._thread = threading.Thread(target=self._load_politely, name="nearsight-memory", daemon=True)
            self._thread.start()

    def _load_politely(self) -> None:
        with contextlib.suppress(OSError):
            if sys.platform == "linux":  # elsewhere this would be the priority of the whole process
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        try:
            self._load(n_background_threads())
        finally:
            self._thread = None

    def _load(self, n_threads: int) -> None:
        started, pause = time.monotonic(), 0.0
        with self._is_loading:
            try:
                with self._writing:  # a write that is under way ends first, and is followed
                    rows = self._rows()
                if rows is not None and not rows.is_worn and self._is_complete:
                    return
                loader = Loader(self._store, self._columns, self._cache, self._stop, n_threads)
                older = self._loaded.rows if self._loaded else None
                self._is_complete = loader.load(older, self._publish)
            except StoppedError:
                return
            except ChangedError:
                _LOG.debug("the rows changed while they were read")
            except NearsightError as error:
                _LOG.info("searches are not answered from memory: %s", error)
                pause = _PAUSE_AFTER_FAILURE_S
        now = time.monotonic()
        self._next_load = now + max(pause, min(_MAX_PAUSE_S, _PAUSE_RATIO * (now - started)))

    def _publish(self, loaded: Loaded) -> None:
        schema = self._store.schema
        with self._mutex:
            self._loaded, self._schema = loaded, schema

    def close(self) -> None:
        """Stop loading; the store goes on without memory."""
        self._is_enabled = False
        self._stop.set()
        thread = self._thread
        if thread is not None:
            thread.join(_EXIT_S)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A store at one version, so that a search looks once whether somebody has written.

    Attributes
    ----------
    schema : pa.Schema
        The columns of that version.
    """

    _store: MemoryStore
    _rows: Rows | None
    schema: pa.Schema

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        *,
        where: Filter | None = None,
        columns: Sequence[str] = (),
        exact: bool = False,
    ) -> list[list[Hit]]:
        """Return the k nearest rows of each vector; see VectorStore.

        Rows that are not in memory are those of a later version, if there is one by now.
        """
        return self._store._search(self._rows, vectors, k, where, columns, exact)


def _all_columns(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if field.name != "vector" and not pa.types.is_binary(field.type)]


def _applied(
    rows: Rows, change: _Change, schema: pa.Schema, columns: Callable[[pa.Schema], Sequence[str]]
) -> Rows:
    if change.kind == "delete":
        return rows.changed(rows.base.table.slice(0, 0), np.empty((0, rows.dim), np.float32), change.ids)
    if change.kind == "columns":
        return rows.with_columns([schema.field(name) for name in columns(schema)])
    held = pa.schema([schema.field(name) for name in rows.columns])
    if change.kind == "append":
        new = pa.table(
            [
                change.rows[field.name].cast(field.type)
                if field.name in change.rows.column_names
                else pa.nulls(len(change.rows), field.type)
                for field in held
            ],
            schema=held,
        )
        return rows.changed(new, _vectors(change.rows, rows.dim))
    return _updated(rows, change.rows, held)


def _updated(rows: Rows, update: pa.Table, held: pa.Schema) -> Rows:
    positions = rows.positions(update["id"].to_pylist())
    old = rows.take(positions, held.names)
    at = {id: number for number, id in enumerate(update["id"].to_pylist())}
    update = update.take(pa.array([at[id] for id in old["id"].to_pylist()], pa.int64()))
    new = pa.table(
        [
            update[field.name].cast(field.type) if field.name in update.column_names else old[field.name]
            for field in held
        ],
        schema=held,
    )
    vectors = _vectors(update, rows.dim) if "vector" in update.column_names else rows.vectors(positions)
    return rows.changed(new, vectors)


def _vectors(table: pa.Table, dim: int) -> NDArray[np.float32]:
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table["vector"].chunks]
    flat = np.concatenate([*chunks, np.empty(0, np.float32)]).astype(np.float32, copy=False)
    return flat.reshape(-1, dim)


_STORES: "weakref.WeakSet[MemoryStore]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for store in list(_STORES):
        store.close()
