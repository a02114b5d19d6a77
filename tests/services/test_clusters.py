"""`services.clusters`: where clusters are saved, and which of them show people."""

import numpy as np
import pytest

import nearsight
from nearsight.analyses.clusters import Clustering
from nearsight.errors import MissingExtraError
from nearsight.faces.models import DetectedFace
from nearsight.services.clusters import clustering_file, name_people, save_clustering


@pytest.fixture
def collection(photos, tmp_path, cache):
    collection = nearsight.Collection.create(tmp_path / "collection", cache_dir=cache)
    collection.add(photos)
    return collection


def test_clusters_of_a_part_do_not_replace_those_of_the_whole(collection, tmp_path):
    assert save_clustering(collection, collection.cluster(2, words=[]))
    part = collection.cluster(1, words=[], where="width = 160")
    assert not save_clustering(collection, part, where="width = 160")
    assert len(Clustering.load(clustering_file(collection)).clusters) == 2
    assert save_clustering(collection, part, file=tmp_path / "part.npz", where="width = 160")
    assert len(Clustering.load(tmp_path / "part.npz").clusters) == 1


def test_a_collection_that_cannot_be_written_to(collection, monkeypatch):
    monkeypatch.setattr("nearsight.services.clusters.os.access", lambda *_: False)
    assert not save_clustering(collection, collection.cluster(2, words=[]))
    assert not clustering_file(collection).exists()


class Detector:
    """Finds one face in the middle of every image, of a stated share of its shorter side."""

    input_px = None

    def __init__(self, share):
        self.share = share


@pytest.mark.parametrize(("share", "name"), [(0.5, "portraits"), (0.2, "people"), (0.05, None)])
def test_clusters_of_faces_are_named(collection, monkeypatch, share, name):
    def detect(detector, image, **_):
        side = detector.share * min(image.size)
        return [DetectedFace((0.0, 0.0, side, side), np.zeros((5, 2), np.float32), 0.9)]

    monkeypatch.setattr("nearsight.services.clusters.detect", detect)
    clustering = collection.cluster(2, words=[])
    named = name_people(collection, clustering, detector=Detector(share))
    assert [c.name for c in named.clusters] == ([name, f"{name} 2"] if name else [None, None])
    assert [c.ids for c in named.clusters] == [c.ids for c in clustering.clusters]
    # A sure name stays, unless the images are portraits.
    sure = clustering.renamed({0: "dress", 1: "shoe"})
    kept = [c.name for c in name_people(collection, sure, detector=Detector(share)).clusters]
    assert (kept == ["dress", "shoe"]) == (name != "portraits")
    unsure = clustering.renamed({0: "mixed: dress, others", 1: "perhaps shoe"})
    told = [c.name for c in name_people(collection, unsure, detector=Detector(share)).clusters]
    assert all(text.startswith(name or ("mixed", "perhaps")) for text in told)


def test_without_a_face_detector_nothing_is_renamed(collection, monkeypatch):
    def missing():
        raise MissingExtraError("not installed")

    monkeypatch.setattr("nearsight.services.clusters.load_detector", missing)
    clustering = collection.cluster(2, words=[])
    assert name_people(collection, clustering) is clustering
