"""Find near-duplicates, the image to keep of each group, and leaks between two folders."""

import tempfile
from pathlib import Path

import skimage
from PIL import Image

from nearsight import Collection

shipped = Path(skimage.__file__).parent / "data"  # some twenty photographs and textures
cat = Image.open(shipped / "chelsea.png")

with tempfile.TemporaryDirectory() as folder:
    edited = Path(folder) / "edited"
    edited.mkdir()
    cat.resize((225, 150)).save(edited / "small.jpg", quality=30)
    cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(edited / "mirrored.jpg")
    cat.rotate(20, expand=True).save(edited / "turned.jpg")

    collection = Collection.create(Path(folder) / "collection")
    collection.add([shipped, edited])

    for group in collection.find_duplicates().groups:
        print(f"keep {Path(group.keep.path).name}: {group.why}")
        for path in group.redundant:
            print(f"     {Path(path).name} is redundant")

    duplicates = collection.find_leaks(f"path LIKE '{shipped}/%'", f"path LIKE '{edited}/%'")
    for leak in duplicates.leaks:
        print(
            f"{Path(leak.second.path).name} is {Path(leak.first.path).name}, agreement {leak.agreement:.2f}"
        )
