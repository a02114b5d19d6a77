"""The nearest rows of a vector, by a plan of our own.

The server's planner is not left to choose: right after ANALYZE it takes the index of vectors for a narrow
filter, walks its first rows, finds that few of them match, and returns fewer than there are without a word.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.store.base import Hit
from nearsight.store.postgres import vectors
from nearsight.store.postgres.indexes import VectorIndex, vector_method
from nearsight.store.postgres.sql import in_query, name_sql
from nearsight.store.postgres.tables import ROW, Tables, array_of

#: Up to this many matching rows are compared one by one.
MAX_COMPARED = 20_000
# Candidates that a walk of a graph keeps, of up to so many rows; ten times the rows need twice as many. The
# extension takes no more than 1,000.
_LEAST_EF, _LEAST_EF_ROWS, _MAX_EF = 400, 100_000, 1000
_N_COUNTS = 64
# Collations that know the cases of all letters, the best first; C knows those of ASCII.
_CASE_COLLATIONS = ("pg_unicode_fast", "pg_c_utf8", "und-x-icu", "C.utf8", "C.UTF-8", "C")

# The index of vectors yields rows in order, and each is looked up in the other table; nothing is sorted.
_WALK = {
    "enable_seqscan": "off",
    "enable_sort": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "max_parallel_workers_per_gather": "0",
}


class Search:
    """Searches of one store.

    Parameters
    ----------
    tables : Tables
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._case_collation = ""
        # By version and condition: the number of rows that match, up to one more than are compared.
        self._counts: OrderedDict[tuple[int, str | None], int] = OrderedDict()
        self._method: tuple[int, VectorIndex | None] = (-1, None)

    def case_collation(self, connection: Any) -> str:
        """Return the collation by which case is ignored."""
        if not self._case_collation:
            rows = connection.execute(
                "SELECT collname FROM pg_collation WHERE collname = ANY(%s)"
                " AND collencoding IN (-1, (SELECT encoding FROM pg_database"
                "  WHERE datname = current_database()))",
                (list(_CASE_COLLATIONS),),
            ).fetchall()
            names = {name for (name,) in rows}
            self._case_collation = next(name for name in _CASE_COLLATIONS if name in names)
        return self._case_collation

    def nearest(
        self,
        connection: Any,
        queries: NDArray[np.float32],
        k: int,
        type_: pa.DataType,
        condition: str | None,
        columns: Sequence[pa.Field],
        version: int,
        *,
        exact: bool,
    ) -> list[list[Hit]]:
        """Return the k nearest rows of each query.

        *Method*: the matching rows are counted first. Up to 20,000 are compared one by one. Of more, the
        index is walked in strict order until k of them match; if the walk ends before, all are compared.

        Parameters
        ----------
        connection
        queries : array of shape (n, dim)
        k : int
        type_ : pa.DataType
            Of the stored vectors.
        condition : str, optional
            SQL of the rows to search among.
        columns : sequence of pa.Field
            Of the table of rows, for the hits.
        version : int
            Of the store.
        exact : bool
            Whether to compare all.
        """
        n_matching = self._count(connection, condition, version)
        method = None if exact or n_matching <= MAX_COMPARED else self._index(connection, version)
        if k > MAX_COMPARED:
            method = None
        found = []
        for query in queries:
            rows = self._run(connection, query, k, type_, condition, columns, method) if method else []
            # As many match as were counted, so fewer than that is a walk that ended too early.
            if method is None or len(rows) < min(k, n_matching):
                rows = self._run(connection, query, k, type_, condition, columns, None)
            found.append(_hits(rows, columns)[:k])
        return found

    def _count(self, connection: Any, condition: str | None, version: int) -> int:
        key = (version, condition)
        if key not in self._counts:
            where = f" WHERE {condition}" if condition else ""
            counted = f"SELECT 1 FROM {self._tables.rows}{where} LIMIT {MAX_COMPARED + 1}"
            [n] = connection.execute(f"SELECT count(*) FROM ({counted}) AS counted").fetchone()
            self._counts[key] = int(n)
            while len(self._counts) > _N_COUNTS:
                self._counts.popitem(last=False)
        return self._counts[key]

    def _index(self, connection: Any, version: int) -> VectorIndex | None:
        known, method = self._method
        if known != version or method is None:
            method = vector_method(connection, self._tables)
            self._method = (version, method)
        return method

    def _run(
        self,
        connection: Any,
        query: NDArray[np.float32],
        k: int,
        type_: pa.DataType,
        condition: str | None,
        columns: Sequence[pa.Field],
        method: VectorIndex | None,
    ) -> list[tuple[Any, ...]]:
        sql, values = self.query(query, k, type_, condition, columns, method)
        settings = {} if method is None else {**_WALK, **search_settings(method, k)}
        with connection.pipeline(), connection.transaction():
            if settings:
                calls = ", ".join("set_config(%s, %s, true)" for _ in settings)
                connection.execute(
                    f"SELECT {calls}", [text for setting in settings.items() for text in setting]
                )
            rows: list[tuple[Any, ...]] = connection.execute(sql, values).fetchall()
        return rows

    def query(
        self,
        query: NDArray[np.float32],
        k: int,
        type_: pa.DataType,
        condition: str | None,
        columns: Sequence[pa.Field],
        method: VectorIndex | None,
    ) -> tuple[str, dict[str, Any]]:
        """Return the query for the k nearest rows, and its values: by an index, or by comparing all."""
        kind = f"halfvec({type_.list_size})"
        whole = kind if type_.value_type == pa.float16() else f"vector({type_.list_size})"
        distance = f'v."vector" <=> %(vector)s::{whole}'
        selected = "".join(f", {in_query(f'r.{name_sql(field.name)}')}" for field in columns)
        where = f" WHERE {in_query(condition)}" if condition else ""
        if method is None:
            # The index is of the distance, and not of this sum: the planner cannot use it here.
            return (
                f'SELECT r."id", ({distance}) + 0 AS distance{selected} FROM {self._tables.rows} r'
                f" JOIN {self._tables.vectors} v USING ({ROW}){where} ORDER BY distance LIMIT %(k)s"
            ), {"vector": vectors.text(query), "k": k}
        # Exactly the expression of the index, and no second key: with one, every row would be sorted.
        order = f"{method.expression('v.')} <=> %(vector)s::{kind}"
        return (
            f'SELECT r."id", {distance} AS distance{selected} FROM {self._tables.vectors} v'
            f" JOIN {self._tables.rows} r USING ({ROW}){where} ORDER BY {order} LIMIT %(k)s"
        ), {"vector": vectors.text(query), "k": k}


