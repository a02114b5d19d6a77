"""Images and a job of them."""

import shutil
from pathlib import Path

import pytest
from unit_job_checks import N_BROKEN, N_COPIES, N_IMAGES, planned, save

from nearsight.distributed import JobFolder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """60 images in 7 units: of these 3 are broken, and 5 have the content of one in another unit."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(N_IMAGES):
        save(folder / f"{seed:03}.png", seed)
    for number in range(N_BROKEN):
        (folder / f"{number * 20:03}-broken.png").write_bytes(b"no image")
    for number in range(N_COPIES):
        shutil.copy(folder / f"{number:03}.png", folder / f"{50 + number:03}.png")
    return folder


@pytest.fixture
def job(tmp_path: Path, photos: Path) -> JobFolder:
    return planned(tmp_path, [str(photos)])
