"""Training from files to a model that is used by its name."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nearsight import Embedder, processor
from nearsight.errors import InvalidParameterError, MissingExtraError, ParityError
from nearsight.evaluation import Estimate, PairedDifference, read_labeled_folder
from nearsight.models import load_model
from nearsight.models.dense_features import load_features
from nearsight.training import (
    Figure,
    content_digest,
    feature_embedder,
    learned_images,
    require_free,
    train,
    write_model,
)
from nearsight.training.judgement import Quality
from nearsight.training.network_features import feature_network
from nearsight.training.selection import (
    DimensionResult,
    Setting,
    SettingResult,
    TrainingData,
    best_dim,
    choose_map,
    chosen,
)
from nearsight.training.split import draws

SIDE, LAYERS = 32, ("sum", "last")


def groups_of(folder):
    return np.arange(len(folder.paths))


@pytest.fixture(scope="module")
def trained(small_network, stripes):
    folder = read_labeled_folder(stripes)
    return train(folder, groups_of(folder), model=small_network, progress=False)


def test_features_are_the_vector_then_mean_and_spread_of_inner_layers(small_network, tmp_path):
    network = feature_network(small_network, tmp_path)
    assert network.layers == LAYERS
    assert network.dim == 16 + 2 * (8 + 12)
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    backend, model = network.backend(), load_model(small_network)
    [features] = backend.embed([backend.prepare(image)])
    maps = load_features(small_network, LAYERS).maps(model.prepare(image))
    expected = [model.embed([model.prepare(image)])[0]]
    for layer in maps:
        expected += [layer.mean(axis=(0, 1)), layer.std(axis=(0, 1))]
    np.testing.assert_allclose(features, np.concatenate(expected), atol=1e-5)


def test_a_trained_model_beats_the_pretrained_one_on_images_it_never_saw(trained):
    figure = trained.figures["recall@1"]
    assert trained.is_better
    assert figure.difference.low > 0.05
    assert trained.n_test == 27
    assert trained.n_fitted == 144
    assert trained.verdict.startswith("The trained model is better: recall@1")
    assert trained.unseen is not None
    assert "Classes that were held out: recall@1" in trained.unseen_sentence


def test_with_few_classes_it_says_that_others_were_not_tested(small_network, stripes, tmp_path):
    folder = read_labeled_folder(stripes)
    few = folder.without({p for p, name in zip(folder.paths, folder.labels, strict=True) if name > "class 4"})
    result = train(few, groups_of(few), model=small_network, n_views=1, progress=False)
    assert result.n_classes == 5
    assert result.unseen is None
    assert result.setting.setting.stretch == 0
    write_model(result, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "what the model does to other classes is not known" in card
    assert json.loads((tmp_path / "model" / "training.json").read_text())["unseen_classes"] is None
    alone = train(few, groups_of(few), model=small_network, n_views=1, known_only=True, progress=False)
    assert len(alone.settings) == 24 > len(result.settings)
    assert "Classes that were not learned did not count" in alone.unseen_sentence
    assert alone.to_dict()["known_only"] is True


def test_labels_that_mean_nothing_give_nothing_better(small_network, stripes):
    folder = read_labeled_folder(stripes)
    rng = np.random.default_rng(0)
    shuffled = replace(folder, labels=rng.permutation(folder.labels).tolist())
    result = train(shuffled, groups_of(folder), model=small_network, n_views=1, progress=False)
    assert not result.is_better
    assert "not proven better" in result.verdict
    assert f"Keep {small_network}" in result.verdict
    more = Figure(
        Estimate(0.5, 0.4, 0.6, 9), Estimate(0.7, 0.6, 0.8, 9), PairedDifference(0.2, 0.1, 0.3, 0.001, 0.1, 5)
    )
    told = replace(result, figures={**result.figures, "map@10": more}).verdict
    assert "not proven better in the first match" in told
    assert "mAP@10 0.700 instead of 0.500 (+0.200, +0.100 to +0.300)" in told
    assert "worse" not in told
    less = Figure(more.trained, more.pretrained, PairedDifference(-0.2, -0.3, -0.1, 0.001, 0.1, 5))
    told = replace(result, figures={**result.figures, "recall@5": less}).verdict
    assert told.endswith("It is worse in recall@5 0.500 instead of 0.700 (-0.200, -0.300 to -0.100).")
    assert result.to_dict()["better_than_pretrained"] is False


def test_the_written_model_is_used_by_its_name(trained, stripes, tmp_path):
    write_model(trained, tmp_path / "model", {"note.txt": "hello", "dimensions.svg": "<svg/>"})
    name = f"dir:{tmp_path / 'model'}"
    paths = [str(path) for path in sorted(stripes.rglob("*.png"))[:5]]
    vectors = Embedder(name, progress=False).embed(paths).vectors
    features = Embedder(trained.network.backend(), progress=False).embed(paths).vectors
    expected = trained.map.apply(features)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-4)
    spec = load_model(name).spec
    assert (spec.license, spec.dim, spec.id) == ("MIT", trained.dim, name)
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert record["figures"]["recall@1"]["trained"] == round(trained.figures["recall@1"].trained.value, 5)
    card = (tmp_path / "model" / "README.md").read_text()
    assert trained.verdict in card
    assert "\n\n![Recall@1 by dimensions](dimensions.svg)\n\n" in card
    assert (tmp_path / "model" / "note.txt").read_text() == "hello"
    # The same training gives the same model, and replaces it.
    digest = spec.fingerprint.digest
    write_model(trained, tmp_path / "model")
    assert load_model(name).spec.fingerprint.digest == digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_folder_with_something_else_stays_as_it_is(trained, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(InvalidParameterError, match="is not empty and holds no trained model"):
        write_model(trained, tmp_path)
    with pytest.raises(InvalidParameterError, match="is a file"):
        require_free(tmp_path / "photo.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_place_that_cannot_be_written_is_refused_before_the_training(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidParameterError, match=r"file is a file; choose a directory"):
        require_free(tmp_path / "file" / "sub" / "model")
    # Whoever runs the tests may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(InvalidParameterError, match=f"{tmp_path} is not writable; choose a directory"):
        require_free(tmp_path / "new" / "model")
    require_free(tmp_path.parent / "model")


def test_a_network_that_computes_something_else_is_not_written(trained, tmp_path):
    wrong = replace(trained.map, components=trained.map.components[::-1])
    broken = replace(trained, network=_Wrong(trained.network, wrong))
    with pytest.raises(ParityError, match="differ by"):
        write_model(broken, tmp_path / "model")
    assert not (tmp_path / "model").exists()


class _Wrong:
    def __init__(self, network, map):
        self.network, self.map, self.layers = network, map, network.layers

    def backend(self):
        return self.network.backend()

    def with_map(self, map):
        return self.network.with_map(self.map)


def test_images_of_a_test_folder_are_never_learned_from(small_network, stripes, tmp_path):
    files = sorted(stripes.rglob("*.png"))
    for path in files:
        split = "test" if int(path.stem) >= 12 else "train"
        target = tmp_path / split / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (tmp_path / "train" / "class 0" / "broken.png").write_bytes(b"no image")
    folder = read_labeled_folder(tmp_path)
    groups = groups_of(folder)
    # One image of the training set shows the same thing as one of the test set.
    is_test = np.array([split == "test" for split in folder.splits])
    twin = int(np.flatnonzero(~is_test & (np.array(folder.labels) == "class 1"))[0])
    groups[twin] = groups[np.flatnonzero(is_test)[0]]
    twin_content = content_digest(folder.paths[twin])
    result = train(folder, groups, model=small_network, n_views=1, dim=6, progress=False)
    assert result.has_test_split
    assert (result.n_fitted, result.n_test) == (9 * 12 - 1, 9 * 4)
    assert all(figure.pretrained.n == 9 * 4 for figure in result.figures.values())
    assert result.dim == 6
    assert [Path(failure.path).name for failure in result.failed] == ["broken.png"]
    write_model(result, tmp_path / "model")
    learned = [content_digest(str(path)) in learned_images(tmp_path / "model") for path in files]
    assert learned == [int(path.stem) < 12 and content_digest(str(path)) != twin_content for path in files]


def test_files_that_vanish_meanwhile_cost_nothing(small_network, stripes, tmp_path, monkeypatch):
    shutil.copytree(stripes, tmp_path / "images")
    folder = read_labeled_folder(tmp_path / "images")
    before = train(folder, groups_of(folder), model=small_network, n_views=1, progress=False)
    embedder = feature_embedder(small_network, n_views=1)
    embedder.views(folder.paths, [False] * len(folder.paths))
    gone, *_ = folder.paths

    def choose_last(*args, **options):
        shutil.rmtree(tmp_path / "images")
        return choose_map(*args, **options)

    monkeypatch.setattr(sys.modules["nearsight.training.train"], "choose_map", choose_last)
    again = train(
        folder, groups_of(folder), model=small_network, n_views=1, embedder=embedder, progress=False
    )
    assert (again.data_sha256, again.figures) == (before.data_sha256, before.figures)
    # One that is gone before is left out, as any that cannot be read.
    shutil.copytree(stripes, tmp_path / "images")
    Path(gone).unlink()
    rest = train(folder, groups_of(folder), model=small_network, n_views=1, embedder=embedder, progress=False)
    assert [failure.path for failure in rest.failed] == [gone]
    assert rest.n_fitted == before.n_fitted - 1


def test_settings_are_the_same_on_any_number_of_cores(monkeypatch):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(9), 12)
    views = [np.eye(9, 40)[y] + rng.normal(0, 0.6, (len(y), 40)) for _ in range(2)]
    data = TrainingData([view.astype(np.float32) for view in views], 24, y, np.arange(len(y)))
    found = []
    for n_cores in (1, 8):
        monkeypatch.setattr(processor, "n_cores", lambda n=n_cores: n)
        fit = choose_map(data, list(draws(data.y, data.groups)), progress=False)
        assert len({result.setting for result in fit.settings}) == 24
        found.append((fit, fit.map(data).apply(views[0])))
    (alone, mapped), (together, others) = found
    assert alone == together
    np.testing.assert_allclose(mapped, others, rtol=1e-4, atol=1e-4)


def test_vectors_keep_what_few_images_of_few_classes_do_not_show():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(5), 6)
    view = (np.eye(5, 40)[y] + rng.normal(0, 0.3, (len(y), 40))).astype(np.float32)
    data = TrainingData([view], 36, y, np.arange(len(y)))
    fit = choose_map(data, list(draws(data.y, data.groups)), progress=False)
    assert fit.dim in (36, 40)
    assert len(fit.map(data).components) == fit.dim
    alone = choose_map(data, list(draws(data.y, data.groups)), known_only=True, progress=False)
    assert alone.dimensions[-1].dim < len(y)


def quality(seen, unseen_low, wide_high=0.01):
    """Return a quality whose differences to the pretrained model have these ends."""
    unseen = None if unseen_low is None else Estimate(unseen_low + 0.01, unseen_low, unseen_low + 0.02, 100)
    return Quality(
        Estimate(seen, seen - 0.05, seen + 0.05, 100),
        Estimate(wide_high - 0.01, wide_high - 0.02, wide_high, 100),
        unseen,
    )


def test_a_setting_that_costs_unseen_classes_or_recall_at_5_is_not_chosen():
    greedy = SettingResult(Setting(3.0, False, 0.3), quality(0.95, -0.2))
    narrow = SettingResult(Setting(1.0, True, 0.3), quality(0.95, 0.0, -0.01))
    careful = SettingResult(Setting(1.0, False, 0.3), quality(0.9, 0.0))
    equal = SettingResult(Setting(3.0, True, 0.3), quality(0.9, 0.0))
    assert chosen([greedy, narrow, equal, careful]) is careful
    assert chosen([greedy, narrow]) is narrow
    # What nobody has tested on other classes is held back, however good it is for those that were learned.
    untested = [SettingResult(result.setting, quality(0.95, None)) for result in (greedy, careful)]
    known = [replace(result, quality=replace(result.quality, known_only=True)) for result in untested]
    least = SettingResult(Setting(0.0, False, 0.6), quality(0.7, None))
    assert chosen([*untested, least]) is least
    assert chosen([*known, least]) is known[1]
    worse = replace(least, quality=quality(0.7, None, -0.01))
    assert chosen([*untested, worse]) is worse


def test_a_dimension_that_costs_unseen_classes_or_recall_at_5_is_not_chosen():
    # 64 is not proven worse than the pretrained model, but worse than the longest.
    costs = {16: (-0.1, 0.03), 32: (0.0, -0.01), 64: (0.0, 0.01), 128: (0.0, 0.025), 256: (0.0, 0.03)}
    curve = [DimensionResult(dim, quality(0.9, *of_dim)) for dim, of_dim in costs.items()]
    assert best_dim(curve) == 128
    assert best_dim(curve[:1]) == 16
    assert best_dim([DimensionResult(dim, quality(0.9, None)) for dim in costs]) == 256
    known = replace(quality(0.9, None), known_only=True)
    assert best_dim([DimensionResult(dim, known) for dim in costs]) == 16


def test_too_few_images_are_refused(small_network, stripes, tmp_path):
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
        for image in range(2):
            source = stripes / f"class {number}" / f"{image}.png"
            (tmp_path / str(number) / source.name).write_bytes(source.read_bytes())
    folder = read_labeled_folder(tmp_path)
    with pytest.raises(InvalidParameterError, match="training needs two classes of five different images"):
        train(folder, groups_of(folder), model=small_network, progress=False)
    with pytest.raises(InvalidParameterError, match="n_views is 0"):
        train(folder, groups_of(folder), model=small_network, n_views=0)


@pytest.mark.parametrize("seed", ["0", -1, np.random.default_rng()])
def test_a_seed_that_is_none_is_refused_before_anything_is_embedded(small_network, stripes, seed):
    folder = read_labeled_folder(stripes)
    with pytest.raises(InvalidParameterError, match="random_state is .*must be .*at least 0"):
        train(folder, groups_of(folder), model=small_network, random_state=seed)


def test_pairs_leave_out_whole_things(small_network, stripes):
    folder = read_labeled_folder(stripes)
    # Two images of one class are a thing; of those of a class, none is told apart from the others.
    things = [
        f"{label} {int(Path(path).stem) // 2}"
        for path, label in zip(folder.paths, folder.labels, strict=True)
    ]
    pairs = replace(folder, labels=things, holds_pairs=True)
    result = train(pairs, groups_of(pairs), model=small_network, n_views=1, progress=False)
    assert set(result.figures) == {"recall@1", "recall@5", "map@10"}
    assert result.n_test == 2 * round(0.2 * 72)
    assert result.test_split == "a fifth of the things"
    assert result.unseen_sentence.startswith("Things that were held out: recall@1")
    assert result.depth == "head"
    assert result.layers_sentence == ""
    with pytest.raises(InvalidParameterError, match="known_only was given with pairs"):
        train(pairs, groups_of(pairs), model=small_network, known_only=True)


def test_layers_that_cannot_be_trained_are_refused_at_once(small_network, monkeypatch):
    with pytest.raises(
        InvalidParameterError, match="layers of onnx:.* cannot be trained; use the depth head"
    ):
        train(None, None, model=small_network, depth="last")
    with pytest.raises(
        InvalidParameterError, match="depth is 'deep'; it must be one of auto, head, last, all"
    ):
        train(None, None, depth="deep")
    with pytest.raises(InvalidParameterError, match="the loss is 'triplet'"):
        train(None, None, loss="triplet")
    with pytest.raises(
        InvalidParameterError, match=r"is several networks.* Train on one of them, such as eff"
    ):
        train(None, None, model="efficientnet-lite0+lite2")
    monkeypatch.setattr(sys.modules["nearsight.training.train"], "_has_torch", lambda: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'nearsight\[train\]'"):
        train(None, None, depth="all")
