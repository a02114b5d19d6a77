"""Search in memory beside its peers; called by ``python -m benchmarks.search --engine memory``.

Vectors are a mixture of 1,000 kinds in families and realms, some a hundred times as frequent as others, whose
spread has 128 directions of falling weight: random images have a cosine of 0.3, tenth neighbors one of 0.8,
as photographs have. Queries are further draws that are not stored. A search is `Collection.search`
with a vector, `Match` objects included. Peers search the same vectors in the same process, on one thread if
they can. Memory is that of a process of its own that opens the collection and searches.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from nearsight.collection import Collection, schema
from nearsight.collection.manifest import CACHE, STORE
from nearsight.store import MemoryStore, create_store, open_store

_N_KINDS, _N_DIRECTIONS, _N_LABELS = 1000, 128, 1000
_ROWS_PER_WRITE = 5000
_N_AT_ONCE = 1000

Search = Callable[[np.ndarray], list[str]]


class Mixture:
    """Unit vectors of 1,000 kinds in 100 families in 10 realms, always the same ones."""

    def __init__(self, dim: int, seed: int = 0) -> None:
        rng = np.random.default_rng(0)

        def directions(n: int) -> np.ndarray:
            return rng.standard_normal((n, dim), np.float32) / np.float32(np.sqrt(dim))

        everything, realms, families, kinds = (directions(n) for n in (1, 10, 100, _N_KINDS))
        own = np.arange(_N_KINDS)
        self._centers = 0.6 * everything + 0.5 * realms[own // 100] + 0.45 * families[own // 10] + 0.4 * kinds
        weights = 1 / np.arange(1, _N_DIRECTIONS + 1, dtype=np.float32) ** 0.5
        self._spread = 0.6 * (weights / np.linalg.norm(weights))[:, None] * directions(_N_DIRECTIONS)
        frequencies = 1 / (10 + np.arange(_N_KINDS))
        self._frequencies = rng.permutation(frequencies / frequencies.sum())
        self._rng = np.random.default_rng(seed)

    def draw(self, n: int) -> np.ndarray:
        kinds = self._rng.choice(_N_KINDS, n, p=self._frequencies)
        noise = self._rng.standard_normal((n, _N_DIRECTIONS), np.float32)
        vectors = self._centers[kinds] + noise @ self._spread
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make(directory: Path, rows: int, dim: int, *, thumbnail_bytes: int = 0) -> None:
    """Write a collection's store."""
    source, rng = Mixture(dim), np.random.default_rng(1)
    store = create_store(directory / STORE, schema.schema(dim))
    store.add_columns([pa.field("meta_label", pa.float64()), pa.field("meta_place", pa.string())])
    now = pa.scalar(0, pa.timestamp("us", tz="UTC"))
    for start in range(0, rows, _ROWS_PER_WRITE):
        n = min(_ROWS_PER_WRITE, rows - start)
        numbers = range(start, start + n)
        paths = [f"/srv/photos/{number % 97:02}/image{number:08}.jpg" for number in numbers]
        columns = {
            "id": [f"{number:032x}" for number in numbers],
            "path": paths,
            "paths": [[path] for path in paths],
            "keys": [[path] for path in paths],
            "stamps": [[number] for number in numbers],
            "size_bytes": rng.integers(10_000, 10**7, n),
            "width": [640] * n,
            "height": [480] * n,
            "added": [now.as_py()] * n,
            "meta_label": rng.integers(0, _N_LABELS, n).astype(float),
            "meta_place": [f"place {number % 13}" for number in numbers],
        }
        if thumbnail_bytes:
            columns["thumbnail"] = [rng.bytes(thumbnail_bytes) for _ in range(n)]
        table = {name: pa.array(values, store.schema.field(name).type) for name, values in columns.items()}
        vectors = pa.array(source.draw(n).ravel())
        store.append(pa.table({**table, "vector": pa.FixedSizeListArray.from_arrays(vectors, dim)}))
    store.maintain()


