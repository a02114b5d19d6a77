"""The cache on disk: whatever happens to it, searches are right."""

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from preloaded import Piped

from nearsight.store.lance.store import LanceStore
from nearsight.store.memory import accelerators, build, cache, partitions, plan
from nearsight.store.memory import rows as memory_rows
from nearsight.store.memory.cache import MemoryCache
from nearsight.store.memory.store import MemoryStore
from nearsight.testing.stores import SCHEMA, rows, vectors_of

pytestmark = pytest.mark.skipif(not accelerators.has_graphs(), reason="usearch is not installed")
N = 300
N_KILLS = 5
QUERIES = vectors_of(*range(1000, 1010))


@pytest.fixture(autouse=True)
def _small_graphs(monkeypatch):
    monkeypatch.setattr(build, "MIN_GRAPH_NUMBERS", 1)
    monkeypatch.setattr(build, "measured", lambda *args: None)
    monkeypatch.setattr(memory_rows, "LEAST_RECALL", 0.0)
    monkeypatch.setattr(build, "_EXPANSIONS", (500,))
    monkeypatch.setattr(plan, "MAX_EXACT_NUMBERS", 0)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def lance(tmp_path):
    store = LanceStore.create(tmp_path / "store", SCHEMA)
    store.append(rows([f"{n:03}" for n in range(N)], vectors_of(*range(N)), width=list(range(N))))
    return store


@pytest.fixture
def saved(lance, directory):
    store = MemoryStore(lance, directory)
    assert store.load()
    [folder] = directory.glob("memory-*")
    return folder


def answers(store):
    return [[hit.id for hit in hits] for hits in store.search(QUERIES, 5, columns=["width"])]


def check_again(lance, directory):
    """A new process searches as the store does, and its cache is sound."""
    store = MemoryStore(lance, directory)
    assert store.load()
    assert store._rows().graph is not None
    assert answers(store) == answers(lance)
    assert MemoryCache(directory).open() is not None


def test_the_next_process_opens_what_was_saved(lance, directory, saved, monkeypatch):
    def fail(*args):
        raise AssertionError("the graph is built again")

    monkeypatch.setattr(build.Loader, "_load_anew", fail)
    check_again(lance, directory)
    assert saved.exists()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *[(name, "bit") for name in (*cache._ARRAYS, cache._GRAPH, cache._MANIFEST)],
        *[
            (name, how)
            for name in (cache._GRAPH, cache._MANIFEST)
            for how in ("short", "long", "empty", "gone")
        ],
        (cache._VECTORS, "short"),
        (cache._CODES, "gone"),
    ],
)
def test_a_damaged_file_is_thrown_away(lance, directory, saved, name, damage):
    file = saved / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
        file.write_bytes(
            {"bit": flipped, "short": content[:-1], "long": content + b"\0", "empty": b""}[damage]
        )
    if name == cache._MANIFEST and damage in ("bit", "short"):
        # Another digit, or one line break less, may go unnoticed there; what it says is checked anyway.
        check_again(lance, directory)
        return
    assert MemoryCache(directory).open() is None
    assert not saved.exists() or (name, damage) == (cache._MANIFEST, "gone")
    check_again(lance, directory)


def test_partitions_are_saved_checked_and_thrown_away(lance, directory, monkeypatch):
    monkeypatch.setattr(build, "measured", partitions.measured)
    # As if the rows were too many to hold: they are put in order on the disk.
    for module in (build, cache):
        monkeypatch.setattr(module, "MAX_HELD_NUMBERS", 10)
    check_again(lance, directory)
    [folder] = directory.glob("memory-*")
    assert {path.name for path in folder.iterdir()} == {*cache._ARRAYS, cache._PARTITIONS, cache._MANIFEST}
    before = MemoryCache(directory).open()[0].graph
    assert isinstance(before, partitions.Partitions)
    with monkeypatch.context() as patch:
        patch.setattr(build.Loader, "_load_anew", None)
        check_again(lance, directory)
    damaged = bytearray((folder / cache._PARTITIONS).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / cache._PARTITIONS).write_bytes(damaged)
    assert MemoryCache(directory).open() is None
    assert not folder.exists()
    check_again(lance, directory)


