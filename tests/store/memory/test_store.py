"""A store with memory: the conformance suite answered from memory, and how memory follows the store."""

import os
import shutil
import threading

import pyarrow as pa
import pytest

from nearsight.errors import CollectionNotFoundError, StorageError
from nearsight.store import parse
from nearsight.store.lance.store import LanceStore
from nearsight.store.memory import accelerators, build, cache, plan
from nearsight.store.memory import rows as memory_rows
from nearsight.store.memory.store import MemoryStore
from nearsight.store.memory.vectors import FileVectors
from nearsight.testing import StoreTests
from nearsight.testing.stores import FIELDS, SCHEMA, fetch, rows, vector_array, vectors_of


class Loaded(MemoryStore):
    """Loads before each search, which must then not reach the other store."""

    def search(self, *args, **options):
        assert self.load()
        before = self._store.n_searches
        hits = super().search(*args, **options)
        # Binary values are not held: the other store has them.
        asks_for_bytes = {"thumbnail"} & set(options.get("columns") or ())
        assert asks_for_bytes or self._store.n_searches == before
        return hits


class Counting(LanceStore):
    n_searches = 0

    def search(self, *args, **options):
        self.n_searches += 1
        return super().search(*args, **options)


@pytest.mark.slow
class TestMemory(StoreTests):
    def make(self, directory):
        return Loaded(Counting.create(directory, SCHEMA), directory.parent / "cache")

    def reopen(self, directory):
        return Loaded(Counting.open(directory), directory.parent / "cache")


@pytest.fixture
def _small_graphs(_small_partitions, monkeypatch):
    """Everything but an empty store has a graph, and every search uses it."""
    monkeypatch.setattr(build, "measured", lambda *args: None)


@pytest.fixture
def _small_partitions(monkeypatch):
    """Everything but an empty store has partitions, and every search uses them."""
    monkeypatch.setattr(build, "MIN_GRAPH_NUMBERS", 1)
    monkeypatch.setattr(memory_rows, "LEAST_RECALL", 0.0)
    monkeypatch.setattr(build, "_EXPANSIONS", (500,))
    monkeypatch.setattr(plan, "MAX_EXACT_NUMBERS", 0)


@pytest.mark.slow
@pytest.mark.usefixtures("_small_graphs")
class TestGraphs(TestMemory):
    # The calls are those of `TestMemory`: only how rows are found is another.
    n_examples = 5


@pytest.mark.slow
@pytest.mark.usefixtures("_small_partitions")
class TestPartitions(TestMemory):
    # The calls are those of `TestMemory`: only how rows are found is another.
    n_examples = 5


# --- following the store ------------------------------------------------------------------------


@pytest.fixture
def lance(tmp_path):
    store = Counting.create(tmp_path / "store", SCHEMA)
    store.append(rows([f"{n:02}" for n in range(50)], vectors_of(*range(50)), width=list(range(50))))
    return store


@pytest.fixture
def store(lance, tmp_path):
    return MemoryStore(lance, tmp_path / "cache")


def wait(store):
    thread = store._thread
    if thread is not None:
        thread.join()


def best(store, seed, **options):
    return store.search(vectors_of(seed), 1, **options)[0][0]


def test_the_second_search_starts_to_load(store, lance):
    best(store, 3)
    assert store._thread is None
    best(store, 3)
    wait(store)
    assert (lance.n_searches, store.is_loaded) == (2, True)
    assert best(store, 3, columns=["width"]).row == {"width": 3}
    assert lance.n_searches == 2


def test_without_usearch_and_numkong(store, lance, monkeypatch):
    monkeypatch.setattr(accelerators, "_usearch", lambda: None)
    monkeypatch.setattr(accelerators, "_numkong", lambda: None)
    monkeypatch.setattr(build, "MIN_GRAPH_NUMBERS", 1)
    assert store.load()
    assert store._rows().base.codes is None
    assert best(store, 3).id == "03"
    assert lance.n_searches == 0


def test_memory_switched_off(lance, tmp_path):
    store = MemoryStore(lance, tmp_path / "cache", enabled=False)
    for _ in range(5):
        best(store, 3)
    assert store._thread is None
    assert not store.load()
    assert lance.n_searches == 5
    assert not (tmp_path / "cache").exists()