def open_collection(directory: Path, dim: int, *, in_memory: bool = True) -> tuple[Collection, MemoryStore]:
    """Open the collection without a model, which no search by a vector needs."""
    store = MemoryStore(
        open_store(directory / STORE),
        directory / CACHE,
        columns=schema.columns_in_memory,
        enabled=in_memory,
    )
    facts: Any = SimpleNamespace(spec=SimpleNamespace(dim=dim))
    return Collection(directory, facts, store), store


def run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    if not (directory / "made").exists():
        make(directory, options.rows, options.dim)
        (directory / "made").touch()
    collection, store = open_collection(directory, options.dim)
    queries = Mixture(options.dim, seed=2).draw(options.queries)
    result: dict[str, Any] = {"rows": options.rows, "dim": options.dim, "k": options.k}
    searches: list[dict[str, Any]] = []
    vectors, labels = read(store)
    k = options.k

    def exactly(mask: np.ndarray | None = None) -> list[set[str]]:
        return [set(names(nearest(vectors @ query, mask, k))) for query in queries]

    truth = exactly()

    def measure(engine: str, search: Search, *, truth: list[set[str]] = truth, share: float = 1.0) -> None:
        searches.append({"engine": engine, "matching": share, **timed(search, queries, truth, k)})

    outside, _ = open_collection(directory, options.dim, in_memory=False)
    measure("nearsight, from the store", lambda q: ids(outside.search(vector=q, k=k)))
    started, cpu = time.perf_counter(), time.process_time()
    if not store.load():
        raise SystemExit("the collection does not fit into memory: install nearsight[fast]")
    result["load_s"], result["load_cpu_s"] = time.perf_counter() - started, time.process_time() - cpu
    measure("nearsight, in memory", lambda q: ids(collection.search(vector=q, k=k)))
    measure("nearsight, in memory, exact", lambda q: ids(collection.search(vector=q, k=k, exact=True)))
    if index := store._rows().graph:
        # Of rows that were looked for when it was built; with less than 0.99 it is not used.
        result["index_in_memory"], result["index_recall"] = type(index).__name__.lower(), index.recall
    result["at_once_per_s"] = rate(lambda many: collection.search_vectors(many, k=k), options.dim)
    for share in options.filter:
        where, mask = f"label < {round(share * _N_LABELS)}", labels < round(share * _N_LABELS)
        own = exactly(mask)
        measure(
            "nearsight, in memory",
            lambda q, where=where: ids(collection.search(vector=q, k=k, where=where)),
            truth=own,
            share=share,
        )
        measure(
            "nearsight, from the store",
            lambda q, where=where: ids(outside.search(vector=q, k=k, where=where)),
            truth=own,
            share=share,
        )
        measure("numpy", lambda q, mask=mask: names(nearest(vectors @ q, mask, k)), truth=own, share=share)
    measure("numpy", lambda query: names(nearest(vectors @ query, None, k)))
    if options.peers:
        for engine, search, seconds in peers(vectors, directory, k):
            measure(engine, search)
            result[f"{engine.split(',')[0]}_build_s"] = seconds
    return {**result, **in_a_process_of_its_own(directory, options.dim), "searches": searches}


