"""Feature maps and small images that are kept in files."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from nearsight.errors import StorageError
from nearsight.models import load_model
from nearsight.models.cache import user_cache_dir
from nearsight.models.preprocess import preprocess
from nearsight.models.registry import find_model
from nearsight.training.augmentation import AUGMENTATIONS, ViewsBackend
from nearsight.training.backbone import depth, sources
from nearsight.training.backbone.map_features import features_of_maps
from nearsight.training.backbone.network import EfficientNetLite
from nearsight.training.backbone.optimization import vectors
from nearsight.training.network_features import feature_network

MODEL = "efficientnet-lite0"


@pytest.fixture
def files(tmp_path):
    folder, rng = tmp_path / "images", np.random.default_rng(0)
    folder.mkdir()
    for number in range(5):
        pixels = rng.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(pixels).resize((260, 240), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return [str(path) for path in sorted(folder.iterdir())]


def options(folder, name):
    return depth.Options(name, "softmax", "photos", 2, folder)


def test_the_last_block_on_stored_maps_gives_the_models_vectors(files, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_N_AT_ONCE", 2)
    entry, model = find_model(MODEL), load_model(MODEL)
    source = depth._source(entry, files, options(tmp_path, "last"))
    tail = EfficientNetLite(entry.trainable, len(entry.trainable.blocks) - 1)
    found = vectors(tail, pickle.loads(pickle.dumps(source)), np.arange(5), "cpu")
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    expected = model.embed([model.prepare(Image.open(path)) for path in files])
    # Maps are kept in float16.
    np.testing.assert_allclose(found, expected, atol=1e-3)
    mirrored = source.views(np.arange(5), np.ones(5, int), 0)
    assert np.abs(mirrored - source.plain(np.arange(5))).max() > 0.1
    # Those that are counted are not computed again.
    maps = np.load(tmp_path / "maps.npy")
    maps[0], maps[2:] = 7, 0
    np.save(tmp_path / "maps.npy", maps)
    (tmp_path / "maps.json").write_text(json.dumps({"images": 2}))
    again = depth._source(entry, files, options(tmp_path, "last"))
    assert (again.plain(np.array([0])) == 7).all()
    np.testing.assert_array_equal(again.plain(np.arange(1, 5)), source.plain(np.arange(1, 5)))


def test_features_by_trained_layers_need_no_image(files, tmp_path):
    entry, network = find_model(MODEL), feature_network(MODEL, user_cache_dir())
    source = depth._source(entry, files, options(tmp_path, "last"))
    backend = ViewsBackend(network.backend(), AUGMENTATIONS["photos"], 2)
    both = backend.embed([backend.prepare(Image.open(path)) for path in files])
    expected = np.split(both, 2, axis=1)
    n_vector, n_last = network.base.dim, 2 * len(entry.trainable.state()["_blocks.15._project_conv.weight"])
    before = [view.copy() for view in expected]
    for view in before:
        view[:, :n_vector], view[:, -n_last:] = np.nan, np.nan
    tail = EfficientNetLite(entry.trainable, len(entry.trainable.blocks) - 1)
    found = features_of_maps(tail, source, network, before, "cpu")
    kept = slice(n_vector, -n_last)
    for new, old in zip(found, expected, strict=True):
        np.testing.assert_array_equal(new[:, kept], old[:, kept])
        # Maps are kept in float16.
        np.testing.assert_allclose(new, old, atol=2e-3 * np.abs(old).max())
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_each_epoch_draws_other_views_of_small_images(files, tmp_path):
    spec = find_model(MODEL).spec
    source = sources.stored_images(tmp_path, files, AUGMENTATIONS["photos"], spec, progress=False)
    source = pickle.loads(pickle.dumps(source))
    rows = np.array([3, 1])
    expected = np.stack([preprocess(Image.open(files[row]), spec) for row in rows])
    np.testing.assert_array_equal(source.plain(rows), expected)
    first = source.views(rows, np.zeros(2, int), 0)
    np.testing.assert_array_equal(first, source.views(rows, np.zeros(2, int), 0))
    assert np.abs(first - source.views(rows, np.zeros(2, int), 1)).max() > 0.1
    large = Image.open(files[0]).resize((900, 700))
    large.save(files[0])
    again = sources.stored_images(tmp_path / "..", files[:1], AUGMENTATIONS["photos"], spec, progress=False)
    assert min(again.image(0).size) == round(1.4 * spec.resize_px)


def test_an_image_that_vanishes_stops_the_training_with_its_name(files, tmp_path):
    entry = replace(find_model(MODEL))
    with pytest.raises(StorageError, match="gone.png could be read when the training began"):
        depth._source(entry, [*files, str(tmp_path / "gone.png")], options(tmp_path, "last"))
    with pytest.raises(StorageError, match="gone.png could be read when the training began"):
        depth._source(entry, [*files, str(tmp_path / "gone.png")], options(tmp_path, "all"))
