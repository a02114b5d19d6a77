"""Recommend similar images, what is bought together, and what suits a customer's history."""

import tempfile
from pathlib import Path

import numpy as np
import skimage

from nearsight import Collection

images = Path(skimage.__file__).parent / "data"

# Orders of a shop that sells prints: animals are bought with food, rockets with machines.
rng = np.random.default_rng(0)
pairs = [("chelsea.png", "coffee.png"), ("rocket.jpg", "motorcycle_left.png")]
orders = {
    f"order {n}": [*pairs[n % 2], str(rng.choice(["coins.png", "brick.png", "grass.png"]))]
    for n in range(100)
}
orders["order 100"] = ["chelsea.png", "gift wrap"]

with tempfile.TemporaryDirectory() as folder:
    collection = Collection.create(Path(folder) / "collection")
    collection.add(images)
    by_name = {Path(item.path).name: item.id for item in collection.items()}

    print("Similar to the cat, varied:")
    for item in collection.recommend(by_name["chelsea.png"], k=3, diversity=0.5).items:
        print(f"{item.score:.3f}  {Path(item.path).name}")

    recommender = collection.fit_recommender(orders)  # fitted once, for any number of recommendations
    print(f"\nBought with the cat (skipped items, which are no images: {dict(recommender.unmatched)}):")
    for item in recommender.recommend(by_name["chelsea.png"], k=3).items:
        print(f"{item.score:.3f}  {Path(item.path).name}: {item.why}")

    history = [by_name["rocket.jpg"], by_name["coins.png"]]
    [best, *_] = recommender.recommend(history).items
    print(f"\nFor a customer with the rocket and the coins: {Path(best.path).name}: {best.why}")
