"""Clusters and segments of a collection."""

import json

import numpy as np
import pytest
from analyses.conftest import N_EACH, make_collection, truth_of
from collection.test_search import Encoder
from sklearn.metrics import adjusted_rand_score

from nearsight import Collection
from nearsight.analyses.clusters import FILENAME, Clustering
from nearsight.analyses.customer_segments import Segmentation
from nearsight.analyses.saved_clusters import check_key
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, MetadataError, NewerFormatError
from nearsight.estimators.clustering import kmeans

from fake import DIM, FakeBackend


def labels_in(found):
    return {i: c.id for c in found.clusters for i in c.ids} | dict.fromkeys(found.noise, -1)


def agreement(collection, found):
    truth, labels = truth_of(collection), labels_in(found)
    assert labels.keys() == truth.keys()
    return adjusted_rand_score([truth[i] for i in sorted(truth)], [labels[i] for i in sorted(truth)])


def test_finds_what_is_there_and_says_what_is_noise(collection):
    found = collection.cluster()
    assert len(found.clusters) == 4
    assert agreement(collection, found) > 0.95
    assert found.algorithm == "density"
    for cluster in found.clusters:
        assert set(cluster.representatives) <= set(cluster.ids)
        assert len(set(cluster.representatives)) == 8
        vectors = collection.vectors(cluster.ids)
        assert cluster.representative == cluster.ids[int((vectors @ vectors.mean(0)).argmax())]
        # The fake model knows no texts.
        assert (cluster.words, cluster.name) == ([], None)


def test_a_notebook_shows_the_representatives(collection, monkeypatch):
    monkeypatch.setattr(collection, "thumbnails", lambda ids: dict.fromkeys(ids, b"\xff\xd8\xff"))
    found = collection.cluster(4)
    for shown in (found, found.merged(2), collection.predict_clusters(found)):
        page = shown._repr_html_()
        assert page.count("<img") == sum(min(len(c.representatives), 10) for c in shown.clusters)
        assert f"<p>0: {len(shown.clusters[0].ids)} images</p>" in page


def test_as_many_as_are_asked_for(collection):
    found = collection.cluster(4, where="truth >= 0")
    assert (found.algorithm, found.noise) == ("kmeans", [])
    assert sorted(len(c.ids) for c in found.clusters) == [N_EACH] * 4
    assert len(found.tree) == 3


def test_the_coordinates_of_a_clustering_are_stored_with_it(collection, tmp_path, monkeypatch):
    monkeypatch.setattr(kmeans, "is_umap_installed", lambda: True)
    monkeypatch.setattr(
        kmeans, "umap_coordinates", lambda X, *neighbors, n_components, **_: X[:, :n_components]
    )
    by_umap = collection.cluster(4)
    assert by_umap.coordinates == "umap"
    by_umap.save(tmp_path / "clusters.npz")
    loaded = Clustering.load(tmp_path / "clusters.npz")
    assert loaded.coordinates == "umap"
    # Later images are assigned without UMAP, wherever the file is read.
    monkeypatch.setattr(kmeans, "umap_coordinates", None)
    assert labels_in(collection.predict_clusters(loaded)).keys() == labels_in(by_umap).keys()
    assert collection.cluster(4, coordinates="diffusion").coordinates == "diffusion"
    assert collection.cluster().coordinates == "diffusion"
    with pytest.raises(InvalidParameterError, match="density has no UMAP"):
        collection.cluster(coordinates="umap")


def test_the_most_similar_clusters_merge(collection):
    fine = collection.cluster()
    coarse = collection.cluster(2, algorithm="density")
    assert len(coarse.clusters) == 2
    assert sorted(i for c in coarse.clusters for i in c.ids) == sorted(
        i for c in fine.clusters for i in c.ids
    )
    above = labels_in(coarse)
    for cluster in fine.clusters:
        assert len({above[i] for i in cluster.ids}) == 1
    a, b, similarity, size = fine.tree[0]
    one, other = (collection.vectors(fine.clusters[i].ids) for i in (a, b))
    assert similarity == pytest.approx(float((one @ other.T).mean()), abs=1e-5)
    assert size == len(one) + len(other)
    assert len(fine.merged(1).clusters) == 1
    with pytest.raises(InvalidParameterError, match="n is 0"):
        fine.merged(0)


@pytest.mark.parametrize("k", [None, 4])
def test_later_images_are_assigned_by_a_file(collection, tmp_path, k):
    found = collection.cluster(k, where="truth >= 0")
    found.save(tmp_path / "kept.npz")
    before = labels_in(found)
    with np.load(tmp_path / "kept.npz", allow_pickle=False) as arrays:
        assert json.loads(str(arrays["about"]))["fingerprint"] == collection.fingerprint.to_dict()
    make_collection(tmp_path / "c", seed=5, n_each=25, noise=20, first=10_000)
    loaded = Clustering.load(tmp_path / "kept.npz")
    after = collection.predict_clusters(loaded)
    assert [c.representatives for c in after.clusters] == [c.representatives for c in found.clusters]
    new = {i: label for i, label in labels_in(after).items() if int(i, 16) >= 10_000}
    truth = truth_of(collection)
    inside = [i for i in new if truth[i] >= 0]
    kept = [i for i in inside if new[i] >= 0]
    assert len(kept) > 0.85 * len(inside)
    assert adjusted_rand_score([truth[i] for i in kept], [new[i] for i in kept]) == 1.0
    assert all(new[i] == -1 for i in new if truth[i] < 0)
    labels = labels_in(after)
    assert np.mean([labels[i] == label for i, label in before.items()]) > 0.9


