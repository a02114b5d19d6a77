"""New images of a collection beside those that it had."""

import json

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.errors import FilterError, InvalidParameterError, StorageError
from nearsight.services import monitor as monitoring
from nearsight.services.monitor import monitor

from fake import DIM, FakeBackend

CENTERS = np.random.default_rng(9).normal(0, 1, (10, DIM))


def add(collection, kinds, month, first):
    rng = np.random.default_rng(first)
    X = CENTERS[kinds] + rng.normal(0, 0.4, (len(kinds), DIM))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    collection.add_vectors(
        X.astype(np.float32),
        ids=[f"{first + row:032x}" for row in range(len(X))],
        fingerprint=collection.fingerprint,
        metadata=[{"month": month, "kind": f"kind {kind}"} for kind in kinds],
    )


@pytest.fixture
def collection(tmp_path):
    collection = Collection.create(tmp_path / "c", model=FakeBackend(), cache_dir=tmp_path / "cache")
    add(collection, np.random.default_rng(0).integers(0, 8, 300), 1, 1)
    return collection


def test_the_same_as_before_is_no_alarm(collection):
    add(collection, np.random.default_rng(1).integers(0, 8, 150), 2, 1001)
    result = monitor(collection, "month = 2", by=["kind"])
    assert (result.n_known, result.n_new) == (300, 150)
    assert result.advice == ["Nothing has changed that this many images can show."]
    assert result.lowest_cosine is None
    assert not result.growth


def test_foreign_images_are_an_alarm_when_they_come_twice(collection):
    for month in (2, 3):
        kinds = np.random.default_rng(month).integers(0, 8, 120)
        kinds[:30] = 9
        add(collection, kinds, month, 1000 * month)
    first = monitor(collection, "month = 2", known="month = 1", by=["kind"])
    assert first.unknown.p < 0.01
    assert not first.unknown_in_a_row
    assert any("if the next images say the same" in sentence for sentence in first.advice)
    assert [growth.value for growth in first.growth] == ["kind 9"]
    assert first.growth[0].known_share == 0
    assert first.growth[0].new_share == 0.25
    kinds_shown = {item.metadata["kind"] for item in first.unknown_items[:25]}
    assert kinds_shown == {"kind 9"}
    # The same images, and these with a few more, confirm nothing.
    assert not monitor(collection, "month = 2", known="month = 1").unknown_in_a_row
    add(collection, np.full(20, 9), 2, 5000)
    assert not monitor(collection, "month = 2", known="month = 1").unknown_in_a_row
    history = json.loads((collection.directory / "monitor.json").read_text())["runs"]
    assert [run["new"] for run in history] == [140]
    second = monitor(collection, "month = 3", known="month = 1")
    assert second.unknown_in_a_row
    assert any("twice in a row" in sentence for sentence in second.advice)


def test_the_same_images_confirm_nothing_where_there_are_more_than_are_compared(collection, monkeypatch):
    monkeypatch.setattr(monitoring, "_MAX_ROWS", 100)
    for month in (2, 3):
        kinds = np.random.default_rng(month).integers(0, 8, 400)
        kinds[::2] = 9
        add(collection, kinds, month, 10_000 * month)
    first = monitor(collection, "month = 2", known="month = 1")
    assert (first.n_new, first.unknown.p < 0.01) == (100, True)
    add(collection, np.full(40, 9), 2, 90_000)
    again = monitor(collection, "month = 2", known="month = 1")
    assert again.unknown.p < 0.01
    assert not again.unknown_in_a_row
    assert monitor(collection, "month = 3", known="month = 1").unknown_in_a_row


def test_files_that_changed_and_estimates_are_no_changed_software(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)

    def save(number):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number}.bmp")

    for number in range(210):
        save(number)
    collection = Collection.create(tmp_path / "c", model=FakeBackend(), cache_dir=tmp_path / "cache")
    collection.add(folder, progress=False)
    # As a camera does that writes to the same names; and an upgrade, where files are gone.
    for number in range(0, 210, 2):
        save(number)
    new = "path LIKE '%/1__.bmp'"
    assert monitor(collection, new).lowest_cosine == pytest.approx(1, abs=1e-5)
    ids = [item.id for item in collection.items()]
    collection.update_metadata(ids, [{"vector_estimated": True}] * len(ids))
    assert monitor(collection, new).lowest_cosine is None


def test_files_that_are_embedded_differently_show_changed_software(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(210):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number}.png")
    collection = Collection.create(tmp_path / "c", model=FakeBackend(), cache_dir=tmp_path / "cache")
    collection.add(folder, progress=False)
    new = "path LIKE '%/1__.png'"
    assert monitor(collection, new).lowest_cosine == pytest.approx(1, abs=1e-5)

    class Changed(FakeBackend):
        def embed(self, prepared):
            return super().embed([np.roll(item, 1) for item in prepared])

    changed = monitor(Collection.open(tmp_path / "c", model=Changed()), new)
    assert changed.pipeline_changed
    assert "embedded differently now" in changed.advice[0]


def test_a_damaged_history_is_named_and_bad_questions_are_refused(collection):
    add(collection, np.random.default_rng(1).integers(0, 8, 150), 2, 1001)
    with pytest.raises(InvalidParameterError, match="450 known and 0 new images"):
        monitor(collection, "month = 7")
    with pytest.raises(FilterError):
        monitor(collection, "month =")
    with pytest.raises(InvalidParameterError, match="'color'; known are month, kind"):
        monitor(collection, "month = 2", by=["color"])
    history = collection.directory / "monitor.json"
    assert not history.exists()
    monitor(collection, "month = 2")
    assert [run["new"] for run in json.loads(history.read_text())["runs"]] == [150]
    history.write_text("{")
    with pytest.raises(StorageError, match="is damaged; delete it"):
        monitor(collection, "month = 2")
