"""`services.labels`: labels to learn from, and labels of new images."""

import shutil

import pytest

import nearsight
from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.services.collections import embed_paths
from nearsight.services.labels import fitted_labeler, label_images, labels_of


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
