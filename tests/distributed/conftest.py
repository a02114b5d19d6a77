"""Images and a job of them."""

import shutil
from pathlib import Path

import pytest
from unit_job_checks import N_BROKEN, N_COPIES, N_IMAGES, planned, save

import nearsight.distributed.worker as worker_module
from nearsight.distributed import JobFolder, Worker

from fake import FakeBackend
from s3_server import VARIABLES, S3Server, is_installed


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


@pytest.fixture
def fake_worker(monkeypatch: pytest.MonkeyPatch):
    """Work on a job in this process."""
    monkeypatch.setattr(worker_module, "load_model", lambda *args, **kwargs: FakeBackend())
    return lambda job, **options: Worker(job, n_threads=1, progress=False, **options).run()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch):
    """A server that speaks S3, with the bucket ``photos``."""
    if not is_installed():
        pytest.skip("the packages moto and s3fs are not installed")
    server = S3Server()
    server.make_bucket("photos")
    for name, value in {**VARIABLES, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()
