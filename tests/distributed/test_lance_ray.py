"""An index that lance-ray builds: nearsight searches it, and cleans up as before. `make ray` runs it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ray_nodes import Nodes
from unit_job_checks import DEADLINE_S

from nearsight.store import create_store, open_store
from nearsight.store.lance import maintenance

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(importlib.util.find_spec("lance_ray") is None, reason="no lance-ray: make ray"),
]

N, DIM = 6000, 64
BUILD = """
import sys
import lance_ray, ray

ray.init(sys.argv[2])
lance_ray.create_index(
    uri=sys.argv[1], column="vector", index_type="IVF_RQ", num_bits=4, num_partitions=8, num_workers=2,
    metric="cosine",
)
"""


def test_an_index_of_lance_ray_is_searched_and_cleaned_up(
    tmp_path: Path, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "MIN_INDEXED_ROWS", 10**9)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, DIM))[rng.integers(20, size=N)] + 0.3 * rng.normal(size=(N, DIM))
    kind = pa.list_(pa.float32(), DIM)
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("vector", kind)])
    store = create_store(tmp_path / "store", schema)
    for half in np.split(np.arange(N), 2):
        rows = pa.array(vectors[half].astype(np.float32).tolist(), kind)
        store.append(pa.table({"id": [f"{number:06}" for number in half], "vector": rows}))
    [table] = [path for path in (tmp_path / "store").glob("*.lance") if "thumbnail" not in path.name]
    command = [sys.executable, "-c", BUILD, str(table), nodes.address]
    subprocess.run(command, check=True, timeout=DEADLINE_S)
    before = len(list((table / "_versions").glob("*.manifest")))
    monkeypatch.setattr(maintenance, "MIN_INDEXED_ROWS", 1000)
    store = open_store(tmp_path / "store")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    n_found = 0
    for query in range(0, N, 100):
        nearest = {f"{number:06}" for number in np.argsort(-(unit @ unit[query]))[:10]}
        [result] = store.search(vectors[query : query + 1].astype(np.float32), 10)
        n_found += len(nearest & {hit.id for hit in result})
    assert n_found >= 0.99 * 600
    store.optimize()
    assert len(list((table / "_versions").glob("*.manifest"))) < before
    assert open_store(tmp_path / "store").count() == N
