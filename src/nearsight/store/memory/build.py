"""Reads the rows of a store into memory, and builds partitions of them, or a graph."""

import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearsight.errors import NearsightError
from nearsight.store.base import VectorStore
from nearsight.store.memory.accelerators import Graph, has_byte_products, has_graphs
from nearsight.store.memory.cache import ArrayFiles, MemoryCache, ordered, save, write_arrays
from nearsight.store.memory.codes import Codes, encode, inverse_norms, rounded
from nearsight.store.memory.partitions import Partitions, grouped, measured
from nearsight.store.memory.plan import MAX_HELD_NUMBERS, MIN_GRAPH_NUMBERS
from nearsight.store.memory.rows import LEAST_RECALL, Part, Rows
from nearsight.store.memory.vectors import HeldVectors

_LOG = logging.getLogger(__name__)
# Rows that an older graph must still share with the store to be worth a comparison.
_MIN_SHARED = 0.8
_ROWS_PER_STEP = 256
# The graph's expansion is the least that finds this share of the ten nearest of some rows that are left out;
# where none does, the least that finds nearly as much as any.
_TARGET_RECALL, _TOLERANCE = 0.9925, 0.001
_EXPANSIONS = (48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
# Walks fail for whole queries, so that the recall of 200 rows was wrong by half a percent.
_N_LEFT_OUT, _K_LEFT_OUT, _COUNT_LEFT_OUT = 1000, 10, 30


class StoppedError(Exception):
    """Loading was told to stop."""


class ChangedError(Exception):
    """The store changed while it was read."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows, and the version of the store that they are of."""

    rows: Rows
    version: int


class Loader:
    """Loads the rows of a store.

    Parameters
    ----------
    store : VectorStore
    columns : callable from pa.Schema to sequence of str
        The columns to hold, besides the vector.
    cache : MemoryCache
    stop : threading.Event
        Ends the work within a fraction of a second.
    n_threads : int
        Threads that build the graph.
    """

    def __init__(
        self,
        store: VectorStore,
        columns: Callable[[pa.Schema], Sequence[str]],
        cache: MemoryCache,
        stop: threading.Event,
        n_threads: int,
    ) -> None:
        self._store, self._columns, self._cache = store, columns, cache
        self._stop, self._n_threads = stop, n_threads

    def load(self, older: Rows | None, publish: Callable[[Loaded], None]) -> bool:
        """Read the rows; publish them as soon as they can be searched, and again when there is a graph.

        Parameters
        ----------
        older : Rows, optional
            Of an earlier version: what did not change since is taken from them.
        publish : callable

        Returns
        -------
        bool
            Whether a later call could do no better; not if another process builds the graph just now.

        Raises
        ------
        StoppedError, ChangedError, NearsightError
            Nothing more is published; the store can be searched without.
        """
        version, revision = self._state()
        reference = older
        if reference is None or reference.graph is None:
            saved = self._cache.open() if has_graphs() else None
            if saved and saved[0].dim == self._dim():
                reference, saved_revision = saved
                if saved_revision == revision and self._holds(reference):
                    publish(Loaded(reference, version))
                    return True
        table = self._read_columns()
        rows = self._updated(reference, table) if reference else None
        if rows is not None:
            self._check_unchanged(version)
            publish(Loaded(rows, version))
            if not rows.is_worn and (rows.graph is not None or not self._wants_graph(table)):
                return True
        return self._load_anew(table, version, revision, publish)

    def _state(self) -> tuple[int, str]:
        while True:
            version, revision = self._store.version, self._store.revision
            if self._store.version == version:
                return version, revision

    def _dim(self) -> int:
        return int(self._store.schema.field("vector").type.list_size)

    def _holds(self, rows: Rows) -> bool:
        schema = self._store.schema
        held = rows.base.table.schema
        return all(
            name in held.names and held.field(name).type == schema.field(name).type
            for name in self._columns(schema)
        )

    def _check_unchanged(self, version: int) -> None:
        if self._store.version != version:
            raise ChangedError

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _read_columns(self) -> pa.Table:
        schema = self._store.schema
        names = list(self._columns(schema))
        batches = []
        for batch in self._store.scan(names):
            self._check_stop()
            batches.append(batch)
        fields = pa.schema([schema.field(name) for name in names])
        return pa.Table.from_batches([batch.cast(fields) for batch in batches], fields).combine_chunks()

    def _read_vectors(self, table: pa.Table) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the vectors of all rows in the order of a table, with the position of the first."""
        start = 0
        for batch in self._store.scan(["id", "vector"]):
            self._check_stop()
            expected = table["id"].slice(start, len(batch)).combine_chunks()
            if not batch.column("id").equals(expected):
                raise ChangedError
            flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
            yield start, flat.reshape(len(batch), -1)
            start += len(batch)
        if start != len(table):
            raise ChangedError

    # --- what did not change ------------------------------------------------------------------

    def _updated(self, older: Rows, table: pa.Table) -> Rows | None:
        """Return the rows of a table with the vectors and the graph of older ones, where they are the same.

        None if too little is the same.
        """
        base = older.base
        base_ids = base.table["id"].combine_chunks()
        places = pc.index_in(table["id"].combine_chunks(), base_ids).fill_null(-1)
        positions = places.to_numpy(zero_copy_only=False).astype(np.int64)
        n_limit = max(1000, MAX_HELD_NUMBERS // older.dim // 4)
        if not len(base) or np.count_nonzero(positions >= 0) < _MIN_SHARED * len(base):
            return None
        is_same = positions >= 0
        recent: list[NDArray[np.float32]] = []
        for start, vectors in self._read_vectors(table):
            own = slice(start, start + len(vectors))
            at = positions[own]
            is_same[own] &= (base.vectors.take(np.maximum(at, 0)) == vectors).all(axis=1)
            recent.append(vectors[~is_same[own]])
            n_limit -= len(recent[-1])
            if n_limit < 0:
                return None
        alive = np.zeros(len(base), bool)
        alive[positions[is_same]] = True
        sources = np.full(len(base), -1)
        sources[positions[is_same]] = np.flatnonzero(is_same)
        own_table = table.take(pa.array(sources, mask=sources < 0))
        part = Part(own_table.combine_chunks(), base.vectors, base.inverse_norms, base.codes)
        new = table.filter(pa.array(~is_same))
        rows = Rows.of(part, older.graph, alive)
        return rows.changed(new, np.concatenate([*recent, np.empty((0, older.dim), np.float32)]))

    # --- all rows -----------------------------------------------------------------------------

    def _wants_graph(self, table: pa.Table) -> bool:
        return has_graphs() and len(table) * self._dim() >= MIN_GRAPH_NUMBERS

    def _load_anew(
        self, table: pa.Table, version: int, revision: str, publish: Callable[[Loaded], None]
    ) -> bool:
        n_numbers = len(table) * self._dim()
        if not self._wants_graph(table):
            if n_numbers <= MAX_HELD_NUMBERS:
                self._publish_unchanged(self._in_memory(table), version, publish)
            return True
        with self._cache.lock() as is_locked:
            directory = self._new_directory() if is_locked else None
            try:
                if n_numbers <= MAX_HELD_NUMBERS:
                    part = self._in_memory(table)
                    self._publish_unchanged(part, version, publish)
                    if not is_locked and self._cache.is_writable:
                        return False
                elif directory is not None:
                    part = self._on_disk(table, directory)
                else:
                    return not self._cache.is_writable
                part, graph = self._searchable(part, None if n_numbers <= MAX_HELD_NUMBERS else directory)
                if graph is None:
                    return True
                rows = Rows.of(part, graph)
                if directory is not None and self._is_saved(part, graph, directory, revision):
                    self._cache.discard(keep=directory)
                    directory = None
                    saved = self._cache.open() if n_numbers <= MAX_HELD_NUMBERS else None
                    rows = saved[0] if saved else rows
                publish(Loaded(rows, version))
                return True
            finally:
                if directory is not None:
                    self._cache.discard()

    def _publish_unchanged(self, part: Part, version: int, publish: Callable[[Loaded], None]) -> None:
        self._check_unchanged(version)
        publish(Loaded(Rows.of(part), version))

    def _new_directory(self) -> Path | None:
        try:
            self._cache.discard()
            return self._cache.new_directory()
        except OSError as error:
            _LOG.info("the graph is not saved: %s", error)
            return None

    @staticmethod
    def _is_saved(part: Part, graph: Graph | Partitions, directory: Path, revision: str) -> bool:
        try:
            if math.prod(part.vectors.shape) <= MAX_HELD_NUMBERS:
                write_arrays(directory, part)
            save(directory, part, graph, revision)
        except OSError as error:
            _LOG.info("the graph is not saved: %s", error)
            return False
        return True

    def _in_memory(self, table: pa.Table) -> Part:
        n, dim = len(table), self._dim()
        vectors, norms = np.empty((n, dim), np.float32), np.empty(n, np.float32)
        values, scales, error = np.empty((n, dim), np.int8), np.empty(n, np.float32), 0.0
        has_codes = has_byte_products()
        for start, rows in self._read_vectors(table):
            own = slice(start, start + len(rows))
            vectors[own], norms[own] = rows, inverse_norms(rows)
            if has_codes:
                codes = encode(rows, norms[own])
                values[own], scales[own], error = codes.values, codes.scales, max(error, codes.error)
        return Part(table, HeldVectors(vectors), norms, Codes(values, scales, error) if has_codes else None)

    def _on_disk(self, table: pa.Table, directory: Path) -> Part:
        files = ArrayFiles(directory, self._dim())
        try:
            for _, rows in self._read_vectors(table):
                norms = inverse_norms(rows)
                files.append(rows, norms, encode(rows, norms))
            return files.part(table)
        except OSError as error:
            raise NearsightError(f"{directory} cannot be written: {error}") from error
        finally:
            files.close()

    def _searchable(self, part: Part, directory: Path | None) -> tuple[Part, Graph | Partitions | None]:
        """Return the rows, maybe in another order, with partitions if those are fast enough, or a graph.

        With a directory, the rows are in files there.
        """
        if part.codes is None:
            return part, None
        centers, numbers = grouped(part, self._check_stop)
        order = np.argsort(numbers, kind="stable")
        try:
            part = part.ordered(order) if directory is None else ordered(directory, part, order)
        except OSError as error:
            raise NearsightError(f"{directory} cannot be written: {error}") from error
        partitions = measured(part, centers, numbers[order], self._check_stop)
        return part, partitions or self._graph(part)

    def _graph(self, part: Part) -> Graph | None:
        """Return the graph of all rows; None without codes."""
        codes = part.codes
        if codes is None:
            return None
        rng = np.random.default_rng(0)
        order = rng.permutation(len(part))
        n_left_out = min(_N_LEFT_OUT, len(part) // 10)
        left_out, others = order[:n_left_out], order[n_left_out:]
        graph = Graph.empty(part.vectors.shape[1])
        self._add(graph, others, codes)
        if n_left_out:
            self._calibrate(graph, part, np.sort(left_out), np.sort(others))
        if graph.recall < LEAST_RECALL:
            _LOG.info("the graph finds %.3f of the nearest ten, too little to be used", graph.recall)
        self._add(graph, left_out, codes)
        if self._n_threads > 1:
            self._add_unreachable(graph, codes)
        return graph

    def _add(self, graph: Graph, positions: NDArray[np.int64], codes: Codes) -> None:
        for start in range(0, len(positions), _ROWS_PER_STEP):
            self._check_stop()
            keys = positions[start : start + _ROWS_PER_STEP]
            graph.add(keys, codes.values[keys], self._n_threads)

    def _add_unreachable(self, graph: Graph, codes: Codes) -> None:
        """Add rows again to which no walk leads.

        Of rows that threads add at the same time, a few in ten thousand get no edges that lead to them. Added
        by one thread, they do.
        """
        expansion, graph.expansion = graph.expansion, _EXPANSIONS[0]
        for start in range(0, len(codes.values), _ROWS_PER_STEP):
            self._check_stop()
            own = codes.values[start : start + _ROWS_PER_STEP]
            found = graph.search(own, _K_LEFT_OUT, self._n_threads)
            lost = [number for number, keys in enumerate(found) if start + number not in keys]
            for number in lost:
                graph.add(np.array([start + number]), own[number : number + 1], 1)
        graph.expansion = expansion

    @staticmethod
    def _calibrate(graph: Graph, part: Part, left_out: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        """Set the expansion, by rows that are not in the graph, and the recall that it has."""
        queries = part.vectors.take(left_out) * part.inverse_norms[left_out, None]
        nearest = Rows.of(part).compare_at_once(queries, _K_LEFT_OUT, others)
        limits = [np.sort(cosines)[-_K_LEFT_OUT:][0] for _, cosines in nearest]
        codes = rounded(queries)
        recalls = []
        for graph.expansion in _EXPANSIONS:
            keys = graph.search(codes, _COUNT_LEFT_OUT)
            hits = [
                min(_K_LEFT_OUT, int((part.similarities(query, own) >= limit - 1e-6).sum()))
                for query, own, limit in zip(queries, keys, limits, strict=True)
            ]
            recalls.append(sum(hits) / (_K_LEFT_OUT * len(hits)))
        wanted = min(_TARGET_RECALL, max(recalls) - _TOLERANCE)
        chosen = next(number for number, recall in enumerate(recalls) if recall >= wanted)
        graph.expansion, graph.recall = _EXPANSIONS[chosen], recalls[chosen]


def n_background_threads() -> int:
    """Return how many threads build a graph beside other work."""
    return max(1, (os.cpu_count() or 1) // 2)
