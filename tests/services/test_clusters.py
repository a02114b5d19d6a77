"""`services.clusters`: where clusters are saved."""

import pytest

import nearsight
from nearsight.analyses.clusters import Clustering
from nearsight.services.clusters import clustering_file, save_clustering


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
