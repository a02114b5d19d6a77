"""What usearch and numkong add; skipped where they are missing."""

import numpy as np
import pytest

from nearsight.errors import StorageError
from nearsight.store.memory import accelerators
from nearsight.store.memory.accelerators import Graph, byte_products

pytestmark = pytest.mark.skipif(not accelerators.has_graphs(), reason="usearch is not installed")


@pytest.fixture
def codes():
    return np.random.default_rng(0).integers(-127, 128, (300, 16)).astype(np.int8)


@pytest.fixture
def graph(codes):
    graph = Graph.empty(16)
    graph.add(np.arange(300), codes, n_threads=1)
    graph.expansion = 300
    return graph


def test_products_are_exact(codes):
    query = np.full(16, -127, np.int8)
    assert byte_products(query, codes).tolist() == (codes.astype(int) @ query.astype(int)).tolist()


def test_a_walk_finds_what_a_comparison_finds(graph, codes):
    wide = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    for number, keys in enumerate(graph.search(codes[:20], 5)):
        assert set(keys) == set(np.argsort(-(wide @ wide[number]))[:5])
    assert set(graph.search(codes[:1], 1)[0]) == {0}


def test_more_than_there_are(graph, codes):
    assert sorted(graph.search(codes[:1], 1000)[0]) == list(range(300))
    assert [len(keys) for keys in Graph.empty(16).search(codes[:2], 3)] == [0, 0]


def test_a_saved_graph_is_the_same(graph, codes, tmp_path):
    graph.save(tmp_path / "graph")
    opened = Graph.open(tmp_path / "graph", 96, 0.999)
    assert (len(opened), opened.expansion, opened.recall) == (300, 96, 0.999)
    opened.expansion = 300
    for mine, theirs in zip(graph.search(codes, 7), opened.search(codes, 7), strict=True):
        assert mine.tolist() == theirs.tolist()


def test_a_row_may_be_added_twice(graph, codes):
    graph.add(np.array([7]), codes[7:8], 1)
    assert graph.search(codes[7:8], 2)[0].tolist() == [7, 7]


def test_something_that_is_no_graph(tmp_path):
    (tmp_path / "graph").write_bytes(b"no graph at all" * 100)
    with pytest.raises(StorageError, match="graph"):
        Graph.open(tmp_path / "graph", 64, 1.0)


def test_a_graph_that_cannot_be_written(graph, tmp_path):
    with pytest.raises(OSError, match=r"."):
        graph.save(tmp_path / "missing" / "graph")
