"""Rows as arrays."""

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.collection.arrays import read_vectors, sample_vectors
from nearsight.errors import InvalidParameterError

from fake import FakeBackend


@pytest.fixture
def collection(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 30 + i, 3), np.uint8)).save(tmp_path / f"{i:02}.png")
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    made.add(tmp_path, metadata=lambda path: {"label": "even" if int(path[-6:-4]) % 2 == 0 else "odd"})
    return made


def test_gathers_vectors_and_columns_row_by_row(collection):
    found = read_vectors(collection, columns=("path", "width", "label"))
    assert len(found) == 12
    np.testing.assert_array_equal(found.X, collection.vectors(found.ids))
    for id, path, width, label in zip(found.ids, *found.columns.values(), strict=True):
        item = collection.get(id)
        assert (item.path, item.width, item.metadata["label"]) == (path, width, label)


def test_gathers_only_what_matches(collection):
    assert set(read_vectors(collection, "label = 'odd'", ["label"]).columns["label"]) == {"odd"}
    assert read_vectors(collection, "width > 1000").X.shape == (0, 64)


def test_a_column_that_is_not_there(collection):
    with pytest.raises(InvalidParameterError, match="no column 'labl'; there are added"):
        read_vectors(collection, columns=["labl"])


@pytest.mark.parametrize("n", [1, 5, 12, 100])
def test_a_sample_is_of_so_many_different_images(collection, n):
    found = sample_vectors(collection, n)
    assert len(found) == len(set(found.ids)) == min(n, 12)
    np.testing.assert_array_equal(found.X, collection.vectors(found.ids))
    assert sample_vectors(collection, n).ids == found.ids


def test_a_sample_of_a_few_is_any_few(collection):
    assert len({id for seed in range(20) for id in sample_vectors(collection, 2, random_state=seed).ids}) > 8


def test_a_sample_of_what_matches(collection):
    odd = set(read_vectors(collection, "label = 'odd'").ids)
    assert set(sample_vectors(collection, 4, where="label = 'odd'").ids) < odd


def test_a_sample_of_nothing_is_refused(collection):
    with pytest.raises(InvalidParameterError, match="n is 0"):
        sample_vectors(collection, 0)


@pytest.mark.parametrize("seed", ["0", -1, np.random.default_rng()])
def test_a_seed_that_is_none_is_refused_by_name(collection, seed):
    with pytest.raises(InvalidParameterError, match="random_state is .*must be .*at least 0"):
        sample_vectors(collection, 3, random_state=seed)
