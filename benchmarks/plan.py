"""What `nearsight plan` says, beside what was measured here: disk, memory, index, searches, embedding.

    python -m benchmarks.plan --rows 60000 --dim 768 [--images FOLDER] [--postgres [URI]] [--check]
    python -m benchmarks.plan --rows 1000000 --keep DIR [--only STEP ...]
    python -m benchmarks.plan --costs

A collection is made as `benchmarks.search --engine memory` makes it, with thumbnails of random bytes. Each
line of the plan that can be measured is measured: bytes of the files, resident memory of a process that has
searched 1,000 times, processor time of the index and of the later 500 searches. With --images, the images in
FOLDER are sampled as `nearsight plan FOLDER` does, and then indexed. With --postgres, the rows go to a
server, too: by default to that of the tests. With --costs, only the table of costs of the documentation is
printed.
Processor time counts, so that other work on the machine does little. With --check, the exit code is 1 where a
line is off by more than 30 %. With --keep, the collection and what each step has measured stay in DIR: the
same command goes on where it was, and --only does some of the steps.

100,000 rows take 3 minutes and 1 GB; 1,000,000 half an hour, 12 GB of disk and of memory.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.search_memory import Mixture, make, open_collection, resident_mb
from nearsight import Collection
from nearsight.collection.manifest import STORE
from nearsight.planning import Needs, Sample, estimate, measure
from nearsight.store import create_store, open_store
from nearsight.store.lance import maintenance

_TOLERANCE = 0.3
_N_QUERIES = 500
# Of EfficientNet-Lite0's vectors.
_COSTS_DIM = 1280


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--thumbnail-bytes", type=int, default=3000)
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="embed these")
    parser.add_argument(
        "--postgres", nargs="?", const="own", metavar="URI", help="put the rows into this database, too"
    )
    parser.add_argument("--costs", action="store_true", help="print the table of costs only")
    parser.add_argument("--dir", type=Path, help="where to put the collection (default: temporary)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the collection and the results there")
    parser.add_argument("--only", nargs="+", choices=sorted(STEPS), metavar="STEP", help="do these only")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a line is off by over 30 %%")
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step[0]](Path(options.step[1]), options)))
        return
    if options.costs:
        print(costs())
        return
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    with (
        nullcontext(options.keep)
        if options.keep
        else tempfile.TemporaryDirectory(dir=options.dir) as directory,
        own_server(options) if options.postgres == "own" else nullcontext(),
    ):
        if options.only:
            for step in options.only:
                print(step, in_a_process(step, Path(directory) / _FOLDERS.get(step, "made"), options))
            return
        measured = measure_all(options, Path(directory))
    sample = measured.pop("sample")
    plan = planned(options, sample)
    lines = [
        {
            "line": name,
            "planned": plan[name][0],
            "measured": float(f"{value:.3g}"),
            "unit": plan[name][1],
            "planned / measured": round(plan[name][0] / value, 2),
        }
        for name, value in measured.items()
        # Few rows have no index.
        if name in plan and value
    ]
    off = [line["line"] for line in lines if abs(line["planned / measured"] - 1) > _TOLERANCE]
    document = {"rows": options.rows, "dim": options.dim, "lines": lines, "off by over 30 %": ", ".join(off)}
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        for line in lines:
            print("{line:>28}  {planned:>10,.4g}  {measured:>10,.4g}  {unit:<22}".format(**line), end="")
            print(f"{line['planned / measured']:.2f}")
        print("off by over 30 %:", ", ".join(off) or "none")
    if options.check and off:
        raise SystemExit(1)


def costs() -> str:
    """Return what some collections take, as a table in Markdown."""
    lines = [
        "| images | megapixels | machine hours | vectors, rows, index | thumbnails | memory of a server |",
        "|---|---|---|---|---|---|",
    ]
    for n_images, name in ((1_000_000, "1 million"), (200_000_000, "200 million")):
        for megapixels in (0.3, 2, 12):
            needs = Needs(n_images, _COSTS_DIM, megapixels=megapixels, cores=16, gpus=1)
            plan = {line.name: line.value for line in estimate(needs, Sample())}
            disk = sum(float(plan[part]) for part in ("vectors", "paths, sizes, dates", "index"))
            memory = float(plan.get("memory, search in memory", plan["memory, search on disk"]))
            sizes = (f"{_rounded(gigabytes)} GB" for gigabytes in (disk, plan["thumbnails"], memory))
            hours = _rounded(plan["machine hours"])
            lines.append(f"| {name} | {megapixels:g} | {hours} | {' | '.join(sizes)} |")
    return "\n".join(lines)


def _rounded(value: float | str) -> str:
    """Return two digits.

    >>> [_rounded(value) for value in (0.1134, 1.36, 45.4, 1219.2)]
    ['0.11', '1.4', '45', '1,200']
    """
    return f"{float(f'{float(value):.2g}'):,g}"


@contextmanager
def own_server(options: argparse.Namespace) -> Iterator[None]:
    """Start the server of the tests, and stop it."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from postgres_server import PostgresServer

    server = PostgresServer()
    # Steps are processes, which inherit it.
    os.environ["PGPASSWORD"] = server.password
    options.postgres = server.uri
    try:
        yield
    finally:
        server.stop()


def planned(options: argparse.Namespace, sample: Sample) -> dict[str, tuple[float, str]]:
    """Return the numbers of the plan by name, with their units."""
    needs = Needs(options.rows, options.dim, cores=1)
    lines = estimate(needs, sample)
    numbers = {line.name: (line.value, line.unit) for line in lines if not isinstance(line.value, str)}
    # One file holds both.
    both = numbers["vectors"][0] + numbers["paths, sizes, dates"][0]
    return {**numbers, "vectors and rows": (both, "GB")}


