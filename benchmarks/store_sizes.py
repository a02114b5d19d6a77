"""Stores and bare engines by the number of rows: a table of each, and the cost of a filtered search as SVG.

    python -m benchmarks.store_sizes --rows 10000 100000 1000000 --queries 100 --svg cost.svg
    python -m benchmarks.stores --rows 1000000 --queries 100 --json > million.json
    python -m benchmarks.store_sizes --rows 10000 100000 --queries 100 --results million.json --svg cost.svg

Each size is one run of `benchmarks.stores`. 1,000,000 rows take more than an hour: the last two commands do
the same in two parts. Results of one size are put together, so that one engine can be measured again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cost_plot import Line, drawing

# Colors that light and dark pages can show; bare engines are dashed.
_LINES = {
    "nearsight, directory in memory": ("#d9480f", ""),
    "nearsight, directory (Lance)": ("#e8590c", "2 3"),
    "nearsight, PostgreSQL": ("#1971c2", ""),
    "pgvector, bare": ("#1971c2", "6 4"),
    "nearsight, Milvus": ("#2f9e44", ""),
    "Milvus, bare": ("#2f9e44", "6 4"),
    "Chroma, bare": ("#9c36b5", "6 4"),
    "faiss HNSW, keys only": ("#868e96", "6 4"),
}
_SHARES = ("all", "10.0%", "1.0%", "0.1%")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[], help="sizes to measure")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--results", type=Path, nargs="*", default=[], help="what benchmarks.stores printed")
    parser.add_argument("--svg", type=Path, required=True)
    parser.add_argument("--json", action="store_true", help="print what was drawn, too")
    options = parser.parse_args()
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in options.results]
    documents = merged([*kept, *(measure(rows, options.queries) for rows in options.rows)])
    options.svg.write_text(plot(documents), encoding="utf-8")
    if options.json:
        print(json.dumps({"stores": costs(documents), "searches": searches(documents)}))


def measure(rows: int, queries: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.stores", "--rows", str(rows), "--queries", str(queries)]
    command.append("--json")
    document: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return document


def merged(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one document of each size; of an engine that was measured twice, the later one counts."""
    by_size: dict[int, dict[str, dict[str, Any]]] = {}
    for document in documents:
        engines = by_size.setdefault(document["rows"], {})
        engines.update({engine["engine"]: engine for engine in document["engines"]})
    return [{"rows": rows, "engines": list(engines.values())} for rows, engines in sorted(by_size.items())]


def costs(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what writing, indexing and holding took."""
    return [
        {
            "rows": document["rows"],
            "engine": engine["engine"],
            "written_per_s": document["rows"] / engine["write_s"] if engine.get("write_s") else None,
            **{name: engine.get(name) for name in ("index_s", "memory_mb", "at_once_per_s")},
        }
        for document in documents
        for engine in document["engines"]
    ]


def searches(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return recall and milliseconds without a filter, and with filters that match a share of the rows."""
    return [
        {
            "rows": document["rows"],
            "engine": engine["engine"],
            "matching": share,
            **{name: engine[share][name] for name in ("recall@10", "p50_ms", "p99_ms", "fewest")},
        }
        for document in documents
        for engine in document["engines"]
        for share in _SHARES
        if share in engine
    ]


def plot(documents: Sequence[dict[str, Any]], share: str = "10.0%") -> str:
    """Return a plot with logarithmic axes of the searches whose filter matches a share."""
    documents = sorted(documents, key=lambda document: int(document["rows"]))
    lines = []
    for name, (color, dashes) in _LINES.items():
        points = [
            (
                document["rows"],
                own[share]["p50_ms"],
                f"{own[share]['p50_ms']:.2f} ms, recall {own[share]['recall@10']:.3f}",
            )
            for document in documents
            for own in document["engines"]
            if own["engine"] == name and share in own
        ]
        if points:
            recall = min(
                own[share]["recall@10"] for d in documents for own in d["engines"] if own["engine"] == name
            )
            lines.append(Line(f"{name} (recall {recall:.2f})", color, dashes, points))
    return drawing(
        "Milliseconds of a search with a filter that one row in ten matches, by the number of rows",
        "ms",
        lines,
    )


if __name__ == "__main__":
    main()
