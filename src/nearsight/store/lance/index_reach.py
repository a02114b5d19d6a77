"""How far a search goes with the vector index: the least that finds enough, measured when the index is built.

The index has partitions, of which the nearest are looked through, and estimates distances, so that more rows
than are wanted are compared exactly. How many of both are needed depends on the vectors alone: where they lie
in clusters, a few partitions hold the nearest ones; where they do not, a quarter of all may be needed.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.artifacts import manifest_bytes, manifest_facts, replacing
from nearsight.errors import NearsightError
from nearsight.store.base import Hit
from nearsight.store.lance.arrow import hits_by_query
from nearsight.store.lance.table import SharedTable

_LOG = logging.getLogger(__name__)
#: Beside the tables.
FILE = "index.json"
_FORMAT = 1
#: Neighbors up to which what was measured holds.
MAX_K = 50
_KS = (10, MAX_K)
_N_QUERIES, _QUERIES_PER_CALL = 100, 25
# Some misses more than of these few rows can be expected of others: 0.99 is what is promised.
_TARGET_RECALL = 0.9975
# Partitions to look through, doubled until enough is found, and rows to compare exactly for each one wanted.
_FIRST_PROBES, _REFINE_FACTORS, _MOST_REFINE_FACTOR = 10, (2, 3), 5
# Where all may be looked through, the engine begins with so many.
_LEAST_PROBES_OF_ALL = 20
_REFINE_FACTOR_OF_TRUTH = 10
# LanceDB makes so large ones.
_ROWS_PER_PARTITION = 4096
# With fewer rows left than this share, the nearest partitions may hold too few.
_LEAST_ROWS_LEFT = 0.8


class ReachFile(Protocol):
    """Where the measured reach is kept; both methods may raise OSError and StorageError."""

    def read(self) -> bytes | None:
        """Return what was written last, or None."""
        ...

    def write(self, content: bytes) -> None:
        """Write in the place of what was there, whole or not at all."""
        ...


class LocalReachFile:
    """A `ReachFile` beside the tables.

    Parameters
    ----------
    directory : Path
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def read(self) -> bytes | None:
        """Return what was written last."""
        return self._path.read_bytes()

    def write(self, content: bytes) -> None:
        """Write in the place of what was there."""
        with replacing(self._path) as file:
            file.write(content)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a search goes.

    Attributes
    ----------
    n_probes : int
        Partitions to look through; 0 for all.
    refine_factor : int
        Rows compared exactly for each one that is wanted.
    """

    n_probes: int
    refine_factor: int


#: Of an index that was not measured.
FARTHEST = Reach(0, _MOST_REFINE_FACTOR)


def n_probes(reach: Reach) -> tuple[int, int]:
    """Return how many partitions the engine looks through at least and at most; 0 for all."""
    return reach.n_probes or _LEAST_PROBES_OF_ALL, reach.n_probes


def nearest_by_engine(
    table: Any,
    queries: NDArray[np.float32],
    k: int,
    columns: Sequence[str],
    *,
    condition: str | None = None,
    reach: Reach | None = None,
) -> pa.Table:
    """Return what LanceDB finds for (n, d) queries; without a reach, it compares all rows."""
    query = table.search(queries if len(queries) > 1 else queries[0], vector_column_name="vector")
    query = query.distance_type("cosine").select([*columns, "_distance"]).limit(k)
    query = query.where(condition, prefilter=True) if condition else query
    if reach is None:
        query = query.bypass_vector_index()
    else:
        least, most = n_probes(reach)
        query = query.minimum_nprobes(least).maximum_nprobes(most)
        query = query.refine_factor(reach.refine_factor)
    return query.to_arrow()


def chosen(recall: Callable[[Reach], float], n_rows: int) -> Reach:
    """Return the least reach whose recall is enough, where there is one.

    Parameters
    ----------
    recall : callable from Reach to float
    n_rows : int
        Of the table.

    Examples
    --------
    >>> chosen(lambda reach: 1.0 if reach.n_probes != 10 else 0.98, 1_000_000)
    Reach(n_probes=20, refine_factor=2)
    >>> chosen(lambda reach: 0.9, 1_000_000)
    Reach(n_probes=0, refine_factor=5)
    """
    refine_factor = next(
        (factor for factor in _REFINE_FACTORS if recall(Reach(0, factor)) >= _TARGET_RECALL),
        _MOST_REFINE_FACTOR,
    )
    n_probes = _FIRST_PROBES
    while n_probes * _ROWS_PER_PARTITION < n_rows:
        if recall(Reach(n_probes, refine_factor)) >= _TARGET_RECALL:
            return Reach(n_probes, refine_factor)
        n_probes *= 2
    return Reach(0, refine_factor)


def measure(rows: SharedTable, file: ReachFile) -> None:
    """Choose the reach for the present index on some stored rows, and save it.

    Without it, searches go as far as they can, so a failure is no error.
    """
    try:
        with rows.use("measuring the index") as table:
            index = vector_index(table)
            n_rows = int(table.count_rows())
            if index is None or n_rows <= MAX_K or read(file, index, n_rows):
                return
            recall = _recall(table, n_rows)
            reach = chosen(recall, n_rows)
            facts = {"index": str(index.index_uuid), "rows": n_rows, "recall": recall(reach)}
        facts |= {"probes": reach.n_probes, "refine_factor": reach.refine_factor}
        file.write(manifest_bytes(_FORMAT, facts))
    except (OSError, NearsightError) as error:
        _LOG.info("the index was not measured: %s", error)


def read(file: ReachFile, index: Any, n_rows: int) -> Reach | None:
    """Return the reach that was measured for an index, or None if it was another, or had many more rows."""
    try:
        content = file.read()
        if content is None:
            return None
        with manifest_facts(content, "the store", FILE, _FORMAT) as facts:
            if facts["index"] == str(index.index_uuid) and n_rows >= _LEAST_ROWS_LEFT * facts["rows"]:
                return Reach(int(facts["probes"]), int(facts["refine_factor"]))
    except (OSError, NearsightError) as error:
        _LOG.debug("no measured index: %s", error)
    return None


def vector_index(table: Any) -> Any:
    """Return the index of the vectors, or None."""
    return next((index for index in table.list_indices() if index.columns == ["vector"]), None)


def _recall(table: Any, n_rows: int) -> Callable[[Reach], float]:
    """Return the function that gives the recall of a reach, the least of a few k.

    Queries are stored rows, which do not count as found. Instead of all rows, all that look near are
    compared for the truth.
    """
    offsets = np.random.default_rng(0).choice(n_rows, min(_N_QUERIES, n_rows), replace=False)
    sample = table.take_offsets(np.sort(offsets).tolist()).select(["id", "vector"]).to_arrow()
    ids = sample["id"].to_pylist()
    flat = np.concatenate(
        [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in sample["vector"].chunks]
    )
    queries = flat.reshape(len(ids), -1).astype(np.float32)

    def found(k: int, reach: Reach) -> list[list[Hit]]:
        hits: list[list[Hit]] = []
        for start in range(0, len(ids), _QUERIES_PER_CALL):
            own = queries[start : start + _QUERIES_PER_CALL]
            hits += hits_by_query(
                nearest_by_engine(table, own, k + 1, ["id"], reach=reach), len(own), ["id"], k + 1
            )
        return [[hit for hit in own if hit.id != id][:k] for own, id in zip(hits, ids, strict=True)]

    truth = found(MAX_K, Reach(0, _REFINE_FACTOR_OF_TRUTH))

    def recall_at(k: int, reach: Reach) -> float:
        shares = [
            # Of rows that are equally near, any will do.
            sum(hit.similarity >= wanted[:k][-1].similarity - 1e-6 for hit in own) / len(wanted[:k])
            for own, wanted in zip(found(k, reach), truth, strict=True)
            if wanted
        ]
        return float(np.mean(shares)) if shares else 0.0

    return cache(lambda reach: min(recall_at(k, reach) for k in _KS))
