"""Labels that people give: on disk when they are acknowledged, and undone in any order."""

import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preloaded import Piped

from nearsight import Collection
from nearsight.errors import InvalidParameterError, MetadataError, StorageError
from nearsight.services.label_sets import LabelChange, LabelSet, label_keys

from fake import FakeBackend

IDS = [f"{n:032x}" for n in range(4)]


def with_rows(path, n=4):
    collection = Collection.create(path, model=FakeBackend())
    X = np.eye(n, collection.spec.dim, dtype=np.float32)
    collection.add_vectors(X, ids=[f"{k:032x}" for k in range(n)], fingerprint=collection.fingerprint)
    return collection


@pytest.fixture
def label_set(tmp_path):
    return LabelSet(with_rows(tmp_path / "c"))


def test_classes_keep_their_order_and_spelling(label_set):
    assert label_set.set_classes([" hat", "dress", "hat"]) == ["hat", "dress"]
    label_set.change([LabelChange(IDS[:3], "dress"), LabelChange(IDS[3:], "apron")])
    assert label_set.classes() == {"hat": 0, "dress": 3, "apron": 1}
    assert label_keys(label_set.collection) == ["label"]
    for wrong in ("Dress", " ", "x" * 101, "a\nb"):
        with pytest.raises(InvalidParameterError):
            label_set.change([LabelChange(IDS[:1], wrong)])
    assert label_set.classes() == {"hat": 0, "dress": 3, "apron": 1}


def test_what_cannot_hold_labels_is_refused(label_set):
    label_set.collection.update_metadata(IDS, {"price": 3})
    for key in ("price", "../x", ""):
        with pytest.raises(MetadataError):
            LabelSet(label_set.collection, key)
    file = label_set.collection.directory / "labels" / "label" / "label_set.json"
    label_set.set_classes(["hat"])
    file.write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        label_set.classes()


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sets(st.integers(0, 3), min_size=1), st.sampled_from(["a", "b", None])), max_size=5
    )
)
def test_undoing_everything_leads_back(tmp_path_factory, steps):
    label_set = LabelSet(with_rows(tmp_path_factory.mktemp("x") / "c"))
    label_set.change([LabelChange(IDS[:2], "a")])
    states = [label_set.labels()]
    for rows, label in steps:
        label_set.change([LabelChange([IDS[row] for row in rows], label)])
        if label_set.labels() != states[-1]:
            states.append(label_set.labels())
    for state in reversed(states[:-1]):
        assert label_set.undo() is not None
        assert label_set.labels() == state
    assert set(label_set.undo().before.values()) == {None}
    assert label_set.undo() is None
    assert label_set.labels() == {}


WRITER = """
import sys
from nearsight import Collection
from nearsight.services.label_sets import LabelChange, LabelSet
label_set = LabelSet(Collection.open(sys.argv[1]))
for n in range(1000):
    id = f"{n % 40:032x}"
    label_set.change([LabelChange([id], f"class {n}")])
    print(id, f"class {n}", flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_loses_no_acknowledged_label(tmp_path):
    with_rows(tmp_path / "c", 40)
    acknowledged = {}
    for n_lines in (1, 3, 8):
        process = Piped(WRITER, tmp_path / "c")
        for _ in range(n_lines):
            process.stdout.readline()
        process.kill()
        rest = process.communicate()[0]
        assert process.returncode == -signal.SIGKILL
        for n in range(n_lines + len(rest.splitlines())):
            acknowledged[f"{n:032x}"] = f"class {n}"
        labels = LabelSet(Collection.open(tmp_path / "c")).labels()
        assert acknowledged.items() <= labels.items()
        # At most the one that was being written.
        assert len(labels) <= len(acknowledged) + 1
