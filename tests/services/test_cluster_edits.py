"""Edits of clusters, against a plain dictionary of labels; files, metadata and kills between the two."""

import numpy as np
import pytest

from nearsight import Collection
from nearsight.analyses.cluster_members import labels_by_id
from nearsight.analyses.clusters import Clustering
from nearsight.errors import InvalidParameterError
from nearsight.services.cluster_edits import ClusterEdits
from nearsight.services.clusters import clustering_file, save_clustering
from nearsight.services.map import saved_clusters

from fake import DIM, FakeBackend

N_EACH, N_KINDS = 30, 3


def vectors(seed, n_each=N_EACH):
    centers = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, N_KINDS)))[0].T
    noise = np.random.default_rng(seed).standard_normal((N_KINDS * n_each, DIM)) / 40
    X = np.repeat(centers, n_each, 0) + noise
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def names(first, n):
    return [f"{first + i:032x}" for i in range(n)]


@pytest.fixture
def collection(tmp_path):
    collection = Collection.create(tmp_path / "c", model=FakeBackend())
    X = vectors(1)
    collection.add_vectors(X, ids=names(1, len(X)), fingerprint=collection.fingerprint)
    save_clustering(collection, collection.cluster(3, words=[], progress=False))
    return collection


@pytest.fixture
def edits(collection):
    return ClusterEdits(collection)


def assigned(collection):
    """What `cluster --assign` and `map` make of the file."""
    clustering = collection.predict_clusters(Clustering.load(clustering_file(collection)), progress=False)
    labels = labels_by_id(clustering)
    assert {id: number for id, (number, _) in saved_clusters(collection).items()} == labels
    assert [c.id for c in clustering.clusters] == list(range(len(clustering.clusters)))
    for cluster in clustering.clusters:
        assert set(cluster.representatives) <= set(cluster.ids)
        assert cluster.representatives
    return labels


def test_clusters_merge_under_the_name_of_the_first(collection, edits):
    before = assigned(collection)
    edits.rename(2, "hats")
    edits.merge([2, 0])
    # Cluster 1 moves up to 0, and what was 2 or 0 is 1.
    assert assigned(collection) == {id: {0: 1, 1: 0, 2: 1}[label] for id, label in before.items()}
    assert edits.read().clusters[1].name == "hats"
    # Later images follow.
    later = vectors(2, 8)
    collection.add_vectors(later, ids=names(1000, len(later)), fingerprint=collection.fingerprint)
    after = assigned(collection)
    by_kind = [{after[id] for id in names(1000 + 8 * kind, 8)} for kind in range(N_KINDS)]
    assert all(len(labels) == 1 for labels in by_kind)
    assert sorted(labels.pop() for labels in by_kind) == [0, 1, 1]


def test_images_move_to_a_cluster_a_new_one_and_none(collection, edits):
    expected = assigned(collection)
    moved = edits.read().clusters[0].ids[:3]
    edits.move(moved, 1)
    expected |= dict.fromkeys(moved, 1)
    assert assigned(collection) == expected
    edits.move(moved[:2], None)
    expected |= dict.fromkeys(moved[:2], 3)
    assert assigned(collection) == expected
    edits.move(moved[:1], -1)
    expected |= dict.fromkeys(moved[:1], -1)
    assert assigned(collection) == expected
    # The last image leaves cluster 3, which is gone.
    edits.move(moved[1:2], 0)
    expected |= dict.fromkeys(moved[1:2], 0)
    assert assigned(collection) == expected
    assert len(edits.read().clusters) == 3


def test_one_cluster_is_split_and_no_other_changes(collection, edits):
    before = assigned(collection)
    edits.merge([0, 1, 2])
    edits.split(0, 3, progress=False)
    after = assigned(collection)
    # The same three groups, whatever their numbers are.
    assert len(set(zip(before.values(), (after[id] for id in before), strict=True))) == 3
    assert len(set(after.values())) == 3
    edits.split(1, progress=False)
    again = assigned(collection)
    assert {id: label for id, label in after.items() if label != 1} == {
        id: label for id, label in again.items() if after[id] != 1
    }
    assert {again[id] for id in after if after[id] == 1} >= {1, 3}
    for refused in (lambda: edits.split(0, 99), lambda: edits.split(9), lambda: edits.merge([0])):
        with pytest.raises(InvalidParameterError):
            refused()


def test_undo_goes_back_edit_by_edit_after_a_reload(collection, edits):
    states = [assigned(collection)]
    edits.rename(0, "zero")
    states.append(assigned(collection))
    edits.move(edits.read().clusters[0].ids[:4], 2)
    states.append(assigned(collection))
    edits.split(1, 2, progress=False)
    states.append(assigned(collection))
    edits.merge([0, 3])
    for state in reversed(states):
        ClusterEdits(Collection.open(collection.directory)).undo()
        assert assigned(collection) == state
    assert edits.read().clusters[0].name is None
    with pytest.raises(InvalidParameterError, match="no edit to undo"):
        edits.undo()


def test_edits_of_clusters_that_changed_meanwhile_are_refused(edits):
    seen = edits.revision
    edits.merge([0, 1], revision=seen)
    with pytest.raises(InvalidParameterError, match="changed meanwhile"):
        edits.merge([0, 1], revision=seen)
    assert len(edits.read().clusters) == 2


class Killed(BaseException):
    """Ends the process as `kill -9` would: nothing that catches errors may catch it."""


@pytest.mark.parametrize("step", ["before the metadata", "within the metadata", "after the metadata"])
def test_metadata_follow_also_after_a_kill(collection, edits, monkeypatch, step):
    edits.save_as(edits.read(), "kind")
    collection.add_vectors(vectors(2, 1), ids=names(1000, 3), fingerprint=collection.fingerprint)
    edits.save_as(
        collection.predict_clusters(Clustering.load(clustering_file(collection)), progress=False), "kind"
    )

    def metadata():
        stored = Collection.open(collection.directory)
        return {item.id: int(item.metadata["kind"]) for item in stored.items()}

    assert metadata() == assigned(collection)
    update = Collection.update_metadata

    def killed(self, ids, values, **options):
        if step == "within the metadata":
            update(self, ids[:9], values[:9], **options)
        if step == "after the metadata":
            update(self, ids, values, **options)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Collection, "update_metadata", killed)
        with pytest.raises(Killed):
            edits.merge([2, 0])
    ClusterEdits(Collection.open(collection.directory)).read()
    labels = assigned(collection)
    assert metadata() == labels
    assert set(labels.values()) == {0, 1}
    assert collection.count("kind = 1") == sum(label == 1 for label in labels.values())


def test_a_file_of_an_earlier_version_can_be_edited(collection, edits):
    file = clustering_file(collection)
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files if not name.startswith("image_")}
    np.savez(file, **arrays)
    before = assigned(collection)
    edits.merge([1, 2])
    assert assigned(collection) == {id: min(label, 1) for id, label in before.items()}
