"""What the upkeep of a store costs: memory, bytes rewritten, and what a search takes before and after.

    python -m benchmarks.upkeep --rows 100000 --thumbnails 10kB

Rows come in batches of 512, as `index` writes them. Then each step runs in a process of its own, whose peak
memory Linux counts: `compact` of all rows, again with nothing new, and after one more percent; then 500
single adds. Vectors are drawn around 1,000 random centers; thumbnails are random bytes. With --lancedb, one
table of LanceDB holds the same rows, and its own `optimize()` compacts them.

100,000 rows take 3 minutes on two idle cores, and 2 GB on the disk; a million take half an hour, and 14 GB.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa

from benchmarks.search import Clusters, percentile, timed
from nearsight.store import create_store, open_store

_BATCH_ROWS = 512
_UNITS = {"": 1, "B": 1, "kB": 1000, "MB": 1_000_000}


def size(text: str) -> int:
    """Return bytes: "10kB" is 10000."""
    match = re.fullmatch(r"(\d+)(B|kB|MB)?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, such as 10kB")
    return int(match[1]) * _UNITS[match[2] or ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--thumbnails", type=size, default=size("10kB"), metavar="SIZE")
    parser.add_argument("--adds", type=int, default=500, help="single-row adds")
    parser.add_argument("--dir", type=Path, help="where to put the store (default: a temporary directory)")
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    parser.add_argument("--lancedb", action="store_true", help="compact a plain table of LanceDB")
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, directory, start, n = options.step
        print(json.dumps(STEPS[name](Path(directory), int(start), int(n), options)))
        return
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        result = run(options, directory)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:>40}  {value:,.4g}" if isinstance(value, float) else f"{name:>40}  {value:,}")


def run(options: argparse.Namespace, directory: str) -> dict[str, int | float]:
    n, more = options.rows, options.rows // 100

    def step(name: str, start: int = 0, n: int = 0) -> dict[str, float]:
        arguments = ["--dim", str(options.dim), "--thumbnails", str(options.thumbnails)]
        arguments += ["--lancedb"] * options.lancedb
        command = [sys.executable, "-m", "benchmarks.upkeep", *arguments]
        command += ["--step", name, directory, str(start), str(n)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        values: dict[str, float] = json.loads(done.stdout)
        print(name, start, n, values, file=sys.stderr, flush=True)
        return values

    result: dict[str, int | float] = {"rows": n, "dim": options.dim, "thumbnail_bytes": options.thumbnails}
    new = step("fill", 0, n)
    before = {} if options.lancedb else step("measure", n)
    compact = step("compact")
    after = {} if options.lancedb else step("measure", n)
    result |= {"fill_s": new["seconds"], "data_bytes": new["data_bytes"]}
    result |= _of_compact("compact", compact, new["data_bytes"])
    result |= {f"before_{name}": value for name, value in before.items()}
    result |= {f"after_{name}": value for name, value in after.items()}
    result["compact_again_bytes_rewritten"] = step("compact")["rewritten_bytes"]
    new = step("fill", n, more)
    result |= _of_compact("compact_1_percent", step("compact"), new["data_bytes"])
    if options.lancedb:
        return result
    adds = step("add", n + more, options.adds)
    result |= {f"adds_{name}": value for name, value in adds.items()}
    result |= {"after_adds_search_p50_ms": step("measure", n)["search_p50_ms"]}
    return result


def _of_compact(name: str, values: dict[str, float], new_bytes: float) -> dict[str, float]:
    return {
        f"{name}_s": values["seconds"],
        f"{name}_peak_rss_mb": values["peak_rss_mb"],
        f"{name}_bytes_rewritten": values["rewritten_bytes"],
        f"{name}_bytes_rewritten_over_new": values["rewritten_bytes"] / new_bytes,
        f"{name}_bytes_written_in_all": values["written_bytes"],
    }


def fill(directory: Path, start: int, n: int, options: argparse.Namespace) -> dict[str, float]:
    source = Rows(options.dim, options.thumbnails, seed=start)
    store = (
        PlainTable(directory, source.schema)
        if options.lancedb
        else create_store(directory / "store", source.schema)
    )
    before, started = data_bytes(directory), time.perf_counter()
    for at in range(start, start + n, _BATCH_ROWS):
        store.append(source.rows(at, min(_BATCH_ROWS, start + n - at)))
    return {"seconds": time.perf_counter() - started, "data_bytes": data_bytes(directory) - before}


def add(directory: Path, start: int, n: int, options: argparse.Namespace) -> dict[str, float]:
    source, store, milliseconds = (
        Rows(options.dim, options.thumbnails, seed=start),
        open_store(directory / "store"),
        [],
    )
    busy = 0.0
    for at in range(start, start + n):
        row, cpu, started = source.rows(at, 1), time.process_time(), time.perf_counter()
        store.append(row)
        store.maintain()
        milliseconds.append((time.perf_counter() - started) * 1e3)
        busy += time.process_time() - cpu
    return {"mean_ms": float(np.mean(milliseconds)), "max_ms": max(milliseconds), "cpu_ms": 1e3 * busy / n}


def compact(directory: Path, start: int, n: int, options: argparse.Namespace) -> dict[str, float]:
    store = PlainTable(directory) if options.lancedb else open_store(directory / "store")
    files = set(directory.rglob("data/*.lance"))
    before, started = written_bytes(), time.perf_counter()
    store.optimize()
    seconds = time.perf_counter() - started
    new = set(directory.rglob("data/*.lance")) - files
    return {
        "seconds": seconds,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "rewritten_bytes": sum(file.stat().st_size for file in new),
        "written_bytes": written_bytes() - before,
    }


def measure(directory: Path, n: int, _: int, options: argparse.Namespace) -> dict[str, float]:
    store = open_store(directory / "store")
    rng = np.random.default_rng(5)
    queries = Clusters(options.dim, 1.0, 0).draw(100)

    def thumbnails(n_ids: int) -> Callable[[], object]:
        ids = [f"{number:032x}" for number in rng.integers(0, n, n_ids)]
        return lambda: list(store.scan(["id", "thumbnail"], ids=ids))

    started, n_read = time.perf_counter(), 0
    for batch in store.scan(["id", "thumbnail"]):
        n_read += len(batch)
        if time.perf_counter() - started > 5:
            break
    return {
        "search_p50_ms": percentile(timed(store, queries, 10)[1], 50),
        "10_thumbnails_p50_ms": percentile([milliseconds(thumbnails(10)) for _ in range(20)], 50),
        "256_thumbnails_p50_ms": percentile([milliseconds(thumbnails(256)) for _ in range(10)], 50),
        "thumbnails_read_per_s": n_read / (time.perf_counter() - started),
    }


STEPS = {"fill": fill, "add": add, "compact": compact, "measure": measure}


class PlainTable:
    """A table as LanceDB makes and compacts it by itself, in the file format that nearsight uses."""

    def __init__(self, directory: Path, schema: pa.Schema | None = None) -> None:
        exists = (directory / "plain").exists()
        connection = lancedb.connect(directory / "plain")
        if exists:
            self._table = connection.open_table("rows")
        else:
            options = {"new_table_data_storage_version": "2.0"}
            self._table = connection.create_table("rows", schema=schema, storage_options=options)

    def append(self, rows: pa.Table) -> None:
        self._table.add(rows)

    def optimize(self) -> None:
        self._table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)


class Rows:
    """Rows as `index` writes them, with thumbnails that are parts of one random string."""

    def __init__(self, dim: int, thumbnail_bytes: int, seed: int) -> None:
        self._clusters = Clusters(dim, 1.0, 0)
        self._rng = np.random.default_rng(seed)
        self._clusters._rng = self._rng
        self._bytes, self._random = thumbnail_bytes, self._rng.bytes(2**24 + thumbnail_bytes)
        self.schema = self._clusters.schema

    def rows(self, start: int, n: int) -> pa.Table:
        places = self._rng.integers(0, 2**24, n)
        table, _ = self._clusters.rows(start, n)
        thumbnails = pa.array([self._random[at : at + self._bytes] for at in places], pa.binary())
        return table.set_column(1, "thumbnail", thumbnails)


def milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def data_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("data/*.lance"))


def written_bytes() -> int:
    """Return what this process has written so far, indexes and their temporary files included."""
    return int(re.search(r"^wchar: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE)[1])


if __name__ == "__main__":
    main()
