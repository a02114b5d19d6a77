"""The nearest rows of a vector in Milvus.

The server searches a part that has no index yet by a rough one of its own, 16 of 128 lists whatever a
search asks for, and loses neighbors without a word: of vectors without clusters, a sixth of them, and two
thirds with a filter that one row in a thousand matches. So rows are counted and marked until they are known
to be in the index, and those that match are compared here until then.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.errors import FilterError, NearsightError
from nearsight.parallel import ordered_map
from nearsight.store.base import check_queries
from nearsight.store.filters.arrow import matching_rows
from nearsight.store.filters.ast import Filter
from nearsight.store.filters.conditions import columns_of
from nearsight.store.json_columns import arrow_column, directions
from nearsight.store.milvus.address import INDEXES
from nearsight.store.milvus.entry import MARK, StoreEntry
from nearsight.store.milvus.expressions import COLUMNS, MilvusExpressions, among
from nearsight.store.milvus.server import BATCH, MAX_HITS, Server

#: Where the index does not have all rows, this many that match are compared one by one. If more match, the
#: index is asked, and only those are compared that it may not have.
MAX_COMPARED = 20_000
# The server compares matching rows one by one where they are fewer than 7 % of a part of the table; of more,
# its graph loses neighbors. Up to a third of the rows, and so many, are asked for in shares as small as that.
_ONE_BY_ONE, _MOST_SPLIT, _MAX_SPLIT_ROWS = 0.06, 0.33, 200_000
_WALKED = ("HNSW", "DISKANN")
# For so many changes of the table, a count is good enough to choose by.
_MAX_CHANGES, _MAX_COUNTS = 16, 64
_N_THREADS = 4


@dataclass(frozen=True, slots=True)
class Found:
    """A row of an answer: its cosine, and what the table holds of it."""

    similarity: float
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What a search asks for.

    Attributes
    ----------
    vectors : array of shape (n, dim)
    k : int
    where : Filter, optional
    with_vectors : bool
        Whether the answer holds vectors.
    exact : bool
        Whether no index may be used.
    """

    vectors: NDArray[np.float32]
    k: int
    where: Filter | None
    with_vectors: bool
    exact: bool