def search_settings(method: VectorIndex, k: int) -> Mapping[str, str]:
    """Return the settings of the extension for a walk of an index."""
    if method.name == "vchordrq":
        return {"vchordrq.probes": method.probes, "vchordrq.prefilter": "on"}
    tenfolds = math.log10(max(1.0, method.n_rows / _LEAST_EF_ROWS))
    return {
        "hnsw.iterative_scan": "strict_order",
        "hnsw.ef_search": str(min(_MAX_EF, max(round(_LEAST_EF * 2**tenfolds), 8 * k))),
        "hnsw.max_scan_tuples": str(max(100_000, 4 * k)),
        "hnsw.scan_mem_multiplier": "4",
    }


def _hits(rows: Sequence[tuple[Any, ...]], columns: Sequence[pa.Field]) -> list[Hit]:
    """Return rows as hits, the most similar first."""
    values = list(zip(*rows, strict=True))[2:] if rows else [()] * len(columns)
    # Through Arrow, so that every engine gives the same types.
    lists = [array_of(own, field.type).to_pylist() for own, field in zip(values, columns, strict=True)]
    names = [field.name for field in columns]
    hits = [
        Hit(row[0], min(1.0, max(-1.0, 1.0 - row[1])), dict(zip(names, own, strict=True)))
        for row, own in zip(rows, zip(*lists, strict=True) if lists else ((),) * len(rows), strict=True)
    ]
    return sorted(hits, key=lambda hit: (-hit.similarity, hit.id))
