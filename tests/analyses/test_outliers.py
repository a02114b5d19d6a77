"""Images unlike the others."""

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.analyses import outliers
from nearsight.collection.arrays import read_vectors
from nearsight.errors import InvalidParameterError

from fake import FakeBackend


@pytest.fixture
def collection(tmp_path):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 200, (20, 30, 3))
    for i in range(15):
        pixels = base + rng.integers(0, 30, base.shape) if i != 7 else rng.integers(0, 256, base.shape)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{i:02}.png")
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    made.add(tmp_path, metadata=lambda path: {"odd": int(path[-6:-4]) % 2})
    return made


def test_the_odd_one_out_comes_first(collection):
    found = collection.outliers(5)
    assert found[0].item.path.endswith("07.png")
    distances = [one.distance for one in found]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 2 * distances[1]
    rows = read_vectors(collection)
    away = np.linalg.norm(rows.X - rows.X[rows.ids.index(found[0].item.id)], axis=1)
    assert distances[0] == pytest.approx(np.sort(away)[1:4].mean(), rel=1e-4)


def test_only_among_those_that_match(collection):
    found = collection.outliers(50, where="odd = 0")
    assert len(found) == 8
    assert all(one.item.metadata["odd"] == 0 for one in found)
    assert collection.outliers(where="odd = 5") == []


def test_a_random_part_stands_for_many(collection, monkeypatch):
    monkeypatch.setattr(outliers, "_MAX_REFERENCE_IMAGES", 6)
    assert collection.outliers(1)[0].item.path.endswith("07.png")


def test_refuses_less_than_one(collection):
    with pytest.raises(InvalidParameterError, match="k is 0"):
        collection.outliers(0)
