import io
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from forked_jobs import forked_jobs
from PIL import Image


@pytest.fixture(scope="session")
def jpeg():
    """A small JPEG that only this seed gives."""

    def make(seed=0):
        file = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(file, "JPEG")
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def serve_on_loopback():
    """Serve an application on a free port, in a thread; give its address."""
    uvicorn = pytest.importorskip("uvicorn")
    from nearsight.server.main import Listener

    @contextmanager
    def serve(app):
        server = Listener(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()

    with forked_jobs():
        yield serve


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the service of `work` has its data; its root ``data`` is this directory."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def work(place, serve_on_loopback):
    """A client of a service whose jobs run in this process, with the collection ``many`` of 240 images.

    Half of them are added as ``new``, and are of other colors.
    """
    from nearsight import Client, Collection
    from nearsight.client import job_operations
    from nearsight.errors import NearsightError
    from nearsight.server.app import create_app
    from nearsight.server.errors import public_message
    from nearsight.server.jobs import JobRunner
    from nearsight.server.model_pool import ModelSource
    from nearsight.server.service import Service
    from nearsight.services import analysis_jobs, job_worker
    from nearsight.services.server_settings import ServerSettings

    from fake import FakeBackend

    async def run_here(self, job):
        def run():
            try:
                result = job_worker.KINDS[job.kind](job.args)
                self.on_done()
                self.table.finish(job.id, "done", result=result)
            except NearsightError as error:
                told = public_message(type(error).__name__, str(error))
                self.table.finish(job.id, "failed", error=told)

        await self._in_thread(run)
        await self._tell()

    folder = place / "images"
    for kind, low in (("known", 0), ("new", 128)):
        (folder / kind).mkdir(parents=True)
        for seed in range(120):
            pixels = np.random.default_rng(low + seed).integers(low, low + 128, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{seed}.png")
    backend = FakeBackend()
    collection = Collection.create(place / "collections" / "many", model=backend)
    collection.add(str(folder), metadata=lambda path: {"kind": Path(path).parent.name}, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobRunner, "_run_one", run_here)
        patch.setattr(job_operations, "POLL_S", 0.02)
        patch.setattr(
            analysis_jobs, "_collection", lambda args: Collection.open(args["directory"], model=FakeBackend())
        )
        sources = {"default": ModelSource("fake", lambda: backend.spec, lambda: backend, lambda: None)}
        settings = ServerSettings(data=str(place), n_threads=1, root=(f"data={place}",))
        service = Service(settings, sources, cache_dir=place / "cache")
        with serve_on_loopback(create_app(service)) as url, Client(url) as client:
            client.url, client.service = url, service
            yield client


@pytest.fixture
def many(work):
    """The collection of 240 images, of the service."""
    return work.collection("many")


@pytest.fixture
def stored(work, place):
    """The same collection, opened here."""
    from nearsight import Collection

    from fake import FakeBackend

    return Collection.open(place / "collections" / "many", model=FakeBackend())