class MilvusSearch:
    """Searches of one table.

    Parameters
    ----------
    server : Server
    table : str
    read_entry : callable
        Returns the entry of the store.
    """

    def __init__(self, server: Server, table: str, read_entry: Callable[[], StoreEntry]) -> None:
        self._server = server
        self._table = table
        self._read_entry = read_entry
        self._entry: StoreEntry | None = None
        self._indexed = ("", 0)
        # By expression: the version that was counted, and the number of rows.
        self._counts: dict[str, tuple[int, int]] = {}

    def nearest(self, question: Question) -> tuple[StoreEntry, list[list[Found]]]:
        """Return the entry of the store, and the k nearest rows of each vector.

        *Method*: the server's index answers, by exact scores. A filter that at most a third of the rows match
        is cut by keys into filters so narrow that the server compares all their rows. Fewer than k are
        believed only if no more rows match. Where rows may not be in the index yet, those that match are
        compared one by one here. As a question waits for the server's clock, the entry is read at the same
        time: the answer counts if the entry is still what it was.
        """
        known = self._entry
        if known is None:
            known = self._entry = self._read_entry()
            return known, self._answer(known, question)
        calls: list[Callable[[], Any]] = [self._read_entry, lambda: self._attempt(known, question)]
        entry, (found, error) = ordered_map(lambda call: call(), calls, n_threads=2)
        self._entry = entry
        if entry.incarnation != known.incarnation:
            self._counts = {}
        if _facts(entry) != _facts(known):
            return entry, self._answer(entry, question)
        if error is not None:
            raise error
        return entry, found

    def _attempt(
        self, entry: StoreEntry, question: Question
    ) -> tuple[list[list[Found]] | None, NearsightError | None]:
        try:
            return self._answer(entry, question), None
        except NearsightError as error:
            return None, error

    def _answer(self, entry: StoreEntry, question: Question) -> list[list[Found]]:
        schema = entry.public_schema
        dim = schema.field("vector").type.list_size
        queries, _ = directions(check_queries(question.vectors, question.k, dim))
        where, k = question.where, question.k
        expression, is_whole = MilvusExpressions().write(where) if where else ("", True)
        is_exact = entry.index == "FLAT" or not question.exact
        if is_exact and is_whole and k * INDEXES[entry.index] <= MAX_HITS:
            n_matching, is_indexed = None, self.is_indexed(entry)
            if not is_indexed:
                n_matching = self._server.count(self._table, expression)
            if n_matching is None or (n_matching > MAX_COMPARED and entry.is_marked):
                found = self._by_index(entry, queries, k, expression, question.with_vectors)
                if not is_indexed:
                    new = f'{COLUMNS}["{MARK}"] >= {entry.n_indexed}'
                    new = f"{new} and {expression}" if expression else new
                    others = self._compared(schema, queries, k, new, None, question.with_vectors)
                    found = [_best(own, other, k) for own, other in zip(found, others, strict=True)]
                fewest = min(map(len, found), default=k)
                if fewest >= k:
                    return found
                if n_matching is None:
                    n_matching = self._server.count(self._table, expression)
                if fewest >= n_matching:
                    return found
        checked = None if is_whole else where
        return self._compared(schema, queries, k, expression, checked, question.with_vectors)

    def is_indexed(self, entry: StoreEntry) -> bool:
        """Whether the server searches all rows by the index, or one by one."""
        if entry.has_many_unsealed:
            return False
        flushed = (entry.incarnation, entry.n_flushes)
        if entry.n_indexed == entry.n_flushes or self._indexed == flushed or entry.index == "FLAT":
            return True
        if self._server.index_state(self._table)[1]:
            return False
        self._indexed = flushed
        return True

    def _by_index(
        self, entry: StoreEntry, queries: NDArray[np.float32], k: int, expression: str, with_vectors: bool
    ) -> list[list[Found]]:
        """Return rows by the index; where it rounds vectors, more are fetched and compared."""
        is_rounded = INDEXES[entry.index] > 1
        fields = ["key", COLUMNS, *(["vector"] if is_rounded or with_vectors else [])]
        n_fetched = k * INDEXES[entry.index]

        def search(part: str) -> list[list[dict[str, Any]]]:
            return self._server.search(self._table, queries, n_fetched, part, entry.index, fields)

        parts = self._parts(entry, expression)
        answers = list(ordered_map(search, parts, n_threads=min(_N_THREADS, len(parts))))
        results = []
        for query, *own in zip(queries, *answers, strict=True):
            hits = [hit for part in own for hit in part]
            if is_rounded and hits:
                scores = np.array([hit["vector"] for hit in hits], np.float32) @ query
            else:
                scores = np.array([hit["score"] for hit in hits], np.float32)
            best = np.argsort(-scores, kind="stable")[:k]
            results.append([Found(float(scores[i]), hits[i]) for i in best])
        return results

    def _parts(self, entry: StoreEntry, expression: str) -> list[str]:
        """Return filters that together match what `expression` matches."""
        if not expression or entry.index not in _WALKED:
            return [expression]
        n_matching, n_rows = ordered_map(lambda own: self._counted(entry, own), [expression, ""], n_threads=2)
        share = n_matching / max(1, n_rows)
        if not _ONE_BY_ONE < share <= _MOST_SPLIT or n_matching > _MAX_SPLIT_ROWS:
            return [expression]
        n_parts = math.ceil(share / _ONE_BY_ONE)
        # Keys are hashes: each range has as many.
        bounds = [f"{number * 16**8 // n_parts:08x}" for number in range(n_parts)]
        ranges = [f'key >= "{bound}"' for bound in bounds]
        ranges = [f'{own} and key < "{end}"' for own, end in zip(ranges, bounds[1:], strict=False)] + ranges[
            -1:
        ]
        return [f"{own} and {expression}" for own in ranges]

    def _counted(self, entry: StoreEntry, expression: str) -> int:
        """Return the number of rows that match now, or matched a few changes ago."""
        version, n_rows = self._counts.get(expression, (-_MAX_CHANGES - 1, 0))
        if not 0 <= entry.version - version <= _MAX_CHANGES:
            n_rows = self._server.count(self._table, expression)
            if len(self._counts) >= _MAX_COUNTS:
                self._counts = {}
            self._counts[expression] = (entry.version, n_rows)
        return n_rows

    def _compared(
        self,
        schema: pa.Schema,
        queries: NDArray[np.float32],
        k: int,
        expression: str,
        checked: Filter | None,
        with_vectors: bool,
    ) -> list[list[Found]]:
        """Return rows by comparing all that match, a page at a time, and read them afterwards."""
        best: list[list[tuple[float, str]]] = [[] for _ in queries]
        fields = ["vector", COLUMNS] if checked else ["vector"]
        dim = schema.field("vector").type.list_size
        for page in self._server.pages(self._table, expression, fields, dim):
            if checked:
                kept = matching(checked, [row[COLUMNS] for row in page], schema)
                page = [row for row, keep in zip(page, kept, strict=True) if keep]
            if not page:
                continue
            X, _ = directions(np.array([row["vector"] for row in page], np.float32))
            for own, scores in zip(best, queries @ X.T, strict=True):
                nearest = np.argpartition(-scores, k - 1)[:k] if len(scores) > k else range(len(scores))
                own += [(float(scores[i]), page[i]["key"]) for i in nearest]
                own.sort(key=lambda pair: -pair[0])
                del own[k:]
        rows = self._rows(list({key for own in best for _, key in own}), with_vectors)
        # A row that is not there any more was deleted meanwhile.
        return [[Found(score, rows[key]) for score, key in own if key in rows] for own in best]

    def _rows(self, keys: Sequence[str], with_vectors: bool) -> dict[str, dict[str, Any]]:
        fields = ["key", COLUMNS, *(["vector"] if with_vectors else [])]
        parts = [among(keys[start : start + BATCH]) for start in range(0, len(keys), BATCH)]
        return {row["key"]: row for part in parts for row in self._server.read(self._table, part, fields)}


def _best(own: list[Found], other: list[Found], k: int) -> list[Found]:
    """Return the k nearest rows of two answers, each once."""
    rows = {one.row["key"]: one for one in (*own, *other)}
    return sorted(rows.values(), key=lambda one: -one.similarity)[:k]


def _facts(entry: StoreEntry) -> tuple[Any, ...]:
    """Return what an answer depends on."""
    place = entry.incarnation, entry.index, entry.schema
    return *place, entry.has_many_unsealed, entry.n_flushes, entry.n_indexed


def matching(where: Filter, rows: list[dict[str, Any]], schema: pa.Schema) -> list[bool]:
    """Return which rows match a filter that Milvus cannot evaluate whole."""
    fields = [schema.field(name) for name in columns_of(where)]
    table = pa.Table.from_arrays([arrow_column(rows, field) for field in fields], schema=pa.schema(fields))
    mask = matching_rows(where, table)
    if mask is None:
        raise FilterError("this filter compares columns of types that a store in Milvus cannot compare.")
    found: list[bool] = mask.tolist()
    return found
