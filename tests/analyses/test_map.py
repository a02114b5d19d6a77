"""The map of a collection: kept, added to, and never moved unless that is asked for."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from nearsight import Collection
from nearsight.analyses.embedding_atlas import write_embedding_atlas
from nearsight.errors import FingerprintMismatchError, InvalidParameterError
from nearsight.estimators import layout2d

from fake import DIM, FakeBackend


def vectors(n, seed=0):
    rng = np.random.default_rng(seed)
    X = np.random.default_rng(1).normal(size=(3, DIM))[np.arange(n) % 3] + 0.2 * rng.normal(size=(n, DIM))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def add(collection, first, n, seed=0):
    ids = [f"{i:032x}" for i in range(first, first + n)]
    metadata = [{"group": i % 3, "name": f"n{i}"} for i in range(n)]
    collection.add_vectors(vectors(n, seed), ids=ids, fingerprint=collection.fingerprint, metadata=metadata)


@pytest.fixture
def collection(tmp_path):
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    add(made, 0, 60)
    return made


@pytest.fixture
def fake_umap(monkeypatch):
    """Coordinates without umap-learn, which compiles for long; `estimators/test_layout2d.py` has it."""

    def coordinates(X, *neighbors, n_components, **options):
        left, lengths, _ = np.linalg.svd(X - X.mean(0), full_matrices=False)
        return (left * lengths)[:, :n_components].astype(np.float64)

    monkeypatch.setattr(layout2d, "umap_coordinates", coordinates)
    monkeypatch.setattr(layout2d, "is_umap_installed", lambda: True)
    monkeypatch.setattr(layout2d, "require_umap", lambda remedy: None)


@pytest.mark.usefixtures("fake_umap")
@pytest.mark.parametrize("method", ["pca", "umap"])
def test_nothing_moves_when_images_come_and_go(collection, method):
    first = collection.layout_2d(method=method)
    assert (first.is_new_layout, first.n_new, first.method, first.is_added.sum()) == (True, 60, method, 0)
    assert 0.6 < first.trustworthiness <= 1
    add(collection, 100, 30, seed=5)
    collection.remove([f"{3:032x}"])
    second = Collection.open(collection.directory).layout_2d()
    assert (second.is_new_layout, second.n_new, second.method, second.is_added.sum()) == (
        False,
        30,
        method,
        30,
    )
    old, new = (
        dict(zip(first.ids, first.positions, strict=True)),
        dict(zip(second.ids, second.positions, strict=True)),
    )
    assert set(new) == (set(old) - {f"{3:032x}"}) | {f"{i:032x}" for i in range(100, 130)}
    for id in set(old) & set(new):
        np.testing.assert_array_equal(old[id], new[id])
    # Images of a group lie nearer to each other than to the others.
    third = collection.layout_2d()
    assert third.n_new == 0
    np.testing.assert_array_equal(third.positions, second.positions)


def test_a_refit_moves_and_says_so(collection):
    first = collection.layout_2d(method="pca")
    add(collection, 100, 60, seed=5)
    collection.layout_2d()
    again = collection.layout_2d(refit=True, method="pca")
    assert (again.is_new_layout, again.is_added.sum(), len(again.ids)) == (True, 0, 120)
    assert not np.allclose(again.positions[:60], first.positions)


def test_placed_by_pca_is_the_projection_itself(collection):
    collection.layout_2d(method="pca")
    add(collection, 100, 30, seed=0)
    found = collection.layout_2d()
    # The same vectors as the first 30: the same places.
    np.testing.assert_allclose(found.positions[60:], found.positions[:30], atol=1e-5)


def test_a_map_by_another_method_must_be_asked_for(collection):
    collection.layout_2d(method="pca")
    assert collection.layout_2d(method="auto").method == "pca"
    with pytest.raises(InvalidParameterError, match="one by umap moves every image"):
        collection.layout_2d(method="umap")


def test_some_of_a_map_keeps_the_order_asked_for(collection):
    whole = collection.layout_2d(method="pca")
    part = whole.subset([whole.ids[7], "no id", whole.ids[2]])
    assert part.ids == [whole.ids[7], whole.ids[2]]
    np.testing.assert_array_equal(part.positions, whole.positions[[7, 2]])


def test_no_images_and_none_left(tmp_path, collection, fake_umap):
    with pytest.raises(InvalidParameterError, match="no images to lay out"):
        Collection.create(tmp_path / "empty", model=FakeBackend()).layout_2d()
    collection.layout_2d(method="umap")
    add(collection, 100, 20, seed=5)
    collection.remove([f"{i:032x}" for i in range(60)])
    with pytest.raises(InvalidParameterError, match="none of the images that the map was laid out with"):
        collection.layout_2d()
    assert collection.layout_2d(refit=True).is_new_layout


def test_maps_that_cannot_be_read(collection, tmp_path):
    file = collection.directory / "map.npz"
    file.write_text("text")
    with pytest.raises(InvalidParameterError, match="holds no sound map"):
        collection.layout_2d()
    collection.layout_2d(refit=True, method="pca")
    other = Collection.create(tmp_path / "other", model=FakeBackend(seed=1))
    add(other, 0, 5)
    (other.directory / "map.npz").write_bytes(file.read_bytes())
    with pytest.raises(FingerprintMismatchError, match="nearsight map --refit"):
        other.layout_2d()


def test_the_file_needs_no_pickle(collection):
    collection.layout_2d(method="pca")
    with np.load(collection.directory / "map.npz", allow_pickle=False) as arrays:
        assert json.loads(str(arrays["about"]))["kind"] == "nearsight map"
        assert arrays["places"].shape == (60, 2)


def test_a_table_for_embedding_atlas(collection, tmp_path):
    found = collection.layout_2d(method="pca")
    write_embedding_atlas(tmp_path / "map.parquet", collection, found, list(collection.items()))
    table = pq.read_table(tmp_path / "map.parquet")
    assert set(table.column_names) == {
        "id",
        "path",
        "projection_x",
        "projection_y",
        "group",
        "name",
        "neighbors",
        "image",
    }
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == found.ids
    np.testing.assert_array_equal([[r["projection_x"], r["projection_y"]] for r in rows], found.positions)
    assert [row["group"] for row in rows[:4]] == [0, 1, 2, 0]
    X = collection.vectors(found.ids)
    for i in (0, 17, 59):
        told = rows[i]["neighbors"]
        wanted = sorted((j for j in range(60) if j != i), key=lambda j: -float(X[i] @ X[j]))[:15]
        assert told["ids"] == wanted
        np.testing.assert_allclose(told["distances"], [1 - X[i] @ X[j] for j in wanted], atol=1e-5)
