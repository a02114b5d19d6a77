"""An upgrade that compares first."""

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.artifacts import write_artifact
from nearsight.errors import ParityError
from nearsight.services import upgrade as service
from nearsight.services.upgrade import upgrade

from fake import FakeBackend


class Blind(FakeBackend):
    """Sees noise, the same each time."""

    def embed(self, prepared):
        seeds = [int(abs(float(p.sum())) * 1e6) for p in prepared]
        return np.stack([np.random.default_rng(seed).standard_normal(64) for seed in seeds]).astype(
            np.float32
        )


@pytest.fixture
def models(monkeypatch):
    models = {"fake": FakeBackend(0), "other": FakeBackend(1), "blind": Blind(2)}
    monkeypatch.setattr(service, "load_model", lambda name, **_: models[name])
    return models


@pytest.fixture
def collection(tmp_path, models):
    folder, rng = tmp_path / "images", np.random.default_rng(0)
    folder.mkdir()
    y, x = np.mgrid[0:24, 0:24]
    for name, wave in (("level", y), ("upright", x), ("slanting", x + y)):
        for number in range(20):
            pixels = 128 + 100 * np.sin(wave / 3 + rng.uniform(0, 0.5)) + rng.normal(0, 20, (24, 24))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{name} {number}.png")
    collection = Collection.create(tmp_path / "c", model=models["fake"], cache_dir=tmp_path / "cache")
    collection.add(folder, progress=False)
    return collection


def labels(collection):
    return {item.id: item.path.rpartition("/")[2].split()[0] for item in collection.items()}


def test_a_sample_foretells_and_changes_nothing(collection, monkeypatch):
    monkeypatch.setattr(service, "_MIN_SAMPLED", 30)
    report = upgrade(collection, "other", labels=labels(collection), only_sample=True, progress=False)
    assert (report.n_images, report.n_embedded, report.switched) == (60, 30, False)
    assert report.comparison.n_images == 30
    assert 0 < report.comparison.overlap.value <= 1
    assert report.expected_seconds > 0
    assert report.new_bytes == 60 * 64 * 4
    assert Collection.open(collection.directory).fingerprint == collection.fingerprint
    # What the sample embedded is not embedded again.
    whole = upgrade(collection, "other", labels=labels(collection), progress=False)
    assert (whole.n_embedded, whole.switched) == (30, True)
    assert whole.comparison.recall is not None


def test_a_model_that_is_worse_by_labels_is_refused(collection, models):
    with pytest.raises(ParityError, match=r"blind is worse on your labels: recall@1 -0\.[0-9]+.*--force"):
        upgrade(collection, "blind", labels=labels(collection), progress=False)
    assert Collection.open(collection.directory).fingerprint == models["fake"].spec.fingerprint
    report = upgrade(collection, "blind", labels=labels(collection), allow_worse=True, progress=False)
    assert report.switched
    assert report.comparison.is_worse


def test_what_was_fitted_on_the_old_vectors_is_listed(collection, models):

    for name, backend in (("old.npz", models["fake"]), ("new.npz", models["other"])):
        facts = {"fingerprint": backend.spec.fingerprint.to_dict()}
        write_artifact(collection.directory / name, "test", 1, facts, {"x": np.zeros(1)})
    report = upgrade(collection, "other", progress=False)
    assert [path.name for path in report.stale] == ["old.npz"]
    assert report.comparison.recall is None
