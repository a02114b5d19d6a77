"""Duplicates found with worker processes: the same to the bit as in threads."""

import pytest

from nearsight import Collection
from nearsight.analyses import gray_thumbnails, kept_image, pair_verification
from nearsight.parallel import WorkerPool

from fake import FakeBackend
from sample_images import encoded, page, rescanned


@pytest.mark.slow
def test_processes_find_the_duplicates_that_threads_find(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    for number in range(3):
        for name, image in (("page", page(number)), ("scan", rescanned(page(number)))):
            (tmp_path / "images" / f"{name}{number}.png").write_bytes(encoded(image, "PNG"))
    collection = Collection.create(tmp_path / "collection", model=FakeBackend())
    collection.add(tmp_path / "images")
    expected = collection.find_duplicates(min_similarity=-1, n_threads=2)
    assert len(expected.groups) >= 3
    for module, name in (
        (gray_thumbnails, "_MIN_IMAGES_FOR_PROCESSES"),
        (gray_thumbnails, "_MIN_IMAGES_FOR_STARTED"),
        (kept_image, "_MIN_IMAGES_FOR_PROCESSES"),
        (kept_image, "_MIN_PAIRS_FOR_PROCESSES"),
        (pair_verification, "_MIN_PAIRS_FOR_PROCESSES"),
        (pair_verification, "_MIN_PAIRS_FOR_STARTED"),
    ):
        monkeypatch.setattr(module, name, 1)
    mapped, original = [], WorkerPool.map

    def map_in_processes(self, function, items, **options):
        mapped.append((function.__name__, options["in_processes"]))
        return original(self, function, items, **options)

    monkeypatch.setattr(WorkerPool, "map", map_in_processes)
    assert collection.find_duplicates(min_similarity=-1, n_threads=2) == expected
    names = {
        "gray_thumbnail",
        "register_part",
        "thumbnail_ground_share",
        "_thumbnail",
        "_quality",
        "differences",
    }
    assert names <= {name for name, in_processes in mapped if in_processes}
