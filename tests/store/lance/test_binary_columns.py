"""Thumbnails in a table of their own: none is lost, and collections of earlier versions go on working."""

import os
import shutil
from collections import namedtuple
from copy import deepcopy

import numpy as np
import pyarrow as pa
import pytest

from nearsight import process_memory
from nearsight.errors import StorageError
from nearsight.store.lance import maintenance, old_versions
from nearsight.store.lance.old_versions import newest_version
from nearsight.store.lance.store import LanceStore
from nearsight.store.lance.table import SharedTable
from nearsight.testing.stores import SCHEMA, fetch, ids_of, rows, vectors_of


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(directory):
    return LanceStore.create(directory, SCHEMA)


@pytest.fixture
def low_levels(monkeypatch):
    for name, value in (
        ("_SMALL_FRAGMENT_ROWS", 4),
        ("LARGE_FRAGMENT_ROWS", 8),
        ("_MIDDLE_FRAGMENT_ROWS", 16),
        ("FULL_FRAGMENT_ROWS", 64),
    ):
        monkeypatch.setattr(maintenance, name, value)


def thumbnails(store):
    return {row["id"]: row["thumbnail"] for row in fetch(store, ["thumbnail"])}


def in_the_rows(store):
    """The thumbnails in the table of rows, where an earlier version kept them."""
    batches = store._rows.stream(["id", "thumbnail"], "thumbnail IS NOT NULL", 1000)
    return {row["id"]: row["thumbnail"] for batch in batches for row in batch.to_pylist()}


def beside_the_rows(store):
    table = store._binary.table
    return (
        [id for batch in table.stream(["id"], None, 1000) for id in batch["id"].to_pylist()] if table else []
    )


def sizes(table):
    return [f.n_rows - f.n_deleted for f in newest_version(table.root).fragments]


def earlier(directory, names, values):
    """Make a store of an earlier version: its thumbnails are in the table of rows."""
    store = LanceStore.create(directory, SCHEMA)
    table = rows(names, thumbnail=values)
    columns = [
        table[field.name] if field.name in table.column_names else pa.nulls(len(names), field.type)
        for field in SCHEMA
    ]
    for start in range(0, len(names), 10):
        store._rows.add(pa.table(columns, schema=SCHEMA).slice(start, 10))
    return store


@pytest.fixture
def snapshots(monkeypatch, tmp_path):
    """Return a list that grows by a copy of a store after each change of the disk, as kill -9 leaves it.

    Set `watched` to a directory and `about` to what should be there.
    """

    class Snapshots(list):
        watched = about = None

        def take(self):
            if self.watched is not None:
                copy = tmp_path / f"snapshot{len(self)}"
                shutil.copytree(self.watched, copy)
                self.append((copy, deepcopy(self.about)))

    taken = Snapshots()
    places = [(SharedTable, n) for n in ("add", "merge", "delete", "delete_at", "build_index")]
    for owner, name in [*places, (old_versions, "_delete")]:
        original = getattr(owner, name)

        def watched(*arguments, _original=original, _name=name, **options):
            result = _original(*arguments, **options)
            # Files of old versions go by dozens; each fifth will do.
            if _name != "_delete" or len(str(arguments[0])) % 5 == 0:
                taken.take()
            return result

        monkeypatch.setattr(owner, name, watched)
    return taken


@pytest.mark.slow
def test_killed_at_any_step_no_row_lacks_its_thumbnail(low_levels, store, directory, snapshots):
    expected, written, removed = {}, {}, []
    snapshots.watched, snapshots.about = directory, (expected, written, removed)
    for start in (0, 10, 20):
        names = [f"{number:03}" for number in range(start, start + 10)]
        written.update({name: f"old {name}".encode() for name in names})
        store.append(rows(names, thumbnail=[written[name] for name in names]))
        expected |= written
    # Writes of few rows: the fourth one is merged with the others, whose thumbnails move.
    for start in (30, 33, 36, 39, 42):
        names = [f"{number:03}" for number in range(start, start + 3)]
        written.update({name: f"old {name}".encode() for name in names})
        store.append(rows(names, thumbnail=[written[name] for name in names]))
        expected |= written
    assert len(in_the_rows(store)) == 3
    names = [f"{number:03}" for number in [*range(5, 25), *range(40, 44)]]
    written.update({name: f"new {name}".encode() for name in names})
    store.update(pa.table({"id": names, "thumbnail": [written[name] for name in names]}))
    expected |= written
    removed += [f"{number:03}" for number in range(12)]
    store.delete(removed)
    for name in removed:
        del expected[name], written[name]
    store.optimize()
    assert len(snapshots) > 20
    snapshots.watched = None
    for number, (copy, (expected, written, removed)) in enumerate(snapshots):
        store = LanceStore.open(copy)
        found = thumbnails(store)
        for name, value in expected.items():
            if name in removed:
                assert name not in found or found[name] in (value, None)
            else:
                assert found[name] in (value, written[name])
        assert all(found[name] == written[name] for name in found.keys() - expected.keys())
        if number % 4 == 0:
            store.optimize()
            assert thumbnails(store) == found
            assert sorted(beside_the_rows(store)) == sorted(found), "orphans or repeated rows"


