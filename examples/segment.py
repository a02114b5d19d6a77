"""Segment customers by the pictures that are theirs."""

import random
import tempfile
from pathlib import Path

import numpy as np
from skimage import data

from nearsight import Collection

draw = random.Random(0)
kinds = {"cat": data.chelsea(), "coffee": data.coffee(), "rocket": data.rocket()}
tastes = {"cat people": ["cat"], "coffee drinkers": ["coffee"], "engineers": ["rocket", "coffee"]}


def crop(photo: np.ndarray) -> np.ndarray:
    """Some part of a photograph, in place of another of its kind."""
    y, x = draw.randrange(photo.shape[0] - 200), draw.randrange(photo.shape[1] - 200)
    return photo[y : y + 200, x : x + 200]


with tempfile.TemporaryDirectory() as folder:
    collection = Collection.create(Path(folder) / "collection")
    pictures = {name: [] for name in kinds}
    for name, photo in kinds.items():
        for _ in range(15):
            collection.add(crop(photo), metadata={"kind": name}, progress=False)
    for item in collection.items():
        pictures[item.metadata["kind"]].append(item.id)
    bought = [
        (f"{taste} {n}", draw.choice(pictures[draw.choice(likes)]), 1.0)
        for taste, likes in tastes.items()
        for n in range(10)
        for _ in range(5)
    ]
    found = collection.segment(bought, 3, words=[])
    for segment in found.segments:
        print(f"{len(segment.customers)} customers, such as {', '.join(segment.customers[:3])}")
