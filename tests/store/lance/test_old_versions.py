"""Files of old versions go, and never one that a version which stays consists of."""

import os
import shutil
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearsight.store.lance.engine import import_lancedb
from nearsight.store.lance.manifest_file import UnknownLayoutError, read_manifest_file
from nearsight.store.lance.old_versions import delete_old_versions, newest_version
from nearsight.store.lance.readers_lock import ReadersLock
from nearsight.store.lance.table import LanceTables

SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("number", pa.int64())])


@pytest.fixture
def table(tmp_path):
    return made(tmp_path)


def made(directory):
    connection = import_lancedb().connect(directory, read_consistency_interval=None)
    return LanceTables(directory, connection, ReadersLock(directory / ".lock")).make("rows", SCHEMA)


def add(table, start, n):
    table.add(
        pa.table({"id": [f"{i:04}" for i in range(start, start + n)], "number": range(start, start + n)})
    )


def contents(table):
    batches = list(table.stream(["id", "number"], None, 1000))
    return pa.Table.from_batches(batches, SCHEMA).sort_by("id").to_pydict() if batches else {}


def files(table):
    return {f"{f.relative_to(table.root)}" for f in table.root.rglob("*") if f.is_file()}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 300)),
        st.tuples(st.just("delete"), st.integers(0, 40)),
        st.tuples(st.just("update"), st.integers(0, 40)),
        st.tuples(st.just("column"), st.just(0)),
        st.tuples(st.just("index"), st.just(0)),
        st.tuples(st.just("tidy"), st.just(0)),
    ),
    min_size=1,
    max_size=10,
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_any_life_of_a_table_is_read_as_the_engine_reads_it(tmp_path_factory, steps):
    from lancedb.index import BTree

    directory = tmp_path_factory.mktemp("life")
    table, n = made(directory), 0
    for number, (what, size) in enumerate(steps):
        if what == "add":
            add(table, n, size)
            n += size
        elif what == "delete":
            table.delete([f"{i:04}" for i in range(size, n, 7)])
        elif what == "update":
            rows = pa.table({"id": [f"{i:04}" for i in range(size, n, 5)], "number": range(-n + size, 0, 5)})
            table.merge(lambda rows=rows: rows, "updating")
        elif what == "column":
            with table.use("adding") as lance_table:
                lance_table.add_columns([pa.field(f"column{number}", pa.int64())])
        elif what == "index" and n:
            table.build_index("id", BTree())
        elif what == "tidy":
            before = contents(table)
            table.delete_old_versions(0)
            assert contents(made(directory)) == contents(table) == before
        facts = newest_version(table.root)
        addresses = table.addresses()
        assert (facts.version, facts.n_rows) == (table.version, table.n_rows())
        sizes = {f.number: f.n_rows - f.n_deleted for f in facts.fragments}
        fragments, counts = np.unique(addresses >> np.uint64(32), return_counts=True)
        assert sizes == dict(zip(fragments.tolist(), counts.tolist(), strict=True))
    before = contents(table)
    table.delete_old_versions(0)
    facts = newest_version(table.root)
    left = {name for name in files(table) if name.startswith(("data/", "_deletions/", "_transactions/"))}
    assert left == {name for name in facts.files if (table.root / name).exists()}
    assert {name for name in facts.files if name.startswith(("data/", "_deletions/"))} <= left
    assert {entry.name for entry in (table.root / "_indices").glob("*")} == facts.indices
    assert len(list((table.root / "_versions").glob("*.manifest"))) == 1
    assert contents(made(directory)) == contents(table) == before
    add(table, 9000, 3)
    assert table.n_rows() == facts.n_rows + 3


def test_leftovers_of_a_crash_go_only_if_nobody_else_is_there(table):
    add(table, 0, 10)
    leftover = table.root / "data" / "0000.lance"
    leftover.write_bytes(b"x")
    other = made(table.root.parent)
    with other.use("reading"):  # somebody else reads
        table.delete_old_versions(0)
    assert leftover.exists()
    table.delete_old_versions(0)
    assert not leftover.exists()
    assert table.n_rows() == 10


def test_recent_versions_stay_while_others_read(table):
    for start in range(0, 40, 10):
        add(table, start, 10)
        table.delete([f"{start:04}"])
    versions = sorted((table.root / "_versions").glob("*.manifest"))
    old = time.time() - 7200
    for path in versions[-4:]:  # the oldest, since names count down
        os.utime(path, (old, old))
    before = files(table)
    kept = [read_manifest_file(path) for path in versions[:-4]]
    with made(table.root.parent).use("reading"):
        table.delete_old_versions(3600)
    assert sorted((table.root / "_versions").glob("*.manifest")) == versions[:-4]
    assert set().union(*(facts.files for facts in kept)) & before <= files(table)
    assert files(table) < before
    assert table.n_rows() == 36


@pytest.mark.parametrize("damage", ["cut", "garbage", "field", "feature", "name", "lost", "tag"])
def test_what_is_not_known_for_certain_is_left_alone(table, damage):
    add(table, 0, 10)
    add(table, 10, 10)
    n_rows, version = table.n_rows(), table.version
    newest = min((table.root / "_versions").glob("*.manifest"))
    data = newest.read_bytes()
    if damage == "cut":
        newest.write_bytes(data[: len(data) // 2] + data[-16:])
    elif damage == "garbage":
        newest.write_bytes(b"garbage")
    elif damage in ("field", "feature"):
        position = int.from_bytes(data[-16:-8], "little")
        length = int.from_bytes(data[position : position + 4], "little")
        # Field 99, or feature 64 for readers.
        more = bytes([0x98, 0x06, 1]) if damage == "field" else bytes([9 << 3, 64])
        body = data[position + 4 : position + 4 + length] + more
        newest.write_bytes(data[:position] + len(body).to_bytes(4, "little") + body + data[-16:])
    elif damage == "name":
        shutil.copy(newest, newest.with_name("latest.manifest"))
    elif damage == "lost":
        shutil.move(next((table.root / "data").iterdir()), table.root / "elsewhere")
    elif damage == "tag":
        (table.root / "_refs").mkdir()
    before = files(table)
    with pytest.raises(UnknownLayoutError):
        delete_old_versions(table.root, n_rows=n_rows, version=version, is_alone=True, keep_s=0)
    assert files(table) == before


def test_an_engine_that_sees_something_else_is_believed(table):
    add(table, 0, 10)
    for n_rows, version in ((11, table.version), (10, table.version + 1), (10, table.version - 1)):
        with pytest.raises(UnknownLayoutError, match="the engine"):
            delete_old_versions(table.root, n_rows=n_rows, version=version, is_alone=True, keep_s=0)
    delete_old_versions(table.root, n_rows=9, version=table.version - 1, is_alone=False, keep_s=1e9)
