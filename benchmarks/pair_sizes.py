"""Plots what near-duplicates, and the neighbors of all rows, cost by the number of rows, as SVG.

    python -m benchmarks.pair_sizes FOLDER --rows 10000 100000 --neighbor-rows 10000 100000 1000000 \\
        --svg docs/images/pairs-cost.svg
    python -m benchmarks.pair_sizes FOLDER --results FILE... --svg docs/images/pairs-cost.svg

FOLDER is that of `benchmarks.duplicates` and `benchmarks.neighbors`, whose documents (``--json``) the second
form draws. Processor time is drawn, of the process and its workers. 100,000 rows take some 10 minutes on two
idle cores, most of them to make the rows; the neighbors of a million a quarter of an hour and 5 GB of memory.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cost_plot import Line, drawing


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000], help="of duplicates")
    parser.add_argument(
        "--neighbor-rows", type=int, nargs="*", default=[10_000, 100_000], help="of neighbors"
    )
    parser.add_argument("--results", type=Path, nargs="*", help="documents to draw instead of measuring")
    parser.add_argument("--svg", type=Path, required=True)
    parser.add_argument("--json", action="store_true", help="print what was drawn, too")
    options = parser.parse_args()
    if options.results:
        documents = [json.loads(path.read_text(encoding="utf-8")) for path in options.results]
    else:
        documents = [measured("duplicates", options.folder, rows) for rows in options.rows]
        documents += [measured("neighbors", options.folder, rows) for rows in options.neighbor_rows]
    costs = [cost(document) for document in sorted(documents, key=lambda document: document["rows"])]
    options.svg.write_text(plot(costs), encoding="utf-8")
    if options.json:
        print(json.dumps({"costs": costs}, indent=2))


def measured(benchmark: str, folder: Path, rows: int) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", str(folder), "--rows", str(rows), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def cost(document: dict[str, Any]) -> dict[str, Any]:
    """Return what is drawn of a document."""
    facts = {"rows": document["rows"], "dim": document["dim"]}
    if "searches" not in document:
        own = {name: document[name] for name in ("seconds", "processor_seconds", "peak_mb", "before_mb")}
        return {"line": "near-duplicates", **facts, **own, "found": document["copies_found"]}
    search = document["searches"][0]
    own = {name: search[name] for name in ("seconds", "processor_seconds", "peak_mb")}
    return {
        "line": "neighbors of all rows",
        **facts,
        **own,
        "before_mb": document["peak_before_mb"],
        "found": search["recall"],
    }


def plot(costs: Sequence[dict[str, Any]]) -> str:
    names = sorted({cost["line"] for cost in costs})
    lines = []
    for name, color in zip(names, ("#d9480f", "#1971c2"), strict=False):
        own = [cost for cost in costs if cost["line"] == name]
        points = [
            (
                one["rows"],
                one["processor_seconds"],
                f"{one['processor_seconds']:.0f} s, found {one['found']:.3f}",
            )
            for one in own
        ]
        lines.append(Line(f"{name}, {own[0]['dim']:,} numbers", color, "", points))
    return drawing("Seconds of processor time by the number of rows", "s", lines)


if __name__ == "__main__":
    main()
