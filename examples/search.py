"""Index images, and search for the most similar ones, with and without a filter."""

import tempfile
from pathlib import Path

import skimage

from nearsight import Collection

images = Path(skimage.__file__).parent / "data"  # some twenty photographs and textures

with tempfile.TemporaryDirectory() as folder:
    collection = Collection.create(Path(folder) / "collection")
    report = collection.add(images, metadata={"source": "scikit-image"})
    print(f"{report.added} images added, {len(report.failed)} could not be read")

    for match in collection.search(images / "chelsea.png", k=3):
        print(f"{match.similarity:.3f}  {Path(match.path).name}")

    print("\nOnly among wide images:")
    for match in collection.search(images / "chelsea.png", k=3, where="width >= 500"):
        print(f"{match.similarity:.3f}  {Path(match.path).name}")
