"""Partitions: the rows in their order, the recall that was measured, and when they are refused."""

import numpy as np
import pyarrow as pa
import pytest

from nearsight.store.memory import accelerators, partitions
from nearsight.store.memory.codes import rounded
from nearsight.store.memory.partitions import grouped, measured
from nearsight.store.memory.rows import Part

pytestmark = pytest.mark.skipif(not accelerators.has_byte_products(), reason="numkong is not installed")

N, DIM = 12_000, 32


def draw(n, seed, n_centers=50):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).standard_normal((n_centers, DIM))
    noise = 0.3 if n_centers > 1 else 3
    lengths = rng.uniform(0.1, 10, (n, 1))
    drawn = centers[rng.integers(0, n_centers, n)] + noise * rng.standard_normal((n, DIM))
    return (drawn * lengths).astype(np.float32)


def part_of(vectors):
    return Part.of(pa.table({"id": [f"{number:05}" for number in range(len(vectors))]}), vectors)


def made(vectors):
    part = part_of(vectors)
    centers, numbers = grouped(part, lambda: None)
    order = np.argsort(numbers, kind="stable")
    return part.ordered(order), measured(part.ordered(order), centers, numbers[order], lambda: None)


def test_a_search_finds_what_was_measured_and_compares_few_rows():
    part, own = made(draw(N, 1))
    queries = draw(300, 2)
    units = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    stored = part.vectors.array * part.inverse_norms[:, None]
    for k, count in ((10, 30), (100, 300)):
        exact = np.argsort(-(units @ stored.T), axis=1)[:, :k]
        found = own.search(rounded(units), count)
        assert all(len(keys) == len({*keys.tolist()}) <= count for keys in found)
        recall = np.mean([len({*keys} & {*wanted}) / k for keys, wanted in zip(found, exact, strict=True)])
        assert recall >= 0.985
    assert own.recall >= 0.9925
    assert own.n_probes(30) < len(own.ends) / 4
    assert own.n_probes(30) <= own.n_probes(300) <= own.n_probes(10**6) == len(own.ends)
    # Rows keep their ids and vectors in the new order.
    numbers = [int(id) for id in part.table["id"].to_pylist()]
    assert (part.vectors.array == draw(N, 1)[numbers]).all()


def test_vectors_that_do_not_lie_in_clusters_are_refused(monkeypatch):
    monkeypatch.setattr(partitions, "_MAX_NUMBERS", N * DIM / 8)
    assert made(draw(N, 1))[1] is not None
    assert made(draw(N, 1, n_centers=1))[1] is None


@pytest.mark.parametrize("n", [1, 2, 30])
def test_a_few_rows_are_all_compared(n):
    vectors = draw(n, 3)
    part, own = made(vectors)
    [keys] = own.search(rounded(np.eye(DIM, dtype=np.float32)[:1]), 100)
    assert sorted(keys.tolist()) == list(range(n)) == list(range(len(part)))


def test_equal_vectors():
    _, own = made(np.ones((500, DIM), np.float32))
    assert own.recall == 1.0
    assert len(own.search(rounded(np.ones((1, DIM), np.float32)), 30)[0]) == 30
