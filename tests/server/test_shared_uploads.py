"""Uploads stay as long as a collection shows them."""

import shutil
from pathlib import Path

import pytest

from nearsight import Collection
from nearsight.server.collection_folders import CollectionFolders
from nearsight.server.shared_uploads import SharedUploads
from nearsight.services.collections import copied

from fake import FakeBackend


@pytest.fixture
def uploads(tmp_path):
    folder = tmp_path / "uploads" / "first@1"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def shared(tmp_path):
    return SharedUploads(tmp_path / "uploads", tmp_path / "collections")


def mark(marks):
    for file, content in marks.items():
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(content)


def test_a_copy_that_never_came_to_be_keeps_nothing(tmp_path, shared, uploads):
    mark(shared.marks(uploads, "first", "second", str(tmp_path / "collections" / "second")))
    assert shared.is_shared(uploads)
    shared.forget_gone(uploads)
    assert not shared.is_shared(uploads)
    shared.release("first", uploads)
    assert not uploads.exists()


def test_a_copy_that_may_only_be_away_keeps_its_files_until_it_is_deleted(shared, uploads):
    mark(shared.marks(uploads, "first", "mounted", "postgres://host/images"))
    shared.forget_gone(uploads)
    shared.release("first", uploads)
    assert uploads.exists()
    shared.release("mounted")
    assert not uploads.exists()


def test_the_copy_of_a_copy_keeps_the_files_of_the_first(tmp_path, shared, uploads):
    second = tmp_path / "uploads" / "second@1"
    for name in ("second", "third"):
        (tmp_path / "collections" / name).mkdir(parents=True)
    mark(shared.marks(uploads, "first", "second", str(tmp_path / "collections" / "second")))
    mark(shared.marks(second, "second", "third", str(tmp_path / "collections" / "third")))
    shared.release("first", uploads)
    shared.release("second", second)
    assert uploads.exists()
    assert second.exists()
    shared.release("third")
    assert not uploads.exists()
    assert not second.exists()


def test_a_copy_that_the_service_has_not_made_keeps_its_files_until_it_is_deleted(tmp_path, shared):
    folders, names = CollectionFolders(tmp_path / "uploads"), ("first", "second", "third")
    places = {name: tmp_path / "collections" / name for name in names}
    collection = Collection.create(places["first"], model=FakeBackend())
    uploads = {name: folders.of(name, collection) for name in names}
    for folder in uploads.values():
        folder.mkdir(parents=True)
    assert not shared.is_shared(uploads["first"])
    copied(str(places["first"]), str(places["second"]), shown="second")
    assert shared.is_shared(uploads["first"])
    # A copy that a job has made shows what its original does, and the original nothing of it.
    mark(shared.marks(uploads["first"], "first", "third", str(places["third"])))
    copied(str(places["first"]), str(places["third"]), shown="third")
    shutil.rmtree(places["second"])
    shared.release("second", uploads["second"])
    assert uploads["second"].exists()
    assert not shared.is_shared(uploads["third"])
    # Another one gets the name; what is sent to it stays when the original goes.
    copied(str(places["third"]), str(places["second"]), shown="second")
    for name, left in (("first", set(names)), ("third", set(names)), ("second", set())):
        shutil.rmtree(places[name])
        shared.release(name, uploads[name])
        assert {each for each in names if uploads[each].exists()} == left
