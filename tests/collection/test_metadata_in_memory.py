"""Metadata under new keys reaches a collection whose rows are in memory."""

import numpy as np
from PIL import Image

from nearsight import Collection

from fake import FakeBackend


def test_new_keys_one_after_another_are_seen_by_searches_and_filters(tmp_path):
    images = [np.full((32, 32, 3), (250 - n, 2 * n, n), np.uint8) for n in range(12)]
    for n, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
    collection = Collection.create(tmp_path / "c", model=FakeBackend())
    collection.add([str(tmp_path / f"{n}.png") for n in range(12)], progress=False)
    ids = [item.id for item in collection.items()]
    assert collection._store.load()
    for number in range(3):
        collection.update_metadata(ids[number : number + 2], {f"key{number}": "yes"})
        assert {item.id for item in collection.items(f"key{number} = 'yes'")} == set(ids[number : number + 2])
        [match] = collection.search(id=ids[number], k=5, where=f"key{number} = 'yes'")
        assert match.id == ids[number + 1]
        assert match.metadata[f"key{number}"] == "yes"
