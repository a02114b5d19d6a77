"""Decisions about faces: how long a name, a rejection, its undo, and a list of all people take.

Synthetic faces: unit vectors around a random center for each person, in a bank like any other. Milliseconds
are the median of ROUNDS; each decision is on disk when it counts as done. ::

    python -m benchmarks.people 10000 100000
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nearsight.faces import FaceBank
from nearsight.faces.decisions import PersonKey
from nearsight.faces.schema import schema
from nearsight.faces.storage import BankStorage
from nearsight.models import Fingerprint

_DIM = 128
_FACES_OF_PERSON = 25


def bank_of(directory: Path, n_faces: int, rng: np.random.Generator) -> FaceBank:
    """Return a bank of faces in groups of 25, nobody named."""
    facts = {
        "detector": "synthetic",
        "recognizer": "synthetic",
        "licenses": ("", ""),
        "dim": _DIM,
        "fingerprint": Fingerprint("synthetic", "0" * 64, {}, {}, {}),
    }
    storage = BankStorage.create(directory, facts)
    person = np.arange(n_faces) // _FACES_OF_PERSON
    centers = rng.normal(size=(person.max() + 1, _DIM))
    X = centers[person] + 0.3 * rng.normal(size=(n_faces, _DIM))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    now = datetime.now(timezone.utc)
    columns: dict[str, Any] = {
        "id": [f"{i:016x}" for i in range(n_faces)],
        "person": [""] * n_faces,
        "group": [f"g{each + 1}" for each in person],
        "path": [f"/photographs/{i}.jpg" for i in range(n_faces)],
        "picture": [f"{i:032x}" for i in range(n_faces)],
        "box": [[0.0, 0.0, 100.0, 100.0]] * n_faces,
        "landmarks": [[0.0] * 10] * n_faces,
        "vector": list(X),
        "confidence": [0.9] * n_faces,
        "quality": [0.8] * n_faces,
        "problems": [""] * n_faces,
        "enrolled_at": [now] * n_faces,
        "is_gray": [False] * n_faces,
    }
    with storage.writing() as store:
        store.append(pa.table(columns, schema=schema(_DIM)))
    return FaceBank.open(directory)


def milliseconds(act: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - start)


def measure(n_faces: int, rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each action."""
    times: dict[str, list[float]] = {name: [] for name in ("name", "reject", "undo", "list")}
    with tempfile.TemporaryDirectory() as folder:
        people = bank_of(Path(folder) / "bank", n_faces, np.random.default_rng(0)).people
        for i in range(rounds):
            key, face = PersonKey(f"g{i + 1}", ""), f"{i * _FACES_OF_PERSON:016x}"
            times["name"].append(milliseconds(lambda key=key, i=i: people.name(key, f"Person {i}")))
            times["reject"].append(milliseconds(lambda face=face: people.reject([face])))
            times["undo"].append(milliseconds(people.undo))
            times["list"].append(milliseconds(people.groups))
    return {name: round(statistics.median(values), 1) for name, values in times.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faces", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = {n: measure(n, args.rounds) for n in args.faces}
    if args.json:
        rows = {f"{n:,}": {f"{name}, ms": value for name, value in row.items()} for n, row in results.items()}
        print(json.dumps({"faces": rows}))
        return
    for n, found in results.items():
        print(f"{n:,} faces: " + ", ".join(f"{name} {value:,} ms" for name, value in found.items()))


if __name__ == "__main__":
    main()
