import io
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fake import DIM, FakeBackend

fastapi = pytest.importorskip("fastapi")
import uvicorn  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from nearsight.errors import UnknownModelError  # noqa: E402
from nearsight.server.app import create_app  # noqa: E402
from nearsight.server.main import Listener  # noqa: E402
from nearsight.server.model_pool import ModelSource  # noqa: E402
from nearsight.server.service import Service  # noqa: E402
from nearsight.services.server_settings import ServerSettings  # noqa: E402


class FakeTexts:
    """A text encoder: the vector of a text is that of an image of its characters."""

    shares_space = True

    def __init__(self, backend):
        self.spec = backend.spec

    def embed(self, texts):
        vectors = [np.random.default_rng(sum(text.encode())).standard_normal(DIM) for text in texts]
        return np.array([v / np.linalg.norm(v) for v in vectors], np.float32)

    def to_text_space(self, X):
        return X

    def to_image_space(self, queries):
        return queries


class ConseTexts(FakeTexts):
    shares_space = False


def no_texts():
    raise UnknownModelError("no text encoder")


def source(backend=None, texts=None):
    """A registered model: by default a tiny one without texts."""
    backend = backend or FakeBackend()
    load_texts = no_texts if texts is None else lambda: texts(backend)
    return ModelSource("onnx:/secret/place.onnx", lambda: backend.spec, lambda: backend, load_texts)


def sources():
    matryoshka = FakeBackend(2)
    matryoshka.spec = replace(matryoshka.spec, matryoshka_dims=(16, 32, 64))
    return {
        "default": source(),
        "clip": source(FakeBackend(1), FakeTexts),
        "conse": source(texts=ConseTexts),
        "short": source(matryoshka),
    }


def jpeg(seed=0, size=(64, 48)):
    """A small JPEG that only this seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="session", name="jpeg")
def _jpeg():
    return jpeg


@pytest.fixture(scope="session", name="source")
def _source():
    return source


@pytest.fixture(scope="session", name="fake_texts")
def _fake_texts():
    return FakeTexts


@pytest.fixture
def serve(tmp_path):
    """Return a client of a service that runs in this process; settings by name."""
    open_clients = []

    def start(models=None, **settings):
        settings = {"data": str(tmp_path / "data"), "n_threads": 2, **settings}
        service = Service(ServerSettings(**settings), models or sources())
        client = TestClient(
            create_app(service), base_url="http://127.0.0.1:8000", raise_server_exceptions=False
        )
        client.__enter__()
        client.service = service
        open_clients.append(client)
        return client

    yield start
    for client in open_clients:
        client.__exit__(None, None, None)


@contextmanager
def on_loopback(app):
    """Serve an application on a free port, in a thread; give its address."""
    server = Listener(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session", name="on_loopback")
def _on_loopback():
    return on_loopback


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a service on loopback that one module shares."""
    data = tmp_path_factory.mktemp("live") / "data"
    with on_loopback(create_app(Service(ServerSettings(data=str(data), n_threads=2), sources()))) as url:
        yield url


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a service that one module shares."""
    data = tmp_path_factory.mktemp("server") / "data"
    service = Service(ServerSettings(data=str(data), n_threads=2), sources())
    with TestClient(
        create_app(service), base_url="http://127.0.0.1:8000", raise_server_exceptions=False
    ) as client:
        client.service = service
        yield client
