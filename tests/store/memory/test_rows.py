"""Search among rows in memory, against numpy on all of them."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from nearsight.store import parse
from nearsight.store.memory import accelerators, rows
from nearsight.store.memory.accelerators import Graph
from nearsight.store.memory.codes import encode
from nearsight.store.memory.rows import Part, Rows

N, DIM = 600, 24
FIELDS = {"number": pa.int64()}
EMPTY = np.empty((0, DIM), np.float32)

needs_graphs = pytest.mark.skipif(not accelerators.has_graphs(), reason="usearch is not installed")


def draw(n, seed):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).standard_normal((20, DIM))
    # Lengths differ: only directions are compared.
    lengths = rng.uniform(0.1, 10, (n, 1))
    return ((centers[rng.integers(0, 20, n)] + 0.5 * rng.standard_normal((n, DIM))) * lengths).astype(
        np.float32
    )


def table(numbers):
    numbers = list(numbers)
    return pa.table(
        {
            "id": pa.array([f"{number:04}" for number in numbers], pa.string()),
            "number": pa.array(numbers, pa.int64()),
        }
    )


def make_graph(vectors):
    graph = Graph.empty(DIM)
    part = Part.of(table(range(len(vectors))), vectors)
    graph.add(np.arange(len(vectors)), part.codes.values, 1)
    graph.expansion = 200
    return graph


@pytest.fixture(params=["bytes", "graph", "numpy"])
def engine(request, monkeypatch):
    """How rows are searched; the second value is what makes them."""
    if request.param == "numpy":
        monkeypatch.setattr(rows, "has_byte_products", lambda: False)
        return lambda table, vectors: Rows.of(Part.of(table, vectors))
    if not accelerators.has_graphs():
        pytest.skip("usearch is not installed")
    if request.param == "bytes":
        return lambda table, vectors: Rows.of(Part.of(table, vectors))
    monkeypatch.setattr("nearsight.store.memory.plan.MAX_EXACT_NUMBERS", 0)
    monkeypatch.setattr("nearsight.store.memory.plan._MAX_EXACT_NUMBERS_IN_A_BATCH", 0)
    return lambda table, vectors: Rows.of(Part.of(table, vectors), make_graph(vectors))


def expected(vectors, query, k, chosen):
    wide = vectors.astype(np.float64)
    cosines = wide @ query / np.linalg.norm(wide, axis=1) / np.linalg.norm(query.astype(np.float64))
    order = sorted(chosen, key=lambda number: -cosines[number])[:k]
    return order, cosines[order]


def check(found, vectors, queries, k, chosen):
    for hits, query in zip(found, queries, strict=True):
        numbers, cosines = expected(vectors, query, k, chosen)
        assert [hit.row["number"] for hit in hits] == numbers
        assert [hit.id for hit in hits] == [f"{number:04}" for number in numbers]
        np.testing.assert_allclose([hit.similarity for hit in hits], cosines, atol=1e-6)


@pytest.mark.parametrize("n_queries", [1, 3, 40])
@pytest.mark.parametrize(
    "where", [None, "number < 400", "number < 5", "number IN (1, 77, 300)", "number > 5000"]
)
def test_the_nearest_of_those_that_match(engine, n_queries, where):
    vectors, queries = draw(N, 1), draw(n_queries, 2)
    own = engine(table(range(N)), vectors)
    condition = None if where is None else parse(where, FIELDS)
    mask = own.mask(condition)
    found = own.search(queries, 7, condition, ["number"], exact=False)
    check(found, vectors, queries, 7, np.flatnonzero(mask))


@pytest.mark.parametrize("where", [None, "number < 450"])
def test_after_changes(engine, where):
    vectors, queries = draw(N, 1), draw(5, 2)
    own = engine(table(range(500)), vectors[:500])
    own = own.changed(table(range(500, N)), vectors[500:])
    own = own.changed(table([]), EMPTY, ["0003", "0550", "9999"])
    # Rows 10 and 560 get the vectors of two others that go, and keep their places in no list.
    vectors[[10, 560]] = draw(2, 3)
    own = own.changed(table([10, 560]), vectors[[10, 560]])
    condition = None if where is None else parse(where, FIELDS)
    chosen = [n for n in range(N) if n not in (3, 550) and (where is None or n < 450)]
    for batch in (queries, np.concatenate([queries] * 4)):
        check(own.search(batch, 9, condition, ["number"], exact=False), vectors, batch, 9, chosen)
    assert own.n_alive == N - 2
    assert own.take(own.positions(["0010", "0003"]), ["id", "vector"]).to_pylist() == [
        {"id": "0010", "vector": vectors[10].tolist()}
    ]


def test_equal_vectors_are_ordered_by_id(engine):
    vectors = draw(N, 1)
    vectors[100:120] = vectors[7]
    own = engine(table(range(N)), vectors)
    [hits] = own.search(vectors[7:8], 12, None, ["number"], exact=False)
    assert [hit.row["number"] for hit in hits] == [7, *range(100, 111)]


@needs_graphs
def test_a_filter_that_leaves_out_all_that_is_near(monkeypatch):
    """The graph returns what lies near; where none of it matches, all that matches is compared."""
    monkeypatch.setattr("nearsight.store.memory.plan.MAX_EXACT_NUMBERS", 0)
    vectors, query = draw(N, 1), draw(1, 2)
    order = np.argsort(-(vectors @ query[0]) / np.linalg.norm(vectors, axis=1))
    vectors = vectors[order]
    own = Rows.of(Part.of(table(range(N)), vectors), make_graph(vectors))
    compared = []
    monkeypatch.setattr(Rows, "_compare", lambda *a, _of=Rows._compare: compared.append(1) or _of(*a))
    condition = parse(f"number >= {N // 2}", FIELDS)
    check(own.search(query, 7, condition, ["number"], exact=False), vectors, query, 7, range(N // 2, N))
    assert compared
    check(own.search(query, 7, None, ["number"], exact=False), vectors, query, 7, range(N))
    assert len(compared) == 1


@needs_graphs
def test_the_bound_gives_up_where_all_rows_are_alike(monkeypatch):
    vectors = np.ones((3000, DIM), np.float32) + np.random.default_rng(0).normal(0, 1e-4, (3000, DIM)).astype(
        np.float32
    )
    part = Part.of(table(range(3000)), vectors)
    assert part._nearest_by_codes(vectors[0] / np.linalg.norm(vectors[0]), 5, None, part.codes) is None
    own = Rows.of(part)
    [hits] = own.search(vectors[:1], 5, None, [], exact=True)
    assert len(hits) == 5


def test_too_many_rows_to_compare_are_left_to_the_store(monkeypatch):
    own = Rows.of(Part.of(table(range(N)), draw(N, 1)))
    monkeypatch.setattr("nearsight.store.memory.plan.MAX_HELD_NUMBERS", 100)
    monkeypatch.setattr("nearsight.store.memory.plan.MAX_EXACT_NUMBERS", 100)
    assert own.search(draw(1, 2), 5, None, [], exact=False) is None
    assert own.search(draw(1, 2), 5, parse("number < 3", FIELDS), [], exact=False) is not None


def test_a_filter_that_only_the_engine_understands():
    own = Rows.of(Part.of(table(range(N)), draw(N, 1)))
    assert own.mask(parse("color = 'red'", {"color": pa.string()})) is None
    assert own.search(draw(1, 2), 5, parse("color = 'red'", {"color": pa.string()}), [], exact=False) is None


def test_masks_are_kept_for_the_last_filters():
    own = Rows.of(Part.of(table(range(N)), draw(N, 1)))
    for number in range(40):
        assert own.mask(parse(f"number = {number}", FIELDS)).tolist().count(True) == 1
    assert len(own._masks) <= rows._N_MASKS


def test_a_mask_that_another_thread_takes_out_is_made_again():
    class Fleeting(dict):
        def __contains__(self, key):
            """Be asked, and have the key taken out before it is used."""
            is_there = super().__contains__(key)
            self.pop(key, None)
            return is_there

    made = replace(Rows.of(Part.of(table(range(3)), draw(3, 0))), _masks=Fleeting())
    for _ in range(2):
        assert made.mask(parse("number < 2", FIELDS)).tolist() == [True, True, False]


def test_new_columns_hold_nothing():
    own = Rows.of(Part.of(table(range(5)), draw(5, 1))).changed(table([5]), draw(1, 2))
    own = own.with_columns([pa.field("id", pa.string()), pa.field("stars", pa.float64())])
    assert own.columns == ["id", "stars"]
    assert own.mask(parse("stars IS NULL", {"stars": pa.float64()})).all()
    assert own.take(np.array([5, 0]), ["id", "stars"]).to_pylist() == [
        {"id": "0005", "stars": None},
        {"id": "0000", "stars": None},
    ]


@needs_graphs
def test_codes_follow_the_vectors():
    part = Part.of(table(range(5)), draw(5, 1))
    assert (encode(part.vectors.array, part.inverse_norms).values == part.codes.values).all()
    assert len(part.empty()) == len(part.empty().codes.values) == len(part.empty().table) == 0