def test_a_cache_of_a_newer_format_is_thrown_away(lance, directory, saved):
    manifest = json.loads((saved / cache._MANIFEST).read_text())
    (saved / cache._MANIFEST).write_text(json.dumps({**manifest, "format": 99}))
    check_again(lance, directory)


def test_a_cache_of_another_store_is_no_answer(lance, directory, saved, tmp_path):
    """The store was replaced by one with the same number of versions."""
    other = LanceStore.create(tmp_path / "other", SCHEMA)
    other.append(rows([f"{n:03}" for n in range(N)], vectors_of(*range(N, 2 * N)), width=list(range(N))))
    assert other.version == lance.version
    check_again(other, directory)


def test_a_cache_of_an_older_version_is_brought_up_to_date(lance, directory, saved, monkeypatch):
    lance.delete(["007"])
    lance.append(rows(["new"], QUERIES[:1], width=[1]))
    monkeypatch.setattr(build.Loader, "_load_anew", None)
    store = MemoryStore(lance, directory)
    assert store.load()
    assert answers(store) == answers(lance)
    assert answers(store)[0][0] == "new"


def test_rows_that_no_walk_leads_to_are_added_again(lance, directory, monkeypatch):
    """Threads that add rows at the same time lose a few; here, every seventh."""
    add = accelerators.Graph.add

    def lose(graph, keys, codes, n_threads):
        kept = keys % 7 > 0 if n_threads > 1 else slice(None)
        add(graph, keys[kept], codes[kept], 1)

    monkeypatch.setattr(accelerators.Graph, "add", lose)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    check_again(lance, directory)


def test_nothing_is_written_into_files_that_are_mapped(saved):
    rows, _ = MemoryCache(saved.parent).open()
    assert not rows.base.vectors.array.flags.writeable
    assert not rows.base.codes.values.flags.writeable


def test_a_graph_that_finds_too_little_is_kept_and_not_used(lance, directory, monkeypatch):
    monkeypatch.setattr(memory_rows, "LEAST_RECALL", 1.1)
    check_again(lance, directory)
    monkeypatch.setattr(build.Loader, "_load_anew", None)
    monkeypatch.setattr(memory_rows.Rows, "_walk", None)
    check_again(lance, directory)


def test_a_directory_that_cannot_be_written(lance, directory, monkeypatch):
    directory.write_text("a file is in the way")
    store = MemoryStore(lance, directory)
    assert store.load()
    assert answers(store) == answers(lance)
    assert directory.read_text() == "a file is in the way"


def test_a_full_disk(lance, directory, monkeypatch):
    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "save", refuse)
    store = MemoryStore(lance, directory)
    assert store.load()
    assert answers(store) == answers(lance)
    assert not list(directory.glob("memory-*"))


def test_another_process_builds_it_just_now(lance, directory):
    with MemoryCache(directory).lock() as is_locked:
        assert is_locked
        store = MemoryStore(lance, directory)
        assert store.load()
        assert store._rows().graph is None
        assert not store._is_complete
    assert store.load()


def test_compacting_deletes_what_is_saved_of_removed_rows(lance, directory, saved):
    store = MemoryStore(lance, directory, enabled=False)
    store.delete(["003"])
    store.optimize()
    assert not saved.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_writer_that_is_killed_at_any_moment(lance, directory, tmp_path):
    writer = Path(__file__).with_name("cache_writer.py").read_text()
    rng = np.random.default_rng(0)
    wanted = answers(lance)
    for _ in range(N_KILLS):
        with Piped(writer, tmp_path / "store", directory) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0, 0.3))
            process.kill()
        opened = MemoryCache(directory).open()
        if opened is not None:
            found = opened[0].search(QUERIES, 5, None, ["width"], exact=False)
            assert [[hit.id for hit in hits] for hits in found] == wanted
    check_again(lance, directory)
    assert len(list(directory.glob("memory-*"))) == 1


def test_leftovers_of_a_killed_process_are_deleted(lance, directory, saved):
    leftover = directory / "memory-00000000"
    shutil.copytree(saved, leftover)
    (leftover / cache._MANIFEST).unlink()
    (saved / cache._GRAPH).unlink()
    check_again(lance, directory)
    assert not leftover.exists()
