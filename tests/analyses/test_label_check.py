"""`check_labels`: labels of a collection, judged by the other images."""

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.analyses.label_check import check_labels
from nearsight.analyses.labeled_images import labels_by_folder

from fake import FakeBackend

COLORS = {"red": (230, 30, 30), "green": (30, 230, 30), "blue": (30, 30, 230)}


@pytest.fixture
def collection(tmp_path):
    rng = np.random.default_rng(0)
    for name, color in COLORS.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = np.clip(np.array(color) + rng.integers(-25, 26, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    made.add(tmp_path / "images")
    return made


def test_a_wrong_label_is_the_first_suspect(collection, tmp_path):
    labels = labels_by_folder(collection)
    wrong = next(id for id, label in labels.items() if label == "red")
    outside = tmp_path / "outside.png"
    Image.new("RGB", (16, 16), (30, 225, 35)).save(outside)
    check = check_labels(collection, {**labels, wrong: "blue", str(outside): "red"}, progress=False)
    assert {(s.id, s.label, s.suggested) for s in check.suspects[:2]} >= {(wrong, "blue", "red")}
    assert str(outside) in [s.path for s in check.suspects]
    assert all(s.margin < 0 for s in check.suspects)
    assert [s.likely for s in check.suspects] == [i < check.n_expected for i in range(len(check.suspects))]
    assert check.n_images == 37
    assert [(facts.label, facts.images) for facts in check.classes] == [
        ("blue", 13),
        ("green", 12),
        ("red", 12),
    ]
    assert np.sum(check.confusion) == 37
    assert check.accuracy == pytest.approx(np.trace(check.confusion) / 37)


def test_right_labels_raise_no_suspicion(collection):
    check = check_labels(collection, labels_by_folder(collection), progress=False)
    assert check.suspects == []
    assert check.accuracy == 1
