"""Label images from a few examples of each class; images of no class are unknown."""

import tempfile
from pathlib import Path

import conformal_clip_data
import skimage

from nearsight import Collection

textile = Path(conformal_clip_data.__file__).parent / "data/textile_images/simulated"
classes = ("nominal", "global")  # good, and defective everywhere
first = [path for name in classes for path in sorted((textile / name).glob("*.jpg"))[:30]]

with tempfile.TemporaryDirectory() as folder:
    collection = Collection.create(Path(folder) / "collection")
    collection.add(first)

    # Pretend that twenty of each class were labeled by hand.
    labels = {str(p): p.parent.name for i, p in enumerate(first) if i % 30 < 20}
    fitted = collection.fit_classifier(labels)
    print(f"{fitted.counts}: {fitted.estimator.method_}, chosen by {fitted.estimator.chosen_by_}")

    others = [p for p in collection.classify() if p.path not in labels]
    right = sum(p.label == Path(p.path).parent.name for p in others)
    print(f"{right} of {len(others)} other images are labeled right")

    photographs = Path(skimage.__file__).parent / "data"
    for name in ("chelsea.png", "coffee.png"):
        X = collection.embed_query(photographs / name)[None]
        [prediction] = fitted.predict(X, [""], [name])
        print(f"{name}: {'unknown' if prediction.unknown else prediction.label}")

    print("Label next:", *(Path(p.path).name for p in collection.suggest_labels(3)))