def peers(vectors: np.ndarray, directory: Path, k: int) -> Iterator[tuple[str, Search, float]]:
    """Yield the peers that are installed, each with the seconds that its index took."""
    import faiss
    import lancedb
    from usearch.index import Index

    dim = vectors.shape[1]
    table = lancedb.connect(directory / STORE).open_table("pictures")

    def by_lancedb(query: np.ndarray) -> list[str]:
        search = table.search(query).distance_type("cosine").refine_factor(5).limit(k)
        return [row["id"] for row in search.select(["id", "path", "meta_label"]).to_list()]

    yield "LanceDB, the same table and index", by_lancedb, 0.0
    started = time.perf_counter()
    index = Index(ndim=dim, metric="cos", dtype="f16", expansion_search=128)
    index.add(np.arange(len(vectors)), vectors)
    yield (
        "usearch, float16, only keys",
        lambda q, index=index: names(index.search(q, k, threads=1).keys),
        time.perf_counter() - started,
    )
    del index
    started = time.perf_counter()
    graph = faiss.IndexHNSWFlat(dim, 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = 128, 128
    graph.add(vectors)
    faiss.omp_set_num_threads(1)
    yield (
        "faiss HNSW, float32, only keys",
        lambda q: names(graph.search(q[None], k)[1][0]),
        time.perf_counter() - started,
    )


def read(store: MemoryStore) -> tuple[np.ndarray, np.ndarray]:
    dim = store.schema.field("vector").type.list_size
    vectors, labels = np.empty((store.count(), dim), np.float32), np.empty(store.count())
    # Compaction moves rows, so their order is not that in which they were written.
    for batch in store.scan(["id", "vector", "meta_label"]):
        rows = [int(id, 16) for id in batch.column("id").to_pylist()]
        vectors[rows] = batch.column("vector").flatten().to_numpy().reshape(len(batch), -1)
        labels[rows] = batch.column("meta_label").to_numpy()
    return vectors, labels


def nearest(cosines: np.ndarray, mask: np.ndarray | None, k: int) -> np.ndarray:
    if mask is None:
        return np.argpartition(-cosines, k)[:k]
    rows = np.flatnonzero(mask)
    own = cosines[rows]
    return rows[np.argpartition(-own, k)[:k]] if len(rows) > k else rows


def names(numbers: Any) -> list[str]:
    return [f"{number:032x}" for number in np.asarray(numbers).tolist()]


def ids(matches: list) -> list[str]:
    return [match.id for match in matches]


def timed(search: Search, queries: np.ndarray, truth: list[set[str]], k: int) -> dict[str, float]:
    for query in queries[:3]:
        search(query)
    seconds, cpu, recalls, least = [], [], [], k
    for query, wanted in zip(queries, truth, strict=True):
        started, cpu_started = time.perf_counter(), time.thread_time()
        found = search(query)
        cpu.append(time.thread_time() - cpu_started)
        seconds.append(time.perf_counter() - started)
        recalls.append(len({*found} & wanted) / max(1, len(wanted)))
        least = min(least, len(found))
    return {
        f"recall@{k}": float(np.mean(recalls)),
        "p50_ms": float(np.percentile(seconds, 50)) * 1e3,
        "p99_ms": float(np.percentile(seconds, 99)) * 1e3,
        "cpu_ms": float(np.median(cpu)) * 1e3,
        "fewest": least,
    }


def rate(search: Callable[[np.ndarray], Any], dim: int) -> float:
    """Return queries a second where 1,000 come at once, the best of three."""
    many = Mixture(dim, seed=3).draw(_N_AT_ONCE)
    search(many[:50])
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        search(many)
        seconds.append(time.perf_counter() - started)
    return _N_AT_ONCE / min(seconds)


def in_a_process_of_its_own(directory: Path, dim: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.search_memory", str(directory), str(dim)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    document: dict[str, float] = json.loads(done.stdout)
    return document


def open_and_search(directory: Path, dim: int) -> dict[str, float]:
    started = time.perf_counter()
    collection, store = open_collection(directory, dim)
    opened = time.perf_counter()
    before = resident_mb()
    store.load()
    loaded = time.perf_counter()
    queries = Mixture(dim, seed=4).draw(500)
    for query in queries:
        collection.search(vector=query)
    searched = resident_mb()
    for query in queries[:100]:
        collection.search(vector=query, where=f"label < {_N_LABELS // 100}")
    return {
        "open_s": opened - started,
        "load_again_s": loaded - opened,
        "process_mb": before["VmRSS"],
        "memory_mb": searched["VmRSS"],
        "of_these_mapped_files_mb": searched["RssFile"],
        "memory_after_filters_mb": resident_mb()["VmRSS"],
    }


def resident_mb() -> dict[str, float]:
    if not sys.platform.startswith("linux"):
        return {"VmRSS": float("nan"), "RssFile": float("nan")}
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
    return {name: int(sizes[name]) / 1000 for name in ("VmRSS", "RssFile")}


if __name__ == "__main__":
    print(json.dumps(open_and_search(Path(sys.argv[1]), int(sys.argv[2]))))
