"""A search from the store on disk, with its rows read from the files and by the engine, in turns.

    python -m benchmarks.search_store --rows 1000000 --dim 512

Vectors are those of `benchmarks.search --engine memory`. A search is `Collection.search` with its `Match`
objects, and each query is searched for in both ways, one right after the other, so that other work on the
machine weighs on both; processor time is that of all threads. A million rows take 10 minutes on two idle
cores, 5 GB of memory and 5 GB on the disk.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import search_memory
from nearsight.store.lance import nearest

_WAYS = {"by the engine": 0, "from the files": nearest._MAX_ROWS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--dir", type=Path, help="where to put the store (default: a temporary directory)")
    parser.add_argument("--keep", type=Path, help="keep the collection here, and use it again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        result = run(options, options.keep or Path(directory))
    print(json.dumps(result, indent=2))


def run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    if not (directory / "made").exists():
        search_memory.make(directory, options.rows, options.dim)
        (directory / "made").touch()
    collection, store = search_memory.open_collection(directory, options.dim, in_memory=False)
    queries = search_memory.Mixture(options.dim, seed=2).draw(options.queries)
    vectors, _ = search_memory.read(store)
    wanted = [
        set(search_memory.names(search_memory.nearest(vectors @ query, None, options.k))) for query in queries
    ]

    def search(query: np.ndarray) -> set[str]:
        return {match.id for match in collection.search(vector=query, k=options.k)}

    figures: dict[str, list[tuple[float, float, float]]] = {way: [] for way in _WAYS}
    for number, (query, own) in enumerate(zip(queries, wanted, strict=True)):
        for way in sorted(_WAYS, reverse=number % 2 == 0):
            nearest._MAX_ROWS = _WAYS[way]
            found, *spent = timed(search, query)
            figures[way].append((len(found & own) / options.k, *spent))
    return {
        "rows": options.rows,
        "dim": options.dim,
        "k": options.k,
        "searches": [{"rows are read": way, **summary(own)} for way, own in figures.items()],
    }


def timed(search: Callable[[np.ndarray], set[str]], query: np.ndarray) -> tuple[set[str], float, float]:
    started, cpu = time.perf_counter(), time.process_time()
    found = search(query)
    return found, 1e3 * (time.perf_counter() - started), 1e3 * (time.process_time() - cpu)


def summary(figures: list[tuple[float, float, float]]) -> dict[str, float]:
    recall, wall, cpu = np.array(figures[3:]).T
    return {
        "recall": float(recall.mean()),
        "p50_ms": float(np.median(wall)),
        "p99_ms": float(np.percentile(wall, 99)),
        "least_ms": float(wall.min()),
        "cpu_p50_ms": float(np.median(cpu)),
        "cpu_least_ms": float(cpu.min()),
    }


if __name__ == "__main__":
    main()