def test_own_writes_are_followed_without_reading_again(store, lance, monkeypatch):
    assert store.load()
    monkeypatch.setattr(store, "_load", None)
    store.append(rows(["new"], vectors_of(99), path=["p"]))
    assert best(store, 99, columns=["path"]).row == {"path": "p"}
    store.update(pa.table({"id": ["new", "07"], "width": pa.array([9, 70], pa.int32())}))
    assert best(store, 99, columns=["path", "width"]).row == {"path": "p", "width": 9}
    store.update(pa.table({"id": ["08"], "vector": vector_array(vectors_of(98))}))
    assert best(store, 98, columns=["width"]).id == "08"
    store.add_columns([pa.field("stars", pa.float64())])
    store.update(pa.table({"id": ["09"], "stars": [5.0]}))
    fields = {**FIELDS, "stars": pa.float64()}
    assert best(store, 1, where=parse("stars > 4", fields)).id == "09"
    assert store.delete(["new", "10"]) == 2
    assert best(store, 99).id != "new"
    assert store.schema.names == lance.schema.names
    assert lance.n_searches == 0


def test_what_others_write_is_seen_at_once_and_read_in_the_background(store, lance, tmp_path):
    assert store.load()
    LanceStore.open(tmp_path / "store").append(rows(["new"], vectors_of(99)))
    store._next_load = 0
    assert best(store, 99).id == "new"
    assert lance.n_searches == 1
    wait(store)
    assert best(store, 99).id == "new"
    assert lance.n_searches == 1


def test_only_what_changed_is_compared_anew(store, lance, tmp_path):
    assert store.load()
    before = store._rows()
    other = LanceStore.open(tmp_path / "store")
    other.update(pa.table({"id": ["03"], "vector": vector_array(vectors_of(99))}))
    other.update(pa.table({"id": [f"{n:02}" for n in range(50)], "width": pa.array([7] * 50, pa.int32())}))
    other.delete(["04"])
    assert store.load()
    after = store._rows()
    assert after.base.vectors is before.base.vectors
    assert (len(after.recent), after.n_alive) == (1, 49)
    assert best(store, 99, columns=["width"]).row == {"width": 7}
    assert store.count(parse("width = 7", FIELDS)) == 49


def test_rows_that_changed_much_are_read_anew(store, tmp_path):
    assert store.load()
    before = store._rows()
    store.delete([f"{n:02}" for n in range(45)])
    LanceStore.open(tmp_path / "store").append(rows([f"x{n}" for n in range(60)], vectors_of(*range(60))))
    assert store.load()
    assert store._rows().base.vectors is not before.base.vectors
    assert store._rows().n_alive == 65


def test_a_store_that_was_empty_is_read_anew(tmp_path):
    lance = LanceStore.create(tmp_path / "store", SCHEMA)
    store = MemoryStore(lance, tmp_path / "cache")
    assert store.load()
    LanceStore.open(tmp_path / "store").append(rows(["a"], vectors_of(1)))
    assert store.load()
    assert best(store, 1).id == "a"


def test_a_change_while_rows_are_read(store, lance, monkeypatch):
    """Another process writes: nothing is published, and the store goes on answering."""
    read = build.Loader._read_columns

    def write_after_reading(loader):
        table = read(loader)
        LanceStore.open(lance._rows.root.parent).append(rows(["new"], vectors_of(99)))
        return table

    monkeypatch.setattr(build.Loader, "_read_columns", write_after_reading)
    assert not store.load()
    assert best(store, 99).id == "new"
    monkeypatch.setattr(build.Loader, "_read_columns", read)
    assert store.load()


def test_own_writes_while_a_graph_is_built(store, lance, monkeypatch):
    if not accelerators.has_graphs():
        pytest.skip("usearch is not installed")
    monkeypatch.setattr(build, "MIN_GRAPH_NUMBERS", 1)
    monkeypatch.setattr(memory_rows, "LEAST_RECALL", 0.0)
    monkeypatch.setattr(build, "_EXPANSIONS", (500,))
    make = build.Loader._searchable

    def write_first(loader, part, directory):
        store.append(rows(["new"], vectors_of(99)))
        assert best(store, 99).id == "new"
        store.delete(["05"])
        return make(loader, part, directory)

    monkeypatch.setattr(build.Loader, "_searchable", write_first)
    assert store.load()
    assert store._rows().graph is not None
    assert best(store, 99).id == "new"
    assert best(store, 5).id != "05"
    assert lance.n_searches == 0


def test_many_changes_are_not_held(store, monkeypatch):
    assert store.load()
    monkeypatch.setattr("nearsight.store.memory.store._MAX_CHANGED_NUMBERS", 20)
    store.append(rows([f"x{n}" for n in range(10)], vectors_of(*range(100, 110))))
    assert store._changes == []
    assert not store.is_loaded
    assert store.load()
    assert best(store, 105).id == "x5"


def test_a_store_that_fails_is_left_alone(store, lance, monkeypatch):
    def fail(*args, **options):
        raise StorageError("the disk is gone")

    monkeypatch.setattr(lance, "scan", fail)
    assert not store.load()
    assert best(store, 3).id == "03"
    assert store._next_load > 0


