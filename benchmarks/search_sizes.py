"""Plots the cost of a search against the number of rows, as SVG for the documentation.

    python -m benchmarks.search_sizes --rows 10000 100000 1000000 --svg docs/images/search-cost.svg
    python -m benchmarks.search_sizes --results *.json --svg docs/images/search-cost.svg

A million rows take about half an hour on two idle cores, 12 GB of memory and 6 GB on the disk. The second
form draws documents that ``python -m benchmarks.search --engine memory --json`` has printed.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cost_plot import Line, drawing

# What is drawn: the engine as the benchmark names it, a color that light and dark pages can show, and dashes.
_LINES = {
    "nearsight, in memory": ("#d9480f", ""),
    "nearsight, from the store": ("#d9480f", "6 4"),
    "numpy": ("#868e96", ""),
    "usearch, float16, only keys": ("#1971c2", ""),
    "faiss HNSW, float32, only keys": ("#2f9e44", ""),
    "LanceDB, the same table and index": ("#1971c2", "6 4"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--results", type=Path, nargs="*", help="documents to draw instead of measuring")
    parser.add_argument("--svg", type=Path, required=True)
    parser.add_argument("--json", action="store_true", help="print what was drawn, too")
    options = parser.parse_args()
    if options.results:
        documents = [json.loads(path.read_text(encoding="utf-8")) for path in options.results]
    else:
        documents = [measure(rows, options.dim) for rows in options.rows]
    options.svg.write_text(plot(documents), encoding="utf-8")
    if options.json:
        print(json.dumps({"collections": [sizes(d) for d in documents], "searches": searches(documents)}))


def measure(rows: int, dim: int) -> dict[str, Any]:
    arguments = ["--engine", "memory", "--peers", "--rows", str(rows), "--dim", str(dim), "--json"]
    command = [sys.executable, "-m", "benchmarks.search", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def sizes(document: dict[str, Any]) -> dict[str, Any]:
    """Return what opening and holding a collection took."""
    names = (
        "rows",
        "load_s",
        "open_s",
        "load_again_s",
        "process_mb",
        "memory_mb",
        "index_recall",
        "at_once_per_s",
    )
    return {name: document.get(name) for name in names}


def searches(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each engine and size, without filters."""
    return [
        {"rows": document["rows"], **{name: value for name, value in search.items() if name != "matching"}}
        for document in documents
        for search in document["searches"]
        if search["matching"] == 1
    ]


def plot(documents: Sequence[dict[str, Any]]) -> str:
    """Return a plot with logarithmic axes."""
    documents = sorted(documents, key=lambda document: document["rows"])
    points = {
        engine: [
            (document["rows"], search["p50_ms"], search[f"recall@{document['k']}"])
            for document in documents
            for search in document["searches"]
            if search["engine"] == engine and search["matching"] == 1
        ]
        for engine in _LINES
    }
    points = {engine: own for engine, own in points.items() if own}
    lines = [
        Line(
            engine,
            *_LINES[engine],
            [(rows, cost, f"{cost:.2f} ms, recall {recall:.3f}") for rows, cost, recall in own],
        )
        for engine, own in points.items()
    ]
    title = f"Milliseconds of a search by the number of rows of {documents[0]['dim']} numbers"
    return drawing(title, "ms", lines)


if __name__ == "__main__":
    main()
