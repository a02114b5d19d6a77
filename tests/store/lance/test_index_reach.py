"""How far a search goes with the index: what is measured, when it is used, and when it is not."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from nearsight.store import parse
from nearsight.store.lance import index_reach, maintenance, nearest
from nearsight.store.lance.index_reach import FARTHEST, Reach, chosen
from nearsight.store.lance.store import LanceStore
from nearsight.store.lance.table import SharedTable
from nearsight.testing.stores import vector_array

N, DIM, SPREAD = 3000, 32, 0.85


def draw(n, seed):
    """Vectors in loose clusters: one partition does not hold the nearest, and half of them do."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).standard_normal((30, DIM))
    drawn = (centers[rng.integers(0, 30, n)] + SPREAD * rng.standard_normal((n, DIM))).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def rows(vectors, first=0):
    ids = [f"{first + number:05}" for number in range(len(vectors))]
    return pa.table({"id": ids, "vector": vector_array(vectors)})


@pytest.mark.parametrize("needed_probes", [1, 20, 21, 70, 150, 10**9])
@pytest.mark.parametrize("needed_factor", [2, 3, 4])
def test_the_least_that_finds_enough(needed_probes, needed_factor):
    def recall(reach):
        is_enough = (reach.n_probes or 10**9) >= needed_probes and reach.refine_factor >= needed_factor
        return 0.998 if is_enough else 0.997

    reach = chosen(recall, 1_000_000)
    assert reach.refine_factor == {2: 2, 3: 3, 4: 5}[needed_factor]
    assert reach.n_probes == {1: 10, 20: 20, 21: 40, 70: 80, 150: 160, 10**9: 0}[needed_probes]
    assert chosen(recall, 10 * 4096).n_probes == 0


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A store whose index was measured."""
    directory = tmp_path_factory.mktemp("measured") / "store"
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        build = SharedTable.build_index

        def build_with_partitions(table, column, config):
            config.num_partitions = 30
            build(table, column, config)

        patch.setattr(SharedTable, "build_index", build_with_partitions)
        schema = pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32(), DIM))])
        store = LanceStore.create(directory, schema)
        store.append(rows(draw(N, 1)))
        store.optimize()
    return directory


def make_small(patch):
    patch.setattr(maintenance, "MIN_INDEXED_ROWS", 1000)
    small = {"_FIRST_PROBES": 1, "_ROWS_PER_PARTITION": 100, "MAX_K": 20, "_KS": (10, 20)}
    for name, value in small.items():
        patch.setattr(index_reach, name, value)


@pytest.fixture
def store(directory, tmp_path, monkeypatch):
    make_small(monkeypatch)
    shutil.copytree(directory, tmp_path / "store")
    return LanceStore.open(tmp_path / "store")


def reaches(store, monkeypatch, *args, **options):
    """Return how far a search went."""
    seen = []
    monkeypatch.setattr(
        "nearsight.store.lance.store.nearest",
        lambda *args, **options: seen.append(options.get("reach")) or nearest.nearest(*args, **options),
    )
    hits = store.search(*args, **options)
    return seen, hits


def measured(store):
    return json.loads((store._rows.root.parent / index_reach.FILE).read_text())


def recall(store, k):
    queries = draw(200, 2)
    found, exact = store.search(queries, k), store.search(queries, k, exact=True)
    return np.mean(
        [len({h.id for h in a} & {h.id for h in b}) / k for a, b in zip(found, exact, strict=True)]
    )


def test_what_was_measured_is_used_and_finds_as_much(store, monkeypatch):
    facts = measured(store)
    reach = Reach(facts["probes"], facts["refine_factor"])
    assert 1 < reach.n_probes < 30
    assert facts["recall"] >= 0.9975
    # Queries that are not stored, in standard errors of the rows that it was measured on.
    assert recall(store, 10) >= 0.985
    seen, _ = reaches(store, monkeypatch, draw(1, 3), 10)
    assert seen == [reach]
    seen, _ = reaches(store, monkeypatch, draw(1, 3), 10, where=parse("id > '02990'", {"id": pa.string()}))
    assert seen == [Reach(0, reach.refine_factor)]
    for options, wanted in (({"k": 21}, FARTHEST), ({"k": 10, "exact": True}, None)):
        assert reaches(store, monkeypatch, draw(1, 3), **options)[0] == [wanted]


def test_another_index_is_not_searched_by_what_was_measured(store, monkeypatch):
    path = store._rows.root.parent / index_reach.FILE
    before = path.read_text()
    path.write_text(before.replace(measured(store)["index"], "another"))
    again = LanceStore.open(store._rows.root.parent)
    assert reaches(again, monkeypatch, draw(1, 3), 10)[0] == [FARTHEST]
    path.write_text("{")
    assert reaches(again, monkeypatch, draw(1, 3), 10)[0] == [FARTHEST]
    # Compaction measures what was not; other processes use it at once.
    store.optimize()
    assert path.read_text() == before
    assert reaches(again, monkeypatch, draw(1, 3), 10)[0] != [FARTHEST]


def test_where_the_nearest_partitions_are_emptied_no_match_is_lost(store, monkeypatch):
    [query] = draw(1, 3)
    with store._rows.use_at("searching") as (table, _):
        by_one = nearest.nearest(table, query[None], 500, ["id"], reach=Reach(1, 2))
    assert 20 < len(by_one) < 500
    store.delete(by_one["id"].to_pylist())
    with monkeypatch.context() as patch:
        patch.setattr(index_reach, "read", lambda *args: Reach(1, 2))
        seen, [hits] = reaches(LanceStore.open(store._rows.root.parent), patch, query[None], 20)
    assert len(hits) == 20
    assert seen == [Reach(1, 2), FARTHEST]
    # When a fifth of the rows are gone, what was measured does not count.
    others = store.search(query[None], N // 5 + 10 - len(by_one), exact=True)[0]
    store.delete([hit.id for hit in others])
    assert reaches(store, monkeypatch, draw(1, 4), 10)[0] == [FARTHEST]
