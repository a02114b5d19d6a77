"""Changes of metadata are undone in any order, and nothing that was changed since is touched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearsight import Collection
from nearsight.errors import MetadataError, UnknownIdError
from nearsight.services.change_files import MAX_CHANGES, ChangeFiles
from nearsight.services.metadata_changes import MetadataChange, MetadataChanges

from fake import FakeBackend

IDS = [f"{n:032x}" for n in range(4)]


def with_rows(path):
    collection = Collection.create(path, model=FakeBackend())
    X = np.eye(len(IDS), collection.spec.dim, dtype=np.float32)
    collection.add_vectors(X, ids=IDS, fingerprint=collection.fingerprint)
    return collection


def metadata_of(collection):
    return {item.id: item.metadata for item in collection.items()}


def test_an_undo_keeps_what_was_changed_since_and_what_is_gone(tmp_path):
    collection = with_rows(tmp_path / "c")
    changes = MetadataChanges(collection)
    assert changes.undo() is None
    assert changes.change([], {"season": "winter"}) == MetadataChange(None, 0)
    first = changes.change(IDS, {"season": "winter", "stars": 3})
    assert first == MetadataChange(1, 4)
    assert changes.change(IDS[:2], {"season": "winter"}) == MetadataChange(None, 0)
    collection.update_metadata(IDS[1], {"season": "summer"})
    collection.update_metadata(IDS[2], {"season": "summer", "stars": None})
    collection.remove([IDS[3]])
    assert changes.undo(first.number) == MetadataChange(1, 2, 2)
    assert metadata_of(collection) == {IDS[0]: {}, IDS[1]: {"season": "summer"}, IDS[2]: {"season": "summer"}}
    assert changes.undo(first.number) is None


def test_no_change_gets_the_number_of_one_that_was_taken_back(tmp_path):
    collection = with_rows(tmp_path / "c")
    changes = MetadataChanges(collection)
    first = changes.change(IDS, {"season": "winter"})
    second = changes.change(IDS, {"season": "summer"})
    assert changes.undo(second.number) == MetadataChange(2, 4)
    third = MetadataChanges(collection).change(IDS, {"season": "autumn"})
    assert third.number == 3
    # The undo of somebody who does not know that it was taken back already.
    assert changes.undo(second.number) is None
    assert changes.undo(third.number) == MetadataChange(3, 4)
    assert changes.undo(first.number) == MetadataChange(1, 4)
    assert changes.change(IDS, {"season": "spring"}).number == 4


def test_what_is_refused_is_no_change(tmp_path):
    collection = with_rows(tmp_path / "c")
    changes = MetadataChanges(collection)
    changes.change(IDS[:1], {"stars": 3})
    for ids, metadata, error in (
        ([*IDS, "f" * 32], {"stars": 1}, UnknownIdError),
        (IDS, {"stars": "many"}, MetadataError),
        (IDS, {"../x": 1}, MetadataError),
    ):
        with pytest.raises(error):
            changes.change(ids, metadata)
    assert changes.undo() == MetadataChange(1, 1)
    assert changes.undo() is None


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sets(st.integers(0, 3), min_size=1), st.sampled_from(["é", "e\u0301", "b", None])),
        max_size=5,
    )
)
def test_undone_from_the_last_to_the_first_all_is_as_before(tmp_path_factory, steps):
    collection = with_rows(tmp_path_factory.mktemp("undo") / "c")
    changes = MetadataChanges(collection)
    states = []
    for images, value in steps:
        before = metadata_of(collection)
        if changes.change([IDS[k] for k in images], {"tag": value}).number is not None:
            states.append(before)
    while states:
        assert changes.undo().n_kept == 0
        assert metadata_of(collection) == states.pop()
    assert changes.undo() is None


def test_the_oldest_changes_are_forgotten(tmp_path):
    files = ChangeFiles(tmp_path)
    for number in range(1, MAX_CHANGES + 3):
        files.write(number, {"format": 1})
    files.drop_old()
    assert files.numbers() == list(range(MAX_CHANGES + 2, 2, -1))
    (tmp_path / "changes" / f"{5:09}.json").write_text("[")
    assert [files.read(5), files.read(6)] == [{}, {"format": 1}]
