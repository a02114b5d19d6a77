"""Images and a job of them; a Ray cluster, which starts once."""

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fake_jobs import install_fake_model
from ray_nodes import Nodes, Scene
from unit_job_checks import DEADLINE_S, N_BROKEN, N_COPIES, N_IMAGES, planned, save

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


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The fake model as a plugin of all processes, and a token without which nobody uses the cluster."""
    folder = tmp_path_factory.mktemp("scene")
    install_fake_model(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_JOBS", str(folder))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Within these, a loaded machine starts the head, and a process that imports Ray.
        for name in ("gcs_server_port_wait_time_s", "worker_register_timeout_seconds"):
            patch.setenv(f"RAY_{name}", str(DEADLINE_S))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, sys.path)]))
        yield Scene(folder)


@pytest.fixture(scope="session")
def nodes(scene: Scene) -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.stop()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch):
    """A server that speaks S3, with the bucket ``photos``."""
    if not is_installed():
        pytest.skip("the packages moto and s3fs are not installed")
    server = S3Server()
    server.make_bucket("photos")
    for name, value in {**VARIABLES, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    # Drivers that were opened for another server are used again.
    forget = fsspec.get_filesystem_class("s3").clear_instance_cache
    forget()
    yield server
    forget()
    server.stop()