def test_a_write_of_few_rows_moves_its_thumbnails_later(low_levels, store):
    expected = {}
    for number in range(7):
        name, value = f"{number:03}", f"{number}".encode() if number else None
        store.append(rows([name], thumbnail=[value]))
        expected[name] = value
        store._upkeep.maintain()
    assert in_the_rows(store) == {name: value for name, value in expected.items() if value}
    assert store._binary.table is None
    store.update(pa.table({"id": ["001", "000"], "thumbnail": [b"updated", b"first"]}))
    store.update(pa.table({"id": ["002"], "thumbnail": pa.array([None], pa.binary())}))
    store.delete(["003"])
    del expected["003"]
    expected |= {"000": b"first", "001": b"updated", "002": None}
    assert thumbnails(store) == expected
    for number in range(7, 20):
        store.append(rows([f"{number:03}"], thumbnail=[b"x"]))
        expected[f"{number:03}"] = b"x"
        assert thumbnails(store) == expected
    assert len(in_the_rows(store)) < 8
    assert len(beside_the_rows(store)) == len(set(beside_the_rows(store))) > 11
    store.optimize()
    assert in_the_rows(store) == {}
    assert thumbnails(store) == expected
    # A large value is written once only, so it never lies in the rows.
    store.append(rows(["large"], thumbnail=[bytes(2**20 + 1)]))
    assert in_the_rows(store) == {}


def test_values_without_a_row_are_removed_by_optimize_only(store):
    store.append(rows(["a", "b"], thumbnail=[b"1", b"2"]))
    store._binary.append(rows(["c"], thumbnail=[b"orphan"]))
    store._binary.append(rows(["a"], thumbnail=[b"later"]))
    assert thumbnails(store) == {"a": b"later", "b": b"2"}
    store.maintain()
    assert sorted(beside_the_rows(store)) == ["a", "c"]
    store.optimize()
    assert sorted(beside_the_rows(store)) == ["a", "b"]
    assert thumbnails(store) == {"a": b"later", "b": b"2"}
    store.append(rows(["c"]))
    assert thumbnails(store)["c"] is None


# --- stores of an earlier version -------------------------------------------------------------


def values_of(n, size=300):
    names = [f"{number:03}" for number in range(n)]
    return names, [None if number % 9 == 0 else os.urandom(size) for number in range(n)]


def test_a_store_of_an_earlier_version_is_read_and_written(directory):
    names, values = values_of(50)
    store = earlier(directory, names, values)
    expected = dict(zip(names, values, strict=True))
    assert beside_the_rows(store) == []
    assert thumbnails(store) == expected
    store.append(rows(["new"], thumbnail=[b"new"]))
    store.update(pa.table({"id": ["001", "009"], "thumbnail": [b"1", b"9"]}))
    store.update(pa.table({"id": ["002"], "thumbnail": pa.array([None], pa.binary())}))
    store.update(pa.table({"id": ["003"], "width": pa.array([3], pa.int32())}))
    store.delete(["004"])
    expected |= {"new": b"new", "001": b"1", "009": b"9", "002": None}
    del expected["004"]
    assert thumbnails(store) == expected
    assert fetch(store, ["thumbnail"], ids=["001", "005"]) == [
        {"id": "001", "thumbnail": b"1"},
        {"id": "005", "thumbnail": expected["005"]},
    ]
    hits = store.search(vectors_of(5), 60, columns=["thumbnail"])[0]
    assert {hit.id: hit.row["thumbnail"] for hit in hits} == expected
    store.optimize()
    assert in_the_rows(store) == {}
    assert thumbnails(store) == expected
    assert np.allclose([hit.similarity for hit in store.search(vectors_of(7), 1)[0]], 1, atol=1e-5)


def test_optimizing_moves_thumbnails_once_and_frees_their_room(directory, low_levels):
    names, values = values_of(150, size=20_000)
    store = earlier(directory, names, values)
    store.optimize()
    total = sum(len(value) for value in values if value)
    disk = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    assert total < disk < 1.2 * total
    files = set(directory.rglob("data/*"))
    store.optimize()
    assert set(directory.rglob("data/*")) == files
    assert ids_of(LanceStore.open(directory)) == names


