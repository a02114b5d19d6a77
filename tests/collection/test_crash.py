"""What is acknowledged survives kill -9, full disks and other processes."""

import os
import random
import shutil
import subprocess
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from preloaded import Piped

from nearsight import Collection
from nearsight.errors import StorageError

from fake import FakeBackend

N_IMAGES = 60

# Indexes a folder in batches of four, and says on stdout which rows each finished write holds.
INDEX = """
    import sys
    from fake import FakeBackend
    from nearsight import Collection
    from nearsight.collection import writer

    writer._ROWS_PER_WRITE = 4
    write = writer.Writer.write

    def acknowledge(self, batch):
        ids = list(batch.rows)
        write(self, batch)
        print(*ids, flush=True)

    writer.Writer.write = acknowledge
    report = Collection.create(sys.argv[1], model=FakeBackend()).add(sys.argv[2], n_threads=2)
    print("done", report.embedded, flush=True)
"""


def start(collection: Path, photos: Path) -> Piped:
    return Piped(textwrap.dedent(INDEX), collection, photos)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(N_IMAGES):
        pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed:03}.png")
    return folder


def check_whole(collection: Collection, ids: set[str]) -> None:
    """Every row has all it should have, and the ids are there once each."""
    items = list(collection.items())
    assert len({item.id for item in items}) == len(items)
    assert ids <= {item.id for item in items}
    vectors = collection.vectors([item.id for item in items])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert len(collection.thumbnails([item.id for item in items])) == len(items)


@pytest.mark.slow
def test_kill_9_loses_no_acknowledged_row(tmp_path: Path, photos: Path) -> None:
    rng = random.Random(7)
    directory = tmp_path / "collection"
    acknowledged: set[str] = set()
    n_kills = 0
    for _ in range(6):
        until = rng.randrange(1, 5)
        with start(directory, photos) as process:
            # What was still in the pipe was acknowledged too.
            for n, line in enumerate(process.stdout, start=1):
                if line.startswith("done"):
                    break
                acknowledged.update(line.split())
                if n == until:
                    time.sleep(rng.random() * 0.02)
                    process.kill()
                    n_kills += 1
        check_whole(Collection.open(directory, model=FakeBackend()), acknowledged)
    assert n_kills >= 2
    collection = Collection.open(directory, model=FakeBackend())
    n_before = len(collection)
    report = collection.add(photos)
    assert report.embedded == N_IMAGES - n_before
    assert (report.failed, len(collection)) == ([], N_IMAGES)
    check_whole(collection, acknowledged)


@pytest.mark.slow
def test_two_processes_index_the_same_folder_while_a_third_searches(tmp_path: Path, photos: Path) -> None:
    collection = Collection.create(tmp_path / "collection", model=FakeBackend())
    processes = [start(collection.directory, photos) for _ in range(2)]
    n_searches = 0
    while any(process.poll() is None for process in processes):
        hits = collection.search(photos / "000.png", k=5)
        assert len({hit.id for hit in hits}) == len(hits)
        n_searches += 1
    assert n_searches > 0
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    embedded = [int(text.split()[-1]) for text in said]
    assert sum(embedded) == N_IMAGES, "an image was written by both or by none"
    check_whole(collection, set())
    assert len(collection) == N_IMAGES
    assert collection.add(photos).unchanged == N_IMAGES


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A disk of 3 MB: a tmpfs where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_stops_the_job_and_keeps_what_was_saved(
    small_disk: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearsight.collection.writer._ROWS_PER_WRITE", 4)
    ballast = small_disk / "ballast"
    collection = Collection.create(small_disk / "collection", model=FakeBackend())
    collection.add(photos / "000.png")
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
    ballast.write_bytes(bytes(free - 60_000))
    with pytest.raises(StorageError, match="same command") as caught:
        collection.add(photos, n_threads=1)
    assert "space" in str(caught.value)
    saved = {item.id for item in collection.items()}
    assert 1 <= len(saved) < N_IMAGES
    check_whole(collection, saved)
    ballast.unlink()
    report = collection.add(photos)
    assert (report.embedded, len(collection)) == (N_IMAGES - len(saved), N_IMAGES)
    check_whole(collection, saved)