def test_merged_clusters_assign_too(collection):
    coarse = collection.cluster(2, algorithm="density")
    again = labels_in(collection.predict_clusters(coarse))
    assert np.mean([again[i] == label for i, label in labels_in(coarse).items()]) > 0.9


def test_clusters_of_other_vectors_are_refused(collection, tmp_path):
    other = Collection.create(tmp_path / "other", model=FakeBackend(seed=1))
    with pytest.raises(FingerprintMismatchError, match="nearsight cluster"):
        other.predict_clusters(collection.cluster())


@pytest.mark.parametrize(
    ("kind", "remedy", "noun"),
    [
        (Clustering, "find clusters first", "clustering"),
        (Segmentation, "find segments first: nearsight segment", "segmentation"),
    ],
)
def test_files_that_hold_no_clusters_or_segments(tmp_path, kind, remedy, noun):
    with pytest.raises(InvalidParameterError, match=remedy):
        kind.load(tmp_path / FILENAME)
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    np.savez(tmp_path / "else.npz", X=np.eye(2))
    np.savez(tmp_path / "newer.npz", about=np.array(f'{{"kind": "nearsight {noun}", "format": 99}}'))
    np.savez(tmp_path / "bare.npz", about=np.array(f'{{"kind": "nearsight {noun}", "format": 1}}'))
    for name in ("text.npz", "torn.npz", "else.npz", "bare.npz"):
        with pytest.raises(InvalidParameterError, match=f"holds no sound {noun}"):
            kind.load(tmp_path / name)
    with pytest.raises(NewerFormatError, match="99"):
        kind.load(tmp_path / "newer.npz")


def test_clusters_in_the_metadata(collection):
    found = collection.cluster()
    assert collection.save_clusters(found, "kind") == len(collection)
    for cluster in found.clusters:
        assert {i.id for i in collection.items(f"kind = {cluster.id}")} == set(cluster.ids)
    assert {i.id for i in collection.items("kind = -1")} == set(found.noise)
    # Again, nothing new, and without a label that would have made its column.
    assert collection.save_clusters(found, "kind") == len(collection)
    inside = collection.cluster(2, where="kind = 1")
    assert sorted(i for c in inside.clusters for i in c.ids) == sorted(found.clusters[1].ids)
    for key, message in {"a b": "'a b'", "width": "every image has", "not": "a keyword of `where`"}.items():
        with pytest.raises(MetadataError, match=message):
            collection.save_clusters(found, key)
    collection.update_metadata(found.noise[0], {"name": "jar"})
    with pytest.raises(MetadataError, match="holds text"):
        check_key(collection, "name")


def test_what_the_user_wrote_is_not_written_over(collection):
    found = collection.cluster()
    mine = found.noise[0]
    collection.update_metadata(mine, {"kind": 7})
    collection.update_metadata(found.clusters[0].ids[0], {"sort_label": "mine"})
    for key in ("kind", "sort"):
        with pytest.raises(MetadataError, match=r"1 images have metadata .*overwrite"):
            collection.save_clusters(found, key)
    assert collection.get(mine).metadata["kind"] == 7
    collection.save_clusters(found, "kind", overwrite=True)
    assert collection.get(mine).metadata["kind"] == -1
    # From then on it is the clusters' own.
    collection.save_clusters(collection.cluster(2), "kind")
    assert collection.count("kind = 1") > 0


def test_words_name_clusters(collection, monkeypatch):
    tower = Encoder(collection.spec)
    centers = np.random.default_rng(99).normal(size=(4, DIM))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    names = ["jar", "kite", "lamp", "moon"]
    monkeypatch.setattr(
        tower, "embed", lambda texts: centers[[names.index(t) for t in texts]].astype(np.float32)
    )
    monkeypatch.setattr(tower, "logits", lambda X, queries: 20 * X @ queries.T)
    collection.__dict__["text_encoder"] = tower
    found = collection.cluster(words=names)
    truth = truth_of(collection)
    for cluster in found.clusters:
        assert cluster.name == names[truth[cluster.representative]]
    assert all(c.name is None for c in collection.cluster(words=[]).clusters)
    with pytest.raises(InvalidParameterError, match="word"):
        collection.cluster(words=["jar", " "])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_images_are_noise(tmp_path, n):
    few = make_collection(tmp_path / "few", n_each=0, noise=n)
    found = few.cluster()
    assert (found.clusters, len(found.noise)) == ([], n)
    assert few.predict_clusters(found).noise == found.noise


def test_bad_arguments(collection):
    with pytest.raises(InvalidParameterError, match="dbscan"):
        collection.cluster(algorithm="dbscan")
    with pytest.raises(InvalidParameterError, match="needs the number of clusters"):
        collection.cluster(algorithm="kmeans")
    with pytest.raises(InvalidParameterError, match="there are 270 images"):
        collection.cluster(999)
