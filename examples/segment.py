"""Segment customers by the images of what they bought, and assign new customers."""

import random
import tempfile
from pathlib import Path

from skimage import data

from nearsight import Collection
from nearsight.analyses.customer_segments import Segmentation

draw = random.Random(0)
kinds = {"cat": data.chelsea(), "coffee": data.coffee(), "rocket": data.rocket()}
tastes = {"cat people": ["cat"], "coffee drinkers": ["coffee"], "engineers": ["rocket", "coffee"]}


def orders(images: dict[str, list[str]], n: int, era: str) -> list[tuple[str, str, float]]:
    """Customer, image and weight: of each taste `n` customers with five images."""
    each = [(f"{era} {taste} {who}", likes) for taste, likes in tastes.items() for who in range(n)]
    return [(who, draw.choice(images[draw.choice(likes)]), 1.0) for who, likes in each for _ in range(5)]


with tempfile.TemporaryDirectory() as folder:
    collection = Collection.create(Path(folder) / "collection")
    for name, photo in kinds.items():
        for _ in range(15):  # a random crop stands for another photograph
            y, x = draw.randrange(photo.shape[0] - 200), draw.randrange(photo.shape[1] - 200)
            collection.add(photo[y : y + 200, x : x + 200], metadata={"kind": name}, progress=False)
    images = {name: [item.id for item in collection.items(f"kind = '{name}'")] for name in kinds}
    segmentation = collection.segment_customers(orders(images, 10, "old"), 3, words=[])
    for segment in segmentation.segments:
        print(f"{len(segment.customers)} customers, such as {', '.join(segment.customers[:3])}")
    segmentation.save(Path(folder) / "segments.npz")

    saved = Segmentation.load(Path(folder) / "segments.npz")
    assigned = collection.assign_customers(saved, orders(images, 1, "new"))
    print("new customers:", assigned.customers, "rejected:", assigned.rejected)