def test_a_store_too_large_to_hold(store, lance, monkeypatch):
    monkeypatch.setattr(build, "MAX_HELD_NUMBERS", 10)
    assert not store.load()
    assert store._is_complete
    assert best(store, 3).id == "03"
    assert lance.n_searches == 1


@pytest.mark.usefixtures("_small_graphs")
def test_vectors_of_a_large_store_are_read_from_disk(store, lance, tmp_path, monkeypatch):
    if not accelerators.has_graphs() or not hasattr(os, "preadv"):
        pytest.skip("usearch is not installed, or the system cannot read at an offset")
    for module in (build, cache):
        monkeypatch.setattr(module, "MAX_HELD_NUMBERS", 10)
    assert store.load()
    assert store._rows().graph is not None
    assert best(store, 3, columns=["width"]).row == {"width": 3}
    assert isinstance(store._rows().base.vectors, FileVectors)
    assert store.delete(["03"]) == 1
    assert best(store, 3).id != "03"
    # Another process compares what changed with the file.
    again = MemoryStore(Counting.open(tmp_path / "store"), tmp_path / "cache")
    assert again.load()
    assert isinstance(again._rows().base.vectors, FileVectors)
    assert best(again, 4, columns=["width"]).row == {"width": 4}
    assert fetch(again, ["vector"], ids=["04"]) == fetch(lance, ["vector"], ids=["04"])
    assert lance.n_searches == again._store.n_searches == 0


def test_rows_are_read_from_memory_by_their_ids(store, lance, monkeypatch):
    assert store.load()
    wanted = fetch(lance, ["width", "path", "other_paths"], ids=["03", "x", "41"])
    vectors = fetch(lance, ["vector"], ids=["03"])
    assert fetch(store, ["thumbnail"], ids=["03"]) == [{"id": "03", "thumbnail": None}]
    monkeypatch.setattr(lance, "scan", None)
    assert fetch(store, ["width", "path", "other_paths"], ids=["03", "x", "41"]) == wanted
    assert fetch(store, ["vector"], ids=["03"]) == vectors
    assert fetch(store, ["width"], ids=["03", "04"], where=parse("width > 3", FIELDS)) == [
        {"id": "04", "width": 4}
    ]


def test_a_column_that_is_not_in_memory_is_asked_of_the_store(store, lance):
    assert store.load()
    assert best(store, 3, columns=["thumbnail"]).row == {"thumbnail": None}
    assert lance.n_searches == 1


def test_searches_while_rows_change(store):
    """Readers and a writer in threads of one process: each answer is of one version."""
    assert store.load()
    stop, wrong = threading.Event(), []

    def read():
        while not stop.is_set():
            for number, hits in enumerate(store.search(vectors_of(*range(20, 30)), 1)):
                if hits[0].id != f"{number + 20:02}":
                    wrong.append(hits)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(15):
        store.append(rows([f"x{number}"], vectors_of(1000 + number)))
        assert best(store, 1000 + number).id == f"x{number}"
        store.delete([f"x{number}"])
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_closing_ends_the_thread(store, monkeypatch):
    started = threading.Event()

    def read(loader):
        started.set()
        while True:
            loader._check_stop()

    monkeypatch.setattr(build.Loader, "_read_columns", read)
    best(store, 1)
    best(store, 1)
    assert started.wait(60)
    store.close()
    assert store._thread is None
    assert best(store, 3).id == "03"


def test_a_store_that_is_removed_while_it_loads_ends_quietly(store, lance, tmp_path):
    # The table was open; then its versions went.
    lance._rows._versions = tmp_path
    with pytest.raises(StorageError, match="removed meanwhile"):
        _ = lance.revision
    assert not store.load()


def test_a_store_that_was_made_anew_is_not_answered_for_from_memory(tmp_path):
    def made(first):
        store = LanceStore.create(tmp_path / "store", SCHEMA)
        for number in range(2):
            store.append(rows([f"{first}{number}"]))
        return store

    made("old")
    store = MemoryStore(LanceStore.open(tmp_path / "store"), tmp_path / "cache")
    assert store.load()
    assert store.search(vectors_of(0), 1)[0][0].id == "old0"
    shutil.rmtree(tmp_path / "store")
    # Of the same version.
    version = made("new").version
    for read in (lambda: store.search(vectors_of(0), 1), lambda: store.version == version):
        with pytest.raises(CollectionNotFoundError, match="deleted, and made anew; open it again"):
            read()
    assert LanceStore.open(tmp_path / "store").version == version
