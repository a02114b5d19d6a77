"""What the first version wrote still opens: collections, clusters, maps, classifiers and projections."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from nearsight import Clustering, Collection

from fake import FakeBackend

ARCHIVE = Path(__file__).parent / "data" / "collection-0.1.zip"


@pytest.fixture
def old(tmp_path):
    shutil.unpack_archive(ARCHIVE, tmp_path)
    return tmp_path


def test_a_collection(old):
    collection = Collection.open(old / "collection", model=FakeBackend())
    assert collection.info()["written_by"] == "0.1.0"
    assert {item.path for item in collection.items()} == {f"images/{i}.jpg" for i in range(6)}
    assert collection.count("stars >= 4 AND name IN ('4', '5')") == 2
    ids = [item.id for item in collection.items()]
    np.testing.assert_allclose(np.linalg.norm(collection.vectors(ids), axis=1), 1, atol=1e-6)
    assert len(collection.thumbnails(ids)) == 6
    assert collection.search(id=ids[0], k=5)[0].similarity < 1
    assert collection.update_metadata(ids, {"checked": True}) == 6
    assert collection.remove(ids[:1]) == 1


def test_what_was_fitted_on_it(old):
    collection = Collection.open(old / "collection", model=FakeBackend())
    clustering = Clustering.load(old / "clusters.npz")
    clusters = collection.predict_clusters(clustering).clusters
    assert [len(cluster.ids) for cluster in clusters] == [
        collection.count(f"kind = {cluster.id}") for cluster in clusters
    ]
    assert collection.save_clusters(clustering, "kind") == 0
    layout = collection.layout_2d()
    assert (layout.n_new, layout.method, len(layout.ids)) == (0, "pca", 6)
    assert {prediction.label for prediction in collection.classify()} <= {"a", "b"}


def test_a_projected_collection(old):
    collection = Collection.open(old / "projected")
    assert collection.spec.dim == 4
    assert collection.model_name == f"pca:{old / 'projected' / 'projection.npz'}"
    assert collection.search(vector=np.ones(4), k=6)[-1].similarity < 1
