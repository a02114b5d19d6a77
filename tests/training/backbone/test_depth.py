"""Layers are trained, judged, written as one network, and used by its name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nearsight import Embedder  # noqa: E402
from nearsight.evaluation import Estimate, read_labeled_folder  # noqa: E402
from nearsight.models import load_model  # noqa: E402
from nearsight.reports.training import training_charts  # noqa: E402
from nearsight.training import train, write_model  # noqa: E402
from nearsight.training.backbone import depth  # noqa: E402


@pytest.fixture
def few_stripes(stripes, tmp_path):
    """Return eight classes of six images."""
    for number in range(8):
        folder = tmp_path / "few" / f"class {number}"
        folder.mkdir(parents=True)
        for image in range(6):
            shutil.copy(stripes / folder.name / f"{image}.png", folder)
    return read_labeled_folder(tmp_path / "few")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "loss"), [("last", "softmax"), ("all", "proxy-anchor")])
def test_layers_are_trained_written_and_used(few_stripes, tmp_path, monkeypatch, name, loss):
    # So few images prove nothing.
    monkeypatch.setattr(depth, "is_better", lambda new, old: True)
    monkeypatch.setattr("nearsight.training.judgement.MAX_LOSS", 1.0)
    monkeypatch.setattr("nearsight.training.selection.MAX_LOSS", 1.0)
    monkeypatch.setattr("nearsight.training.backbone.validation.MAX_LOSS", 1.0)
    # Enough steps to get anywhere.
    monkeypatch.setitem(depth.SCHEDULES, name, replace(depth.SCHEDULES[name], batch_size=4))
    groups = np.arange(len(few_stripes.paths))

    def trained():
        return train(
            few_stripes,
            groups,
            depth=name,
            loss=loss,
            epochs=2,
            n_views=1,
            state_folder=tmp_path / "state",
            progress=False,
        )

    result = trained()
    assert result.depth == name
    assert result.layers["loss"] == loss
    assert "Trained: " in result.layers_sentence
    # What was learned from is what is saved: no image judges layers that have seen it.
    assert result.n_fitted == 40
    assert result.n_test == 8
    charts = training_charts(result)
    assert charts["epochs.svg"].count("<circle") == len(result.layers["epochs"]) / 2
    write_model(result, tmp_path / "model", charts)
    model = f"dir:{tmp_path / 'model'}"
    features = Embedder(result.network.backend(), progress=False).embed(few_stripes.paths).vectors
    expected = result.map.apply(features)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = Embedder(model, progress=False).embed(few_stripes.paths).vectors
    np.testing.assert_allclose(found, expected, atol=1e-4)
    own = Embedder("efficientnet-lite0", progress=False).embed(few_stripes.paths).vectors
    assert np.abs(features[:, :1280] - own).max() > 1e-3
    assert load_model(model).spec.license == "Apache-2.0"
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert record["depth"] == name
    card = (tmp_path / "model" / "README.md").read_text()
    assert result.layers_sentence in card
    assert all(f"]({name})" in card for name in ("dimensions.svg", "epochs.svg"))
    # The same training with what the first has left: not an epoch is run again, and the network is the same.
    checkpoint = tmp_path / "state" / "final.pt"
    before = checkpoint.stat().st_mtime_ns
    assert trained().network.graph == result.network.graph
    assert checkpoint.stat().st_mtime_ns == before


def test_layers_learn_few_classes_only_where_no_others_matter(few_stripes, monkeypatch):
    of_paths = zip(few_stripes.paths, few_stripes.labels, strict=True)
    few = few_stripes.without({path for path, name in of_paths if name > "class 4"})

    def begin(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(depth, "_source", begin)
    options = {"depth": "last", "n_views": 1, "progress": False}
    result = train(few, np.arange(len(few.paths)), **options)
    assert result.depth == "head"
    assert "the last block not trained: with fewer than 8 classes" in result.layers_sentence
    assert list(training_charts(result)) == ["dimensions.svg"]
    with pytest.raises(KeyboardInterrupt):
        train(few, np.arange(len(few.paths)), known_only=True, **options)


def test_where_recall_does_not_say_map_does():
    def figures(recall, mean_precision):
        return {
            "recall@1": Estimate(recall, recall - 0.06, recall + 0.06, 100),
            "map@10": Estimate(mean_precision, mean_precision - 0.02, mean_precision + 0.02, 100),
        }

    old = figures(0.8, 0.7)
    assert depth.is_better(figures(0.84, 0.6), old)
    assert not depth.is_better(figures(0.76, 0.8), old)
    assert depth.is_better(figures(0.79, 0.71), old)
    assert not depth.is_better(figures(0.81, 0.69), old)
    assert not depth.is_better(old, old)


def test_the_state_of_another_training_is_not_used(few_stripes, tmp_path, monkeypatch):
    seen = []

    def stop(training):
        seen.append(sorted(path.name for path in Path(training.file).parent.iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr(depth, "train_network", stop)
    monkeypatch.setattr(depth, "_source", lambda *_: None)
    groups = np.arange(len(few_stripes.paths))
    for loss in ("softmax", "softmax", "arcface"):
        with pytest.raises(KeyboardInterrupt):
            train(
                few_stripes,
                groups,
                depth="last",
                loss=loss,
                n_views=1,
                state_folder=tmp_path / "state",
                progress=False,
            )
        (tmp_path / "state" / "left").touch()
    assert seen == [["training.json"], ["left", "training.json"], ["training.json"]]