@pytest.mark.slow
def test_moving_goes_on_where_it_was_killed(directory, low_levels, snapshots):
    names, values = values_of(100)
    store = earlier(directory, names, values)
    snapshots.watched = directory
    store.optimize()
    snapshots.watched, n_resumed = None, 0
    for copy, _ in snapshots:
        store = LanceStore.open(copy)
        assert thumbnails(store) == dict(zip(names, values, strict=True))
        n_left = len(in_the_rows(store))
        n_resumed += 0 < n_left < 80
        if n_left:
            store.optimize()
            assert thumbnails(store) == dict(zip(names, values, strict=True))
            assert in_the_rows(store) == {}
            assert sorted(beside_the_rows(store)) == sorted(set(beside_the_rows(store)))
    assert n_resumed


# --- compaction -------------------------------------------------------------------------------


def fill(store, n, batch=10):
    for start in range(0, n, batch):
        names = [f"{number:04}" for number in range(start, min(n, start + batch))]
        store.append(rows(names, thumbnail=[f"<{name}>".encode() * 50 for name in names]))


def test_compaction_makes_full_fragments_and_leaves_them_alone(low_levels, store, directory):
    fill(store, 150)
    store.optimize()
    assert sizes(store._rows) == sizes(store._binary.table) == [64, 64, 22]
    assert [row["id"] for batch in store.scan(["id"]) for row in batch.to_pylist()] == [
        f"{number:04}" for number in range(150)
    ]
    files = set(directory.rglob("data/*"))
    store.optimize()
    assert set(directory.rglob("data/*")) == files
    store.append(rows([f"x{number:02}" for number in range(12)], thumbnail=[b"x"] * 12))
    store.optimize()
    assert files <= set(directory.rglob("data/*"))
    store.append(rows([f"y{number:02}" for number in range(40)], thumbnail=[b"y"] * 40))
    store.optimize()
    assert sizes(store._rows) == sizes(store._binary.table) == [64, 64, 64, 10]
    assert len(files & set(directory.rglob("data/*"))) == 4, "full fragments moved"
    assert len(thumbnails(store)) == 202


def test_deleted_rows_leave_the_disk(low_levels, store, directory):
    fill(store, 128)
    store.optimize()
    store.delete([f"{number:04}" for number in range(10)])
    store.optimize()
    assert sizes(store._binary.table) == [54, 64]
    store.delete([f"{number:04}" for number in range(10, 20)])
    store.optimize()
    assert sizes(store._rows) == sizes(store._binary.table) == [64, 44]
    assert b"<0010>" * 50 not in b"".join(file.read_bytes() for file in directory.rglob("data/*"))
    assert len(thumbnails(store)) == 108


Usage = namedtuple("Usage", "total used free")


def test_compaction_refuses_what_has_no_room(low_levels, store, directory, monkeypatch):
    fill(store, 150)
    before = thumbnails(store)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 1000))
        with pytest.raises(
            StorageError, match=r"needs 0\.0 MB on the disk, and 0\.0 MB are free\. Free some"
        ):
            store.optimize()
    with monkeypatch.context() as patched:
        patched.setattr(process_memory, "free_bytes", lambda: 1000)
        with pytest.raises(StorageError, match=r"of memory, and 0\.0 MB are free\. Close other"):
            store.optimize()
        store.maintain()
    assert thumbnails(store) == before
    store.optimize()
    assert sizes(store._rows) == [64, 64, 22]
    assert thumbnails(store) == before


def test_moving_refuses_what_has_no_room(directory, monkeypatch):
    names, values = values_of(50)
    store = earlier(directory, names, values)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 1000))
    with pytest.raises(StorageError, match="on the disk"):
        store.optimize()
    assert len(in_the_rows(store)) == sum(value is not None for value in values)
    assert thumbnails(store) == dict(zip(names, values, strict=True))


@pytest.mark.slow
def test_compaction_while_another_process_writes(low_levels, store, directory):
    fill(store, 100)
    other = LanceStore.open(directory)
    steps = iter(range(10**6))
    for compact in store._upkeep._compactions():
        for _ in compact.run(store._writing):
            number = next(steps)
            other.append(rows([f"new{number}"], thumbnail=[b"new"]))
            other.update(pa.table({"id": ["0050"], "thumbnail": [f"{number}".encode()]}))
            other.delete([f"{number:04}"])
    n = next(steps)
    found = thumbnails(store)
    assert found["0050"] == f"{n - 1}".encode()
    assert len(found) == 100
    assert all(found[f"new{number}"] == b"new" for number in range(n))
    store.optimize()
    assert thumbnails(store) == found
