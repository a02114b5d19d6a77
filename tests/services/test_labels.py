"""`services.labels`: labels to learn from, and labels of new images."""

import shutil
import unicodedata

import pytest

import nearsight
from nearsight.analyses.classification import Prediction
from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.services.collections import embed_paths
from nearsight.services.labels import fitted_labeler, label_images, labels_of, resolve_labels, save_labels

from fake import FakeBackend


@pytest.fixture
def collection(photos, tmp_path, cache):
    collection = nearsight.Collection.create(tmp_path / "collection", cache_dir=cache)
    collection.add([photos / "0.png", photos / "1.png"], metadata={"kind": "a"})
    return collection


def test_labels_of_the_collection(collection, photos):
    ids = {item.id for item in collection.items()}
    assert labels_of(collection, "folder") == dict.fromkeys(ids, photos.name)
    assert labels_of(collection, "kind") == dict.fromkeys(ids, "a")
    assert labels_of(collection, "kind", where="width = 1") == {}


def test_labels_of_subfolders(photos, tmp_path):
    (tmp_path / "cats" / "old").mkdir(parents=True)
    shutil.copy(photos / "0.png", tmp_path / "cats" / "old" / "0.png")
    shutil.copy(photos / "1.png", tmp_path / "loose.png")
    assert labels_of(None, str(tmp_path)) == {str(tmp_path / "cats" / "old" / "0.png"): "cats"}


def test_folders_and_images_may_be_named_through_a_parent(collection, photos, tmp_path, monkeypatch):
    (tmp_path / "cats").mkdir()
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(photos / "0.png", tmp_path / "cats" / "0.png")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert labels_of(None, "../../" + tmp_path.name) == {str(tmp_path / "cats" / "0.png"): "cats"}
    image = f"{photos}/../{photos.name}/0.png"
    prediction = Prediction("", image, "dress", 0.9, False)
    assert save_labels(collection, [prediction], "predicted") == 1


def test_labels_that_name_nothing(collection, tmp_path):
    with pytest.raises(InvalidParameterError, match=r"no metadata key \(the keys are: kind\)"):
        labels_of(collection, "nowhere")
    with pytest.raises(InvalidParameterError, match="neither a folder nor a file; name a folder"):
        labels_of(None, "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidParameterError, match="no subfolders with images"):
        labels_of(None, str(tmp_path / "empty"))


def test_failures_stay_beside_the_predictions(collection, photos, tmp_path, cache):
    with pytest.raises(InvalidParameterError, match="nearsight classify fit"):
        fitted_labeler(collection.directory)
    collection.fit_classifier(dict(zip(labels_of(collection, "kind"), "ab", strict=True)))
    labeler = fitted_labeler(collection.directory)
    assert labeler.false_alarm_rate is None
    assert labeler.why_no_unknown
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    embedder = nearsight.Embedder(labeler.model, cache_dir=cache)
    paths = [str(tmp_path / "bad.jpg"), str(photos / "0.png")]
    results = list(label_images(labeler, embedder, embed_paths(embedder, paths)))
    assert sum(isinstance(result, ImageFailure) for result in results) == 1
    [(prediction, thumbnail)] = [result for result in results if not isinstance(result, ImageFailure)]
    assert (prediction.path, prediction.label, prediction.unknown) == (str(photos / "0.png"), "a", False)
    assert thumbnail is None


def test_a_table_of_labels_names_images_in_any_way(tmp_path, save_image):
    nfc, nfd = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(("a.png", f"{nfd}.png", "c.png", "x.png")):
        save_image(tmp_path / "in" / name, seed)
    collection = nearsight.Collection.create(tmp_path / "collection", model=FakeBackend())
    collection.add(tmp_path / "in")
    save_image(tmp_path / "x.png", 9)  # of the same name as one in the collection
    pairs = [("a", "1"), (f"{nfc}.png", "2"), ("in/c.png", "3"), ("x.png", "4"), ("gone", "5")]
    resolved, resolution = resolve_labels(collection, pairs, tmp_path / "labels.csv")
    folder = tmp_path / "in"
    assert resolved == [
        (str(folder / "a.png"), "1"),
        (str(folder / f"{nfd}.png"), "2"),
        (str(folder / "c.png"), "3"),
        (str(tmp_path / "x.png"), "4"),
    ]
    assert resolution.unmatched == {"gone": 1}
    with pytest.raises(InvalidParameterError, match="2 of the 3 rows"):
        resolve_labels(collection, [("a", "1"), ("p", "2"), ("q", "3")], tmp_path / "labels.csv")
    # Without a collection, only files can be named.
    assert resolve_labels(None, [("x.png", "1")], tmp_path / "labels.csv")[0] == [
        (str(tmp_path / "x.png"), "1")
    ]