def measure_all(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Return what was measured, by the names of the plan's lines."""
    sample = Sample(network_per_core=100.0, thumbnail_bytes=options.thumbnail_bytes)
    result: dict[str, Any] = {}
    if options.images:
        found = measure([str(options.images)], "efficientnet-lite0")
        sample = Sample(
            decoded_per_core=found.decoded_per_core,
            network_per_core=found.network_per_core,
            thumbnail_bytes=options.thumbnail_bytes,
        )
        result["embedding rate"] = in_a_process("embed", directory / "embedded", options)["per_second"]
    result["sample"] = sample
    in_a_process("make", directory / "made", options)
    optimized = in_a_process("optimize", directory / "made", options)
    result["index build"] = optimized["cpu_s"] / 60
    result |= sizes(directory / "made" / STORE)
    in_a_process("load", directory / "made", options)
    for name in ("disk", "memory"):
        searched = in_a_process(f"search_{name}", directory / "made", options)
        result[f"memory, search {_PLACES[name]}"] = searched["memory_mb"] / 1000
        result[f"search {_PLACES[name]}"] = searched["cpu_ms"]
    if options.postgres:
        result["Postgres, table and index"] = in_a_process("postgres", directory / "made", options)["gb"]
    return result


_PLACES = {"disk": "on disk", "memory": "in memory"}
# Steps that are not done in the folder "made", and those that begin with an empty one.
_FOLDERS, _MAKERS = {"embed": "embedded"}, ("embed", "make")


def sizes(store: Path) -> dict[str, float]:
    """Return the gigabytes of a store, in the plan's parts."""

    def gigabytes(pattern: str) -> float:
        return sum(path.stat().st_size for path in store.glob(pattern) if path.is_file()) / 1e9

    rows, index = gigabytes("pictures.lance/data/**/*"), gigabytes("pictures.lance/_indices/**/*")
    everything = gigabytes("**/*")
    return {"vectors and rows": rows, "thumbnails": everything - rows - index, "index": index}


def in_a_process(step: str, directory: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run a step in a process of its own, unless its result was kept."""
    kept = directory.parent / f"{step}.json"
    if kept.exists():
        known: dict[str, float] = json.loads(kept.read_text())
        return known
    if step in _MAKERS:
        shutil.rmtree(directory, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.plan", "--step", step, str(directory)]
    for name in ("rows", "dim", "thumbnail_bytes", "images", "postgres"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    print(step, "...", file=sys.stderr, flush=True)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    document: dict[str, float] = json.loads(done.stdout)
    kept.write_text(json.dumps(document))
    return document


def _embed(directory: Path, options: argparse.Namespace) -> dict[str, float]:
    """Index images; return how many a second of a core, start and end left out."""
    collection = Collection.create(directory)
    first = next(path for path in sorted(options.images.rglob("*")) if path.is_file())
    collection.add(first, n_processes=0, progress=False)
    before = _cpu_seconds()
    report = collection.add(options.images, n_processes=0, progress=False)
    return {"per_second": report.added / (_cpu_seconds() - before)}


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _make(directory: Path, options: argparse.Namespace) -> dict[str, float]:
    # The step that builds the index is measured, and this one is not.
    with patch.object(maintenance, "MIN_INDEXED_ROWS", options.rows + 1):
        make(directory, options.rows, options.dim, thumbnail_bytes=options.thumbnail_bytes)
    return {}


def _optimize(directory: Path, options: argparse.Namespace) -> dict[str, float]:
    """Build the index of all rows, and delete what is old; return the processor time."""
    started = time.process_time()
    open_store(directory / STORE).optimize()
    return {"cpu_s": time.process_time() - started}


def _load(directory: Path, options: argparse.Namespace) -> dict[str, float]:
    """Build what searches in memory read, as a server does at its first start."""
    open_collection(directory, options.dim)[1].load()
    return {}


def _search(directory: Path, options: argparse.Namespace, *, in_memory: bool) -> dict[str, float]:
    collection, store = open_collection(directory, options.dim, in_memory=in_memory)
    if in_memory:
        store.load()
    # The first searches on the disk read partitions of the index, twenty each, which then stay in memory.
    for query in Mixture(options.dim, seed=3).draw(_N_QUERIES):
        collection.search(vector=query)
    queries = Mixture(options.dim, seed=4).draw(_N_QUERIES)
    started = time.process_time()
    for query in queries:
        collection.search(vector=query)
    seconds = time.process_time() - started
    return {"memory_mb": resident_mb()["VmRSS"], "cpu_ms": 1000 * seconds / len(queries)}


def _postgres(directory: Path, options: argparse.Namespace) -> dict[str, float]:
    """Copy the rows to a server; return by how many gigabytes its tables and indexes have grown."""
    import psycopg

    def size() -> float:
        query = (
            "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
        )
        with psycopg.connect(options.postgres) as connection:
            [[n_bytes]] = connection.execute(query).fetchall()
        return float(n_bytes) / 1e9

    before, source = size(), open_store(directory / STORE)
    separator = "&" if "?" in options.postgres else "?"
    target = create_store(f"{options.postgres}{separator}collection=plan", source.schema)
    names = [name for name in source.schema.names if name != "thumbnail"]
    for batch in source.scan(names):
        target.append(_table(batch))
    target.maintain()
    return {"gb": size() - before}


def _table(batch: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_batches([batch])


STEPS: dict[str, Callable[[Path, argparse.Namespace], dict[str, float]]] = {
    "embed": _embed,
    "make": _make,
    "optimize": _optimize,
    "load": _load,
    "search_disk": lambda directory, options: _search(directory, options, in_memory=False),
    "search_memory": lambda directory, options: _search(directory, options, in_memory=True),
    "postgres": _postgres,
}


if __name__ == "__main__":
    main()
