"""Which images are labeled next: what teaches, and a quarter at random."""

import hashlib

import numpy as np
import pytest

from nearsight import Collection
from nearsight.analyses.label_queue import held_out_accuracy, is_check_image, next_images
from nearsight.errors import InvalidParameterError

from fake import FakeBackend


@pytest.fixture
def collection(tmp_path):
    """Eighty vectors of two classes; their ids are hashes."""
    collection = Collection.create(tmp_path / "c", model=FakeBackend())
    rng = np.random.default_rng(0)
    X = np.eye(2, collection.spec.dim)[np.arange(80) % 2] + 0.1 * rng.normal(size=(80, collection.spec.dim))
    ids = [hashlib.md5(str(n).encode(), usedforsecurity=False).hexdigest() for n in range(80)]
    collection.add_vectors(X.astype(np.float32), ids=ids, fingerprint=collection.fingerprint)
    return collection


def label_all(collection, queue):
    ids = np.array([image.prediction.id for image in queue])
    vectors = collection.vectors(ids.tolist())
    is_right = vectors[:, 1] > vectors[:, 0]
    for label, rows in (("left", ~is_right), ("right", is_right)):
        if rows.any():
            collection.update_metadata(ids[rows].tolist(), {"label": label})


def test_a_quarter_is_drawn_at_random_however_often_one_asks(collection):
    shown = []
    for _ in range(8):
        # Only the first three are labeled before one asks again.
        queue = next_images(collection, n=8)[:3]
        label_all(collection, queue)
        shown += queue
    ids = [image.prediction.id for image in shown]
    assert len(set(ids)) == 24
    assert [image.is_check for image in shown] == [is_check_image(id) for id in ids]
    assert sum(image.is_check for image in shown) == 6
    # In the order of the hashes, so that nobody chooses.
    checks = [id for id in ids if is_check_image(id)]
    assert checks == sorted(id for item in collection.items() if is_check_image(id := item.id))[:6]


@pytest.mark.slow
def test_the_end_is_reached_and_judged(collection):
    with pytest.raises(InvalidParameterError, match="n is 0"):
        next_images(collection, n=0)
    assert held_out_accuracy(collection).accuracy is None
    skipped = {image.prediction.id for image in next_images(collection, n=5)}
    queue = next_images(collection, n=500, skipped=skipped)
    assert len(queue) == 75
    label_all(collection, queue)
    assert next_images(collection, skipped=skipped) == []
    held_out = held_out_accuracy(collection)
    assert len(held_out.right) == sum(image.is_check for image in queue)
    assert (held_out.accuracy, held_out.calibration) == (1.0, "fits")
