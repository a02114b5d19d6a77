"""Rows in memory, and the search among them.

Objects are never changed: a change makes a new one, so that a search in another thread goes on with its own.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate, repeat
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearsight.store.base import Hit
from nearsight.store.filters.arrow import matching_rows
from nearsight.store.filters.ast import Filter
from nearsight.store.memory.accelerators import byte_products, has_byte_products
from nearsight.store.memory.codes import Codes, encode, inverse_norms, rounded, score_error
from nearsight.store.memory.plan import choose, n_candidates
from nearsight.store.memory.vectors import HeldVectors, Vectors

Mask = NDArray[np.bool_]
_Positions = NDArray[np.int64]

# Rows compared by their bytes before a bound for the exact similarities is known.
_MIN_SCORED = 64
# With more candidates than this share, a product of all vectors is faster than gathering them.
_GATHERED_SHARE = 0.25
_BATCH_NUMBERS = 16_000_000
_LARGE_BATCH = 8
_N_MASKS = 16
_MAX_READ_ONE_BY_ONE = 64
#: Numbers of vectors that came since, and are compared one by one, beyond which all rows are read again.
MAX_RECENT_NUMBERS = 4_000_000
_MAX_DEAD_SHARE, _MIN_DEAD = 0.2, 1000
#: The share of the nearest that a graph must find to be used.
LEAST_RECALL = 0.99


class NearRows(Protocol):
    """A graph, or partitions; a key is the position of a row.

    Attributes
    ----------
    recall : float
        The share of the nearest that searches were seen to find.
    """

    recall: float

    def __len__(self) -> int: ...

    def search(self, queries: NDArray[np.int8], count: int, n_threads: int | None = None) -> list[_Positions]:
        """Return the keys of at most `count` near rows for each of the (b, d) queries."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Rows with their vectors.

    Attributes
    ----------
    table : pa.Table
        The columns, each in one chunk.
    vectors : Vectors
        Of shape (n, d).
    inverse_norms : ndarray of float32, shape (n,)
        Reciprocals of the vectors' lengths.
    codes : Codes or None
        None where numkong is missing.
    """

    table: pa.Table
    vectors: Vectors
    inverse_norms: NDArray[np.float32]
    codes: Codes | None

    @classmethod
    def of(cls, table: pa.Table, vectors: NDArray[np.float32]) -> "Part":
        """Return rows of a table and their vectors."""
        norms = inverse_norms(vectors)
        codes = encode(vectors, norms) if has_byte_products() else None
        return cls(table.combine_chunks(), HeldVectors(vectors), norms, codes)

    def __len__(self) -> int:
        return len(self.inverse_norms)

    def ordered(self, order: _Positions) -> "Part":
        """Return the rows in another order, in memory."""
        codes = self.codes and Codes(self.codes.values[order], self.codes.scales[order], self.codes.error)
        vectors = HeldVectors(self.vectors.take(order))
        return Part(
            self.table.take(pa.array(order)).combine_chunks(), vectors, self.inverse_norms[order], codes
        )

    def empty(self) -> "Part":
        """Return no rows, with the same columns."""
        return Part.of(self.table.slice(0, 0), np.empty((0, self.vectors.shape[1]), np.float32))

    def similarities(self, query: NDArray[np.float32], positions: _Positions) -> NDArray[np.float32]:
        """Return the cosines of a (d,) unit query with some rows; equal vectors have equal cosines."""
        rows = self.vectors.take(positions)
        cosines: NDArray[np.float32] = np.einsum("ij,j->i", rows, query) * self.inverse_norms[positions]
        return cosines

    def nearest(self, query: NDArray[np.float32], k: int, rows: _Positions | None) -> _Positions:
        """Return positions among which are the k nearest of `rows` (None: of all), by exact comparison."""
        n = len(self) if rows is None else len(rows)
        if n <= k:
            return np.arange(len(self)) if rows is None else rows
        if self.codes is not None:
            chosen = self._nearest_by_codes(query, k, rows, self.codes)
            if chosen is not None:
                return chosen
        if rows is None or n > _GATHERED_SHARE * len(self):
            cosines = self.vectors.products(query) * self.inverse_norms
            cosines = cosines if rows is None else cosines[rows]
        else:
            cosines = self.similarities(query, rows)
        # Rounding must not decide which of equal vectors is among the k.
        least = np.partition(cosines, n - k)[n - k]
        chosen = np.flatnonzero(cosines >= least - 1e-6)
        return chosen if rows is None else rows[chosen]

    def _nearest_by_codes(
        self, query: NDArray[np.float32], k: int, rows: _Positions | None, codes: Codes
    ) -> _Positions | None:
        """Return what `nearest` does, or None if the bytes leave too many candidates.

        The bytes give each cosine up to a bound. The k-th best exact cosine of a few promising rows is a
        lower limit; every row that may reach it is a candidate.
        """
        code = encode(query[None], np.ones(1, np.float32))
        is_gathered = rows is not None and len(rows) <= _GATHERED_SHARE * len(self)
        values = codes.values[rows] if is_gathered else codes.values
        scales = codes.scales[rows] if is_gathered else codes.scales
        scores = byte_products(code.values[0], values) * (scales * code.scales[0])
        if rows is not None and not is_gathered:
            scores = scores[rows]
        n = len(scores)
        n_first = min(n, max(_MIN_SCORED, 2 * k))
        promising = np.argpartition(scores, n - n_first)[n - n_first :]
        exact = self.similarities(query, promising if rows is None else rows[promising])
        least = np.partition(exact, len(exact) - k)[len(exact) - k] - 1e-6
        candidates = np.flatnonzero(scores >= least - score_error(codes, code))
        if len(candidates) > max(1000, _GATHERED_SHARE * n):
            return None
        return candidates if rows is None else rows[candidates]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a store: a large part that the graph covers, and what came since.

    Attributes
    ----------
    base, recent : Part
        The position of a recent row is counted on from the base.
    alive : ndarray of bool, shape (n,)
        False for rows that were removed, or replaced by a recent one.
    graph : NearRows or None
        What finds near rows of the base without comparing all.
    """

    base: Part
    recent: Part
    alive: Mask
    n_alive: int
    graph: NearRows | None
    _masks: "dict[Filter, Mask | None]"

    @classmethod
    def of(cls, base: Part, graph: NearRows | None = None, alive: Mask | None = None) -> "Rows":
        """Return rows without recent ones; by default all are alive."""
        return cls._made(base, base.empty(), np.ones(len(base), bool) if alive is None else alive, graph)

    @classmethod
    def _made(cls, base: Part, recent: Part, alive: Mask, graph: NearRows | None) -> "Rows":
        return cls(base, recent, alive, int(alive.sum()), graph, {})

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.base.vectors.shape[1]

    @property
    def columns(self) -> list[str]:
        """The columns in memory, besides the vector."""
        names: list[str] = self.base.table.column_names
        return names

    def holds(self, columns: Sequence[str]) -> bool:
        """Whether these columns are in memory; the vector always is."""
        return {*columns} <= {*self.columns, "vector"}

    @property
    def reliable_graph(self) -> NearRows | None:
        """The graph, if walks find enough."""
        return self.graph if self.graph is not None and self.graph.recall >= LEAST_RECALL else None

    # --- changes ------------------------------------------------------------------------------

    def changed(self, table: pa.Table, vectors: NDArray[np.float32], removed: Sequence[str] = ()) -> "Rows":
        """Return the rows after some were removed, and those of a table added or replaced."""
        gone = self.positions([*removed, *table["id"].to_pylist()])
        alive = np.concatenate([self.alive, np.ones(len(table), bool)])
        alive[gone] = False
        recent = Part.of(
            # A column may hold nulls in one table, and none by its schema in the other.
            pa.concat_tables([self.recent.table, table.select(self.columns).cast(self.recent.table.schema)]),
            np.concatenate([self.recent.vectors.block(0, len(self.recent)), vectors]),
        )
        return self._made(self.base, recent, alive, self.graph)

    def with_columns(self, columns: Sequence[pa.Field]) -> "Rows":
        """Return the same rows with these columns; those that are new hold nothing."""
        base, recent = (
            replace(part, table=_with_columns(part.table, columns)) for part in (self.base, self.recent)
        )
        return self._made(base, recent, self.alive, self.graph)

    @property
    def is_worn(self) -> bool:
        """Whether so much has changed that reading all rows again pays."""
        n_dead = len(self.alive) - self.n_alive
        return (
            len(self.recent) * self.dim > MAX_RECENT_NUMBERS
            or n_dead * self.dim > MAX_RECENT_NUMBERS
            or n_dead > max(_MIN_DEAD, _MAX_DEAD_SHARE * len(self.alive))
        )

    def positions(self, ids: Sequence[str]) -> _Positions:
        """Return where rows of these ids are; ids that are not there are left out."""
        if not len(ids):
            return np.empty(0, np.int64)
        found = [
            np.flatnonzero(_has_id(part.table["id"], ids)) + first
            for part, first in ((self.base, 0), (self.recent, len(self.base)))
        ]
        positions = np.concatenate(found)
        return positions[self.alive[positions]]

    # --- reading ------------------------------------------------------------------------------

    def mask(self, where: Filter | None) -> Mask | None:
        """Return which rows are alive and match; None if only the engine can say."""
        if where is None:
            return self.alive
        with suppress(KeyError):  # no look before: another thread may take it out meanwhile
            return self._masks[where]
        parts = [matching_rows(where, part.table) for part in (self.base, self.recent)]
        known = [part for part in parts if part is not None]
        for oldest in list(self._masks)[: len(self._masks) + 1 - _N_MASKS]:
            self._masks.pop(oldest, None)
        mask = np.concatenate(known) & self.alive if len(known) == len(parts) else None
        self._masks[where] = mask
        return mask

    def take(self, positions: _Positions, columns: Sequence[str]) -> pa.Table:
        """Return columns of rows in the order of positions; ``vector`` is one of them."""
        plain = [name for name in columns if name != "vector"]
        n_base = len(self.base)
        if not len(self.recent):
            table = self.base.table.select(plain).take(pa.array(positions))
        else:
            is_base = positions < n_base
            own = self.base.table.select(plain).take(pa.array(positions[is_base]))
            new = self.recent.table.select(plain).take(pa.array(positions[~is_base] - n_base))
            order = np.empty(len(positions), np.int64)
            order[np.concatenate([np.flatnonzero(is_base), np.flatnonzero(~is_base)])] = np.arange(
                len(positions)
            )
            table = pa.concat_tables([own, new]).take(pa.array(order))
        if "vector" in columns:
            flat = pa.array(self.vectors(positions).ravel())
            table = table.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, self.dim))
        return table.select(list(columns))

    def vectors(self, positions: _Positions) -> NDArray[np.float32]:
        """Return the vectors of rows."""
        n_base = len(self.base)
        is_base = positions < n_base
        vectors = np.empty((len(positions), self.dim), np.float32)
        vectors[is_base] = self.base.vectors.take(positions[is_base])
        vectors[~is_base] = self.recent.vectors.take(positions[~is_base] - n_base)
        return vectors

    # --- search -------------------------------------------------------------------------------

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        where: Filter | None,
        columns: Sequence[str],
        *,
        exact: bool,
    ) -> list[list[Hit]] | None:
        """Return the hits of (b, d) queries, or None if the store would be faster or must decide."""
        mask = self.mask(where)
        if mask is None:
            return None
        n_matching = self.n_alive if where is None else int(np.count_nonzero(mask))
        if not n_matching:
            return [[] for _ in queries]
        n = len(mask)
        graph = None if exact else self.reliable_graph
        path = choose(n, n_matching, self.dim, k, len(queries), has_graph=graph is not None)
        if path == "store":
            return None
        unit = queries * inverse_norms(queries)[:, None]
        if path == "graph" and graph is not None:
            nearest = self._walk(graph, unit, k, mask, n_matching)
        else:
            nearest = self._compare(unit, k, mask, n_matching)
        return None if nearest is None else self._hits(nearest, k, columns)

    def _compare(
        self, queries: NDArray[np.float32], k: int, mask: Mask, n_matching: int
    ) -> "list[tuple[_Positions, NDArray[np.float32]]]":
        """Return positions and cosines of the nearest of all matching rows, for each query."""
        n_base = len(self.base)
        is_all = n_matching == len(mask)
        if len(queries) >= _LARGE_BATCH:
            return self.compare_at_once(queries, k, np.flatnonzero(mask))
        base_rows = None if is_all else np.flatnonzero(mask[:n_base])
        recent_rows = None if is_all else np.flatnonzero(mask[n_base:])
        return [
            self._merged(
                query,
                self.base.nearest(query, k, base_rows),
                self.recent.nearest(query, k, recent_rows),
            )
            for query in queries
        ]

    def compare_at_once(
        self, queries: NDArray[np.float32], k: int, rows: _Positions
    ) -> "list[tuple[_Positions, NDArray[np.float32]]]":
        """Return what `_compare` does, by matrix products of blocks of rows."""
        best: list[list[_Positions]] = [[] for _ in queries]
        step = max(1, _BATCH_NUMBERS // max(self.dim, len(queries)))
        n_base = len(self.base)
        norms = np.concatenate([self.base.inverse_norms, self.recent.inverse_norms])
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            is_contiguous = len(block) == block[-1] - block[0] + 1 and block[-1] < n_base
            vectors = (
                self.base.vectors.block(int(block[0]), int(block[-1]) + 1)
                if is_contiguous
                else self.vectors(block)
            )
            cosines = (queries @ vectors.T) * norms[block]
            kept = min(k, len(block))
            least = np.partition(cosines, len(block) - kept, axis=1)[:, len(block) - kept]
            for own, row, limit in zip(best, cosines, least, strict=True):
                own.append(block[row >= limit - 1e-6])
        return [self._scored(query, np.concatenate(own)) for query, own in zip(queries, best, strict=True)]

    def _walk(
        self, graph: NearRows, queries: NDArray[np.float32], k: int, mask: Mask, n_matching: int
    ) -> "list[tuple[_Positions, NDArray[np.float32]]] | None":
        """Return what the graph finds and the recent rows add; None if some query must go to the store."""
        n_base = len(self.base)
        codes = rounded(queries)
        count = n_candidates(len(mask), n_matching, k)
        is_all = n_matching == len(mask)
        recent_rows = None if is_all else np.flatnonzero(mask[n_base:])
        has_repetitions = len(graph) > n_base
        nearest = []
        short: list[int] = []
        for number, keys in enumerate(graph.search(codes, count)):
            keys = keys if is_all else keys[mask[keys]]
            keys = _without_repetitions(keys) if has_repetitions else keys
            query = queries[number]
            recent = self.recent.nearest(query, k, recent_rows)
            if len(keys) + len(recent) < min(k, n_matching):
                short.append(number)
            nearest.append(self._merged(query, keys, recent))
        if short:
            # The filter leaves out what lies near: too few candidates match.
            if choose(len(mask), n_matching, self.dim, k, has_graph=False) == "store":
                return None
            compared = self._compare(queries[short], k, mask, n_matching)
            for number, own in zip(short, compared, strict=True):
                nearest[number] = own
        return nearest

    def _merged(
        self, query: NDArray[np.float32], base: _Positions, recent: _Positions
    ) -> "tuple[_Positions, NDArray[np.float32]]":
        cosines = self.base.similarities(query, base)
        if not len(recent):
            return base, cosines
        return (
            np.concatenate([base, recent + len(self.base)]),
            np.concatenate([cosines, self.recent.similarities(query, recent)]),
        )

    def _scored(
        self, query: NDArray[np.float32], positions: _Positions
    ) -> "tuple[_Positions, NDArray[np.float32]]":
        is_base = positions < len(self.base)
        return self._merged(query, positions[is_base], positions[~is_base] - len(self.base))

    def _hits(
        self,
        nearest: "list[tuple[_Positions, NDArray[np.float32]]]",
        k: int,
        columns: Sequence[str],
    ) -> list[list[Hit]]:
        """Return hits of the k best of each query; equal similarities are ordered by id."""
        chosen = [_best(positions, cosines, k) for positions, cosines in nearest]
        positions = np.concatenate([positions for positions, _ in chosen])
        names = [name for name in dict.fromkeys(columns) if name != "id"]
        values = self._values(positions, ["id", *names])
        rows = zip(*values[1:], strict=True) if names else repeat(())
        cosines = np.concatenate([cosines for _, cosines in chosen])
        similarities = np.minimum(np.maximum(cosines, -1), 1).tolist()
        found = [
            Hit(id, similarity, dict(zip(names, row, strict=True)))
            for id, similarity, row in zip(values[0], similarities, rows, strict=False)
        ]
        ends = accumulate(len(positions) for positions, _ in chosen)
        return [
            sorted(found[end - len(positions) : end], key=_order)[:k]
            for (positions, _), end in zip(chosen, ends, strict=True)
        ]

    def _values(self, positions: _Positions, columns: Sequence[str]) -> list[list[Any]]:
        """Return the values of rows by column; a few are read one by one, which is several times as fast."""
        if len(positions) > _MAX_READ_ONE_BY_ONE or "vector" in columns:
            table = self.take(positions, columns)
            return [table.column(name).to_pylist() for name in columns]
        n_base, places = len(self.base), positions.tolist()
        base, recent = ([part.table.column(name) for name in columns] for part in (self.base, self.recent))
        return [
            [own[at].as_py() if at < n_base else new[at - n_base].as_py() for at in places]
            for own, new in zip(base, recent, strict=True)
        ]


def _has_id(column: pa.ChunkedArray, ids: Sequence[str]) -> Mask:
    if len(ids) == 1:  # several times as fast as a look-up of many
        has_id = pc.equal(column, ids[0]).fill_null(False)
    else:
        has_id = pc.is_in(column, pa.array(ids, pa.string()))
    mask: Mask = has_id.to_numpy()
    return mask


def _without_repetitions(keys: _Positions) -> _Positions:
    """Return keys in order, each once; `np.unique` takes five times as long for a few."""
    keys = np.sort(keys)
    is_first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    return keys[is_first]


def _with_columns(table: pa.Table, columns: Sequence[pa.Field]) -> pa.Table:
    arrays = [
        table[field.name] if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in columns
    ]
    return pa.table(arrays, schema=pa.schema(columns))


def _order(hit: Hit) -> tuple[float, str]:
    return -hit.similarity, hit.id


def _best(
    positions: _Positions, cosines: NDArray[np.float32], k: int
) -> "tuple[_Positions, NDArray[np.float32]]":
    """Return the k best, and what equals the last of them."""
    if len(positions) <= k:
        return positions, cosines
    least = np.partition(cosines, len(cosines) - k)[len(cosines) - k]
    chosen = cosines >= least
    return positions[chosen], cosines[chosen]
