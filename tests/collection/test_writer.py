"""Rows that an engine cannot hold are failures, and stop no other."""

import shutil

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.collection import copy_collection
from nearsight.errors import RowsRefusedError
from nearsight.store.base import require_accepted
from nearsight.store.lance.store import LanceStore

from fake import FakeBackend

_MOST_FILES = 2


@pytest.fixture
def picky(monkeypatch):
    """An engine that holds two files of an image, and no metadata that begins with "bad"."""

    def refusing(write):
        def call(self, rows):
            names = [name for name in rows.column_names if name not in ("vector", "thumbnail")]
            reasons = {
                row["id"]: "too much"
                for row in rows.select(names).to_pylist()
                if len(row.get("paths") or ()) > _MOST_FILES or str(row.get("meta_note")).startswith("bad")
            }
            require_accepted("Picky", reasons)
            return write(self, rows)

        return call

    for name in ("append", "update"):
        monkeypatch.setattr(LanceStore, name, refusing(getattr(LanceStore, name)))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (32, 32), (number * 60, 90, 30)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def collection(tmp_path, picky):
    return Collection.create(tmp_path / "collection", model=FakeBackend())


def names(collection):
    return sorted(name.rpartition("/")[2] for item in collection.items() for name in item.paths)


def bad_notes(*bad):
    return lambda path: {"note": "bad" if path.endswith(bad) else "good"}


def test_a_new_image_that_is_refused_is_a_failure(collection, photos):
    shutil.copy(photos / "1.png", photos / "1 again.png")
    report = collection.add(photos, metadata=bad_notes("1.png", "1 again.png"))
    assert (report.added, report.embedded, report.same_content) == (3, 3, 0)
    assert {(failure.path, failure.reason) for failure in report.failed} == {
        (str(photos / name), "too much") for name in ("1.png", "1 again.png")
    }
    assert names(collection) == ["0.png", "2.png", "3.png"]
    # It is tried again, as every failure is.
    assert collection.add(photos).added == 2
    assert len(collection) == 4


def test_later_files_of_an_image_that_was_refused_are_failures_too(collection, photos, monkeypatch):
    monkeypatch.setattr("nearsight.collection.writer._ROWS_PER_WRITE", 1)
    shutil.copy(photos / "0.png", photos / "4.png")
    report = collection.add(photos, metadata=bad_notes("0.png"))
    assert [failure.reason for failure in report.failed] == ["too much"] * 2
    assert (report.added, names(collection)) == (3, ["1.png", "2.png", "3.png"])


def test_a_changed_image_that_is_refused_keeps_its_old_row(collection, photos):
    collection.add(photos)
    Image.new("RGB", (32, 32), (1, 2, 3)).save(photos / "2.png")
    report = collection.add(photos, metadata=bad_notes("2.png"))
    assert (report.updated, [failure.path for failure in report.failed]) == (3, [str(photos / "2.png")])
    assert names(collection) == ["0.png", "1.png", "2.png", "3.png"]


def test_a_file_that_a_row_cannot_take_is_a_failure_and_stays_where_it_was(collection, photos):
    for number in (4, 5):
        shutil.copy(photos / "0.png", photos / f"{number}.png")
    report = collection.add(photos)
    # All three files are new at once, so the row has none of them.
    assert (report.added, len(report.failed)) == (3, 3)
    (photos / "5.png").unlink()
    assert collection.add(photos).added == 2
    # A further file, and one that becomes a copy: its old row keeps it.
    shutil.copy(photos / "0.png", photos / "6.png")
    shutil.copy(photos / "0.png", photos / "3.png")
    Image.new("RGB", (32, 32), (9, 9, 9)).save(photos / "7.png")
    report = collection.add(photos)
    assert {failure.path for failure in report.failed} == {str(photos / "6.png"), str(photos / "3.png")}
    assert (report.added, report.updated) == (1, 0)
    assert names(collection) == ["0.png", "1.png", "2.png", "3.png", "4.png", "7.png"]


def test_metadata_that_is_refused_is_a_failure_of_that_image(collection, photos):
    collection.add(photos)
    report = collection.add(photos, metadata=bad_notes("1.png"))
    assert (report.updated, report.unchanged) == (3, 0)
    [failure] = report.failed
    assert (failure.path, failure.reason) == (
        str(photos / "1.png"),
        "its metadata was not written: too much",
    )
    notes = {item.path.rpartition("/")[2]: item.metadata for item in collection.items()}
    assert notes == {"1.png": {}, **{f"{number}.png": {"note": "good"} for number in (0, 2, 3)}}


def test_metadata_of_one_call_is_refused_whole(collection, photos):
    collection.add(photos)
    ids = [item.id for item in collection.items()]
    with pytest.raises(RowsRefusedError, match=f"cannot hold 1 image: {ids[2]}: too much"):
        collection.update_metadata(ids, [{"note": "bad" if id == ids[2] else "good"} for id in ids])
    assert all(not item.metadata for item in collection.items())


def test_vectors_that_can_be_held_are_added(collection):
    X = np.eye(3, 64, dtype=np.float32)
    ids = [f"{number:032x}" for number in range(3)]
    metadata = [{"note": "good"}, {"note": "bad"}, {}]
    with pytest.raises(RowsRefusedError, match=r"All others are saved, 2 new ones") as caught:
        collection.add_vectors(X, ids=ids, fingerprint=collection.fingerprint, metadata=metadata)
    assert caught.value.reasons == {ids[1]: "too much"}
    assert sorted(item.id for item in collection.items()) == [ids[0], ids[2]]


def test_a_copy_names_all_images_that_its_place_cannot_hold(tmp_path, photos, monkeypatch, request):
    source = Collection.create(tmp_path / "source", model=FakeBackend())
    source.add(photos, metadata=bad_notes("1.png", "3.png"))
    request.getfixturevalue("picky")
    monkeypatch.setattr("nearsight.collection.collection_copy._ROWS_PER_WRITE", 1)
    with pytest.raises(RowsRefusedError, match="cannot hold 2 images.*All others are copied: mend these in"):
        copy_collection(tmp_path / "source", tmp_path / "copy")
    bad = [item.id for item in source.items() if item.metadata["note"] == "bad"]
    source.update_metadata(bad, {"note": "good"})
    assert copy_collection(tmp_path / "source", tmp_path / "copy", verify=True).n_images == 4
