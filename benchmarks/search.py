"""Search in an open store: recall and latency beside numpy's exact search, and the cost of 500 single adds.

    python benchmarks/search.py --rows 100000 --dim 512

Vectors are drawn around 1,000 random centers, as images of 1,000 kinds would lie; queries are
further draws from the same centers, not stored. Everything runs in this one process, so the ratios
hold whatever the machine.

    python -m benchmarks.search --engine memory --filter 0.5,0.1,0.01,0.001 --peers

measures searches in memory, with filters that so large shares of the rows match, beside numpy, usearch, faiss
and LanceDB; see `search_memory`.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks import search_memory
from nearsight.store import VectorStore, create_store


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument(
        "--spread", type=float, default=1.0, help="of a cluster, relative to its center's length"
    )
    parser.add_argument("--thumbnail-bytes", type=int, default=0, help="random bytes stored with each row")
    parser.add_argument("--adds", type=int, default=500, help="single-row adds of the second part")
    parser.add_argument("--dir", type=Path, help="where to put the store (default: a temporary directory)")
    parser.add_argument("--engine", choices=["store", "memory"], default="store")
    parser.add_argument("--filter", type=shares, default=[], help="shares of rows, such as 0.1,0.01")
    parser.add_argument("--peers", action="store_true", help="of searches in memory: measure peers too")
    parser.add_argument(
        "--keep", type=Path, help="of searches in memory: keep the collection, and use it again"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        if options.engine == "memory":
            result = search_memory.run(options, options.keep or Path(directory))
        else:
            result = run(options, Path(directory) / "store")
    if options.json or options.engine == "memory":
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:>32}  {value:,.4g}" if isinstance(value, float) else f"{name:>32}  {value:,}")


def run(options: argparse.Namespace, directory: Path) -> dict[str, int | float]:
    source = Clusters(options.dim, options.spread, options.thumbnail_bytes)
    store = create_store(directory, source.schema)
    vectors = np.empty((options.rows, options.dim), np.float32)
    started = time.perf_counter()
    for start in range(0, options.rows, 1000):
        table, vectors[start : start + 1000] = source.rows(start, min(1000, options.rows - start))
        store.append(table)
    ingested = time.perf_counter()
    store.maintain()
    indexed = time.perf_counter()
    queries = source.draw(options.queries)

    truth, numpy_ms = numpy_exact(vectors, queries, options.k)
    found, search_ms = timed(store, queries, options.k)
    hits = [len({hit.id for hit in one[0]} & expected) for one, expected in zip(found, truth, strict=True)]
    exact_ms = timed(store, queries[:30], options.k, exact=True)[1]
    batch_started = time.perf_counter()
    store.search(queries, options.k)
    batch_s = time.perf_counter() - batch_started
    result: dict[str, int | float] = {
        "rows": options.rows,
        "dim": options.dim,
        f"recall@{options.k}": sum(hits) / (len(queries) * options.k),
        "p50_ms": percentile(search_ms, 50),
        "p99_ms": percentile(search_ms, 99),
        "numpy_p50_ms": percentile(numpy_ms, 50),
        "numpy_p99_ms": percentile(numpy_ms, 99),
        "p50_relative_to_numpy": percentile(search_ms, 50) / percentile(numpy_ms, 50),
        "exact_p50_ms": percentile(exact_ms, 50),
        "batch_queries_per_s": len(queries) / batch_s,
        "ingest_s": ingested - started,
        "maintain_s": indexed - ingested,
    }
    return result | single_adds(store, source, queries, options)


def single_adds(
    store: VectorStore, source: "Clusters", queries: np.ndarray, options: argparse.Namespace
) -> dict[str, int | float]:
    before = percentile(timed(store, queries, options.k)[1], 50)
    add_ms, busy = [], 0.0
    for number in range(options.adds):
        table, _ = source.rows(options.rows + number, 1)
        started, cpu = time.perf_counter(), time.process_time()
        store.append(table)
        store.maintain()
        busy += time.process_time() - cpu
        add_ms.append((time.perf_counter() - started) * 1e3)
    after = percentile(timed(store, queries, options.k)[1], 50)
    return {
        "adds": options.adds,
        "add_mean_ms": float(np.mean(add_ms)),
        "add_max_ms": max(add_ms),
        "add_cpu_ms": 1e3 * busy / options.adds,
        "p50_before_ms": before,
        "p50_after_ms": after,
        "p50_after_over_before": after / before,
    }


def shares(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


class Clusters:
    """Unit vectors around 1,000 centers, always the same ones."""

    def __init__(self, dim: int, spread: float, thumbnail_bytes: int) -> None:
        self._rng = np.random.default_rng(0)
        self._centers = self._rng.standard_normal((1000, dim), np.float32)
        self._dim, self._spread, self._thumbnail_bytes = dim, spread, thumbnail_bytes
        self.schema = pa.schema(
            [("id", pa.string()), ("thumbnail", pa.binary()), ("vector", pa.list_(pa.float32(), dim))]
        )

    def draw(self, n: int) -> np.ndarray:
        noise = self._rng.standard_normal((n, self._dim), np.float32)
        vectors = self._centers[self._rng.integers(0, 1000, n)] + self._spread * noise
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def rows(self, start: int, n: int) -> tuple[pa.Table, np.ndarray]:
        vectors = self.draw(n)
        columns = [
            pa.array([f"{number:032x}" for number in range(start, start + n)]),
            pa.array([self._rng.bytes(self._thumbnail_bytes) for _ in range(n)], pa.binary()),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self._dim),
        ]
        return pa.table(columns, schema=self.schema), vectors


def numpy_exact(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[list[set[str]], list[float]]:
    found, milliseconds = [], []
    for query in queries:
        started = time.perf_counter()
        nearest = np.argpartition(-(vectors @ query), k)[:k]
        milliseconds.append((time.perf_counter() - started) * 1e3)
        found.append({f"{number:032x}" for number in nearest})
    return found, milliseconds


def timed(
    store: VectorStore, queries: np.ndarray, k: int, *, exact: bool = False
) -> tuple[list, list[float]]:
    store.search(queries[:1], k, exact=exact)
    found, milliseconds = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(store.search(query[None], k, exact=exact))
        milliseconds.append((time.perf_counter() - started) * 1e3)
    return found, milliseconds


def percentile(milliseconds: list[float], q: float) -> float:
    return float(np.percentile(milliseconds, q))


if __name__ == "__main__":
    main()
