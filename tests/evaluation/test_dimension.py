"""Advice on the length of vectors."""

import numpy as np
import pytest

from nearsight import Collection
from nearsight.errors import InvalidParameterError
from nearsight.evaluation import advise_dimension

from fake import DIM, FakeBackend


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Vectors that vary in twenty directions, of which three tell six classes apart."""
    folder, rng = tmp_path_factory.mktemp("c"), np.random.default_rng(0)
    y = rng.integers(0, 6, 400)
    basis = np.linalg.qr(rng.normal(size=(DIM, 20)))[0].T
    centers = np.zeros((6, 20))
    centers[:, :3] = rng.normal(0, 3, (6, 3))
    X = (centers[y] + rng.normal(0, 0.6, (400, 20))) @ basis + 1e-3 * rng.normal(size=(400, DIM))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    collection = Collection.create(folder / "c", model=FakeBackend(), cache_dir=folder / "cache")
    collection.add_vectors(
        X.astype(np.float32),
        ids=[f"{row:032x}" for row in range(400)],
        fingerprint=collection.fingerprint,
        metadata=[{"kind": f"kind {number}"} for number in y],
    )
    return collection


def labels(collection):
    return {item.id: item.metadata["kind"] for item in collection.items()}


def test_without_labels_the_fewest_numbers_that_keep_the_neighbors(collection):
    advice = advise_dimension(collection)
    assert [row.dim for row in advice.rows] == [16, 32, DIM]
    kept = [row.neighbors_kept.value for row in advice.rows]
    assert kept[0] < 0.9 < kept[1]
    assert kept[-1] == 1
    assert advice.advised_dim == 32
    assert advice.method == "pca"
    assert (
        advice.rule.startswith("32 numbers are the fewest that keep 90 % of the ten nearest")
        or "90%" in advice.rule
    )
    assert advise_dimension(collection, keep=0.3).advised_dim == 16
    assert [row.bytes_per_vector for row in advice.rows] == [64, 128, 4 * DIM]


def test_with_labels_the_fewest_numbers_as_good_as_the_best(collection):
    advice = advise_dimension(collection, labels(collection))
    assert all(row.recall.value > 0.8 for row in advice.rows)
    assert advice.advised_dim == 16
    assert "within one standard error of the best" in advice.rule


def test_what_cannot_be_compared_is_refused(collection, tmp_path):
    with pytest.raises(InvalidParameterError, match="keep is 0"):
        advise_dimension(collection, keep=0)
    with pytest.raises(InvalidParameterError, match="of 1 kinds; two are needed"):
        advise_dimension(collection, dict.fromkeys(labels(collection), "one"))
    empty = Collection.create(tmp_path / "c", model=FakeBackend(), cache_dir=tmp_path / "cache")
    with pytest.raises(InvalidParameterError, match="there are 0 images"):
        advise_dimension(empty)
