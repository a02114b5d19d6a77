"""What the tests of jobs share: images in units, and whether each came into the collection once."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from preloaded import Preloaded

from nearsight import Collection
from nearsight.distributed import JobFolder, failures, plan
from nearsight.images import find

from fake import FakeBackend

UNIT = 10
N_IMAGES, N_BROKEN, N_COPIES = 60, 3, 5
#: For whatever a process does in a test: a loaded machine may take minutes to start one of Ray.
DEADLINE_S = 900


def save(path: Path, seed: int, side: int = 24) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def planned(
    tmp_path: Path, inputs: list[str], unit_images: int | None = UNIT, *, place: str = "", uri: str = ""
) -> JobFolder:
    folder, uri = JobFolder(place or tmp_path / "job"), uri or str(tmp_path / "collection")
    plan(folder, inputs, uri, lambda: Collection.create(uri, model=FakeBackend()), unit_images=unit_images)
    return folder


def require_each_once(job: JobFolder, photos: Path) -> None:
    """Every image has one row that names all of its files, except those that cannot be read."""
    collection = Collection.open(job.job.collection)
    items = list(collection.items())
    sources = {source.path for source in find(str(photos))}
    failed = {failure.path for failure in failures(job)}
    paths = [path for item in items for path in item.paths]
    assert len({item.id for item in items}) == len(items) == len(collection)
    assert sorted(paths) == sorted(sources - failed)
    vectors = collection.vectors([item.id for item in items])
    expected = FakeBackend()
    for item, vector in zip(items, vectors, strict=True):
        image = Image.open(item.path).convert("RGB")
        assert np.allclose(vector, expected.embed([expected.prepare(image)])[0], atol=1e-5)


def wait_for(condition: Callable[[], object], process: Preloaded) -> None:
    """Wait until something holds, while a process runs."""

    def holds() -> bool:
        if condition():
            return True
        assert process.poll() is None, "it ended before that"
        return False

    wait_until(holds)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s"
        time.sleep(0.02)
