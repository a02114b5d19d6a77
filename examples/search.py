"""Index pictures, and find those most similar to one of them, with and without a filter."""

import tempfile
from pathlib import Path

import skimage

from nearsight import Collection

pictures = Path(skimage.__file__).parent / "data"  # some twenty photographs and textures

with tempfile.TemporaryDirectory() as folder:
    collection = Collection.create(Path(folder) / "collection")
    report = collection.add(pictures, metadata={"source": "scikit-image"})
    print(f"{report.added} pictures added, {len(report.failed)} could not be read")

    for match in collection.search(pictures / "chelsea.png", k=3):
        print(f"{match.similarity:.3f}  {Path(match.path).name}")

    print("\nOnly among wide pictures:")
    for match in collection.search(pictures / "chelsea.png", k=3, where="width >= 500"):
        print(f"{match.similarity:.3f}  {Path(match.path).name}")
