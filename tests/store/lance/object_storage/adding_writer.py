"""Adds images of a folder to a collection, one `add` an image: python adding_writer.py URI FOLDER."""

import sys
from pathlib import Path

from nearsight import Collection

from fake import FakeBackend


def main(uri, folder):
    collection = Collection.create(uri, model=FakeBackend())
    for path in sorted(Path(folder).iterdir()):
        collection.add(path)
        print(path.name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
