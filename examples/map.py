"""Lay out images on a map, and add others without moving any."""

import tempfile
from pathlib import Path

import conformal_clip_data
import numpy as np

from nearsight import Collection

textile = Path(conformal_clip_data.__file__).parent / "data/textile_images/simulated"

with tempfile.TemporaryDirectory() as folder:
    collection = Collection.create(Path(folder) / "collection")
    for kind in ("nominal", "global"):
        collection.add(sorted((textile / kind).glob("*.jpg"))[:25], metadata={"kind": kind})

    # method="umap" shows neighborhoods better, with: pip install 'nearsight[map]'
    first = collection.layout_2d(method="pca")
    print(f"{len(first.ids)} images laid out, trustworthiness {first.trustworthiness:.2f}")

    collection.add(sorted((textile / "local").glob("*.jpg"))[:10], metadata={"kind": "local"})
    then = collection.layout_2d()
    unmoved = np.array_equal(then.subset(first.ids).positions, first.positions)
    print(f"{then.n_new} placed later; nothing moved: {unmoved}")

    for kind in ("nominal", "global", "local"):
        part = then.subset([item.id for item in collection.items(f"kind = '{kind}'")])
        x, y = part.positions.mean(axis=0)
        print(f"{kind:8} around ({x:+.2f}, {y:+.2f})")
