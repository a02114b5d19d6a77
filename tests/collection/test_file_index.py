"""What a run remembers of files and contents."""

import pyarrow as pa
import pytest

from nearsight.collection import file_index
from nearsight.collection.file_index import FileEntry, FileIndex


@pytest.fixture(params=[1, 7, 10_000])
def merge_at_least(request, monkeypatch):
    monkeypatch.setattr(file_index, "_MERGE_AT_LEAST", request.param)


def known(n):
    return pa.record_batch(
        {
            "id": [f"{i:032x}" for i in range(n)],
            "keys": [[f"/a/{i}", f"/b/{i}"] for i in range(n)],
            "stamps": [[i, i + 1] for i in range(n)],
            "size_bytes": [10 * i for i in range(n)],
            "orientation": pa.array([1 if i % 2 else None for i in range(n)], pa.int32()),
        }
    )


@pytest.mark.usefixtures("merge_at_least")
def test_new_files_are_met_once():
    index = FileIndex([])
    assert [index.visit(f"/new/{i}") for i in range(100)] == [[]] * 100
    assert [index.visit(f"/new/{i}") for i in range(100)] == [None] * 100


def test_known_files_tell_what_they_were_once():
    index = FileIndex([known(5)])
    assert index.any_unvisited()
    assert index.visit("/b/3") == [FileEntry(f"{3:032x}", 30, 4)]
    assert index.visit("/b/3") is None
    assert index.is_unvisited("/a/3")
    assert not index.is_unvisited("/b/3")


@pytest.mark.usefixtures("merge_at_least")
def test_ids_of_the_store_and_of_the_run_are_known():
    index = FileIndex([known(50)])
    for start in range(50, 500, 30):
        index.add_ids(f"{i:032x}" for i in range(start, start + 30))
        assert all(index.has_id(f"{i:032x}") for i in range(start + 30))
        assert not index.has_id(f"{start + 30:032x}")


def test_rows_of_an_earlier_version_are_known():
    index = FileIndex([known(9)])
    assert [index.is_outdated(f"{i:032x}") for i in range(10)] == [True, False] * 4 + [True, False]
