"""The nearest rows: found by the engine, and read without it where they are few."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.store.lance.engine import found_by
from nearsight.store.lance.index_reach import Reach, n_probes, nearest_by_engine
from nearsight.store.lance.manifest_file import UnknownLayoutError
from nearsight.store.lance.row_files import RowsAt

_LOG = logging.getLogger(__name__)
# Of more rows, the engine reads several at once.
_MAX_ROWS = 2_000


def nearest(
    table: Any,
    queries: NDArray[np.float32],
    k: int,
    columns: Sequence[str],
    *,
    condition: str | None = None,
    reach: Reach | None = None,
    rows: RowsAt | None = None,
) -> pa.Table:
    """Return the k nearest rows of (n, d) queries, with ``_distance`` and the number of their query.

    Parameters
    ----------
    table : lancedb.table.Table
    queries : ndarray of float32, shape (n, d)
    k : int
    columns : sequence of str
    condition : str, optional
    reach : Reach, optional
        Of the vector index; without it, all rows are compared.
    rows : RowsAt, optional
        Of the table's version, for rows that are read without the engine.
    """
    n_rows = len(queries) * k * (reach.refine_factor if reach else 1)
    if rows is not None and n_rows <= _MAX_ROWS and rows.are_readable(["vector", *columns]):
        try:
            return _nearest_by_address(table, queries, k, columns, condition, reach, rows)
        except (UnknownLayoutError, OSError) as error:
            _LOG.info("rows are read by the engine: %s", error)
            rows.refuse()
    return nearest_by_engine(table, queries, k, columns, condition=condition, reach=reach)


def _nearest_by_address(
    table: Any,
    queries: NDArray[np.float32],
    k: int,
    columns: Sequence[str],
    condition: str | None,
    reach: Reach | None,
    rows: RowsAt,
) -> pa.Table:
    """Let the engine find addresses, compare those that it estimated exactly, and read the rows."""
    query = (
        table._table.query().select(["_rowid", "_distance"]).limit(k * (reach.refine_factor if reach else 1))
    )
    query = query.where(condition) if condition else query
    query = query.with_row_id().nearest_to(queries if len(queries) > 1 else queries[0])
    query = query.column("vector").distance_type("cosine")
    if reach is None:
        query = query.bypass_vector_index()
    else:
        least, most = n_probes(reach)
        query = query.nprobes(least).maximum_nprobes(most)
    found = found_by(query)
    addresses = found["_rowid"].to_numpy()
    own_query = found["query_index"].to_numpy() if len(queries) > 1 else np.zeros(len(addresses), np.int32)
    distances = found["_distance"].to_numpy()
    if reach is not None:
        distances = _distances(queries[own_query], rows.vectors(addresses))
    order = np.lexsort((addresses, distances, own_query))
    firsts = np.searchsorted(own_query[order], np.arange(len(queries)))
    order = order[np.arange(len(order)) - firsts[own_query[order]] < k]
    batch = rows.take(addresses[order].tolist(), columns)
    table = pa.Table.from_batches([batch]).append_column("_distance", pa.array(distances[order]))
    return table.append_column("query_index", pa.array(own_query[order]))


def _distances(queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one minus the cosine of each pair."""
    products = np.einsum("ij,ij->i", queries, vectors)
    lengths = np.linalg.norm(queries, axis=1) * np.linalg.norm(vectors, axis=1)
    return np.asarray(1 - products / lengths, np.float32)
