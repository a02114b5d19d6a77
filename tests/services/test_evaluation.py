"""Which models `eval` compares, and what is known of those it does not."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nearsight import list_models
from nearsight.errors import InvalidParameterError, MissingExtraError, UnknownModelError
from nearsight.evaluation import LabeledFolder, read_labeled_folder
from nearsight.models import DEFAULT_MODEL
from nearsight.models.huggingface.known_models import KNOWN_MODELS
from nearsight.services import evaluation
from nearsight.services.evaluation import (
    evaluated,
    evaluation_document,
    installed_models,
    learned_by,
    require_far_from_learned,
    require_unlearned,
    without_learned,
)
from nearsight.training import content_digest

from fake import FakeBackend


def test_every_known_model_is_compared_or_has_a_reason(monkeypatch):
    gone = "efficientnet-lite2"
    entries = [
        replace(entry, available=lambda: False, install="pip install it") if entry.spec.id == gone else entry
        for entry in list_models()
    ]
    monkeypatch.setattr("nearsight.services.evaluation.list_models", lambda: entries)
    names, skipped = installed_models()
    reasons = {one.model: one.reason for one in skipped}
    assert reasons[gone] == "not installed: pip install it"
    assert {*names, *reasons} >= {entry.spec.id for entry in entries}
    for model in KNOWN_MODELS:
        assert model.name in reasons or any(name.startswith(model.source) for name in names)
    assert all(
        f"--model {name} downloads it" in reason for name, reason in reasons.items() if "downl" in reason
    )


def test_the_model_that_proposes_near_duplicates_embeds_the_images_once(monkeypatch, tmp_path):
    seen = []

    class Counted(FakeBackend):
        def embed(self, prepared):
            seen.append(len(prepared))
            return super().embed(prepared)

    for module in ("embedder.embedder", "services.collections"):
        monkeypatch.setattr(f"nearsight.{module}.load_model", lambda *_, **__: Counted())
    rng, y = np.random.default_rng(0), np.mgrid[0:48, 0:48]
    for name, wave in zip(("level", "upright"), y, strict=True):
        (tmp_path / name).mkdir()
        for number in range(6):
            pixels = 128 + 100 * np.sin(wave / 3 + number / 9) + rng.normal(0, 30, (48, 48))
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(tmp_path / name / f"{number}.png")
    image.save(tmp_path / "upright" / "copy.png")
    labeled, n = read_labeled_folder(tmp_path), 13

    def figures(names):
        seen.clear()
        with evaluated(labeled, names, metric="map@10", skip_failing=False, progress=False) as (result, made):
            assert len(made) == n - 1
            document = evaluation_document(result)
        for one in document["models"]:
            del one["images_per_second"], one["model"]
        return document["models"][0], sum(seen)

    known, n_known = figures([f"{DEFAULT_MODEL}#centered", DEFAULT_MODEL])
    # Another model needs a pass of its own; here it is the same one.
    other, n_other = figures(["efficientnet-lite2#centered", "efficientnet-lite2"])
    assert known == other
    assert (n_known, n_other) == (n, 2 * n)


def test_models_that_are_unknown_or_not_installed_are_refused_before_anything_is_embedded(
    monkeypatch, tmp_path
):
    known = "efficientnet-lite0"
    [entry] = [replace(one, available=lambda: False) for one in list_models() if one.spec.id == "sift-vlad"]
    entries = {known: replace(entry, available=lambda: True), "sift-vlad": entry}
    real = evaluation.find_model
    monkeypatch.setattr(evaluation, "find_model", lambda name: entries.get(name) or real(name))
    # Nothing could be embedded: there is no such image.
    labeled = LabeledFolder([str(tmp_path / "missing.png")], ["a"], [""])

    def start(*names):
        with evaluated(labeled, [known, *names], metric="map@10", skip_failing=False):
            pass

    with pytest.raises(UnknownModelError, match="efficientnet-lite9"):
        start("efficientnet-lite9#centered")
    with pytest.raises(
        MissingExtraError, match=r"sift-vlad is not installed. Run: pip install 'nearsight\[sift\]'"
    ):
        start("sift-vlad")


def test_a_trained_folder_says_which_classes_it_learned(tmp_path):
    for name, record in (("new", {"classes": ["a", "b"]}), ("old", {}), ("damaged", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training.json").write_text(json.dumps(record) if record is not None else "{")
    names = [f"dir:{tmp_path / name}" for name in ("new", "old", "damaged", "gone")]
    names += [f"{names[0]}#centered", "efficientnet-lite0", f"hub:{tmp_path / 'new'}"]
    classes = frozenset({"a", "b"})
    assert learned_by(names) == {names[0]: classes, f"{names[0]}#centered": classes}


def test_images_that_a_model_learned_from_are_not_searched_for(tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(6)]
    for path in paths:
        Path(path).write_text(path)
    learned = tmp_path / "model"
    learned.mkdir()
    (learned / "learned-images.txt").write_text("\n".join(map(content_digest, paths[:2])))
    models = [f"dir:{learned}#centered", "efficientnet-lite0"]
    folder = LabeledFolder(paths, list("aabbcc"), [""] * 6)
    assert require_unlearned(folder, models).splits == ["train"] * 2 + ["test"] * 4
    assert require_unlearned(folder, models[1:]) is folder
    # A file that is gone is told by who embeds it.
    Path(paths[5]).unlink()
    assert require_unlearned(folder, models).splits == ["train"] * 2 + ["test"] * 4
    split = replace(folder, splits=["test", "train", "test", "validation", "train", "train"])
    assert require_unlearned(split, models).splits == ["train", "train", "test", "train", "train", "train"]
    fair = replace(split, splits=["train"] * 5 + ["test"])
    assert require_unlearned(fair, models) is fair
    with pytest.raises(InvalidParameterError, match="into a folder test"):
        require_unlearned(replace(folder, splits=["test"] * 2 + ["train"] * 4), models)
    with pytest.raises(InvalidParameterError, match="learned from each image"):
        require_unlearned(LabeledFolder(paths[:2], list("ab"), ["", ""]), models)


def test_near_duplicates_of_what_a_model_learned_from_are_not_searched_for(tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(6)]
    for path in paths:
        Path(path).write_text(path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "learned-images.txt").write_text("\n".join(map(content_digest, paths[:2])))
    models = [f"dir:{tmp_path / 'model'}", "efficientnet-lite0"]
    items = [SimpleNamespace(id=content_digest(path)[:32], paths=[path]) for path in paths]
    collection = SimpleNamespace(items=lambda: items)
    folder = require_unlearned(LabeledFolder(paths, list("aabbcc"), [""] * 6), models)
    # The third is a near-duplicate of the first.
    groups = np.array([0, 1, 0, 3, 4, 4])
    with pytest.warns(UserWarning, match="1 image not searched for either: near-duplicates of what a model"):
        left = require_far_from_learned(folder, models, collection, groups)
    assert left.splits == ["train"] * 3 + ["test"] * 3
    assert require_far_from_learned(folder, models, collection, np.arange(6)) is folder
    assert require_far_from_learned(folder, models[1:], collection, groups) is folder
    with pytest.raises(InvalidParameterError, match="or from a near-duplicate of it, so these cannot judge"):
        require_far_from_learned(folder, models, collection, np.array([0, 1, 0, 0, 1, 1]))


def test_models_that_leave_no_image_to_search_for_are_left_out(tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(4)]
    for path in paths:
        Path(path).write_text(path)

    def trained(name, rows):
        (tmp_path / name).mkdir()
        learned = "\n".join(content_digest(paths[row]) for row in rows)
        (tmp_path / name / "learned-images.txt").write_text(learned)
        return f"dir:{tmp_path / name}"

    whole, half, other = trained("whole", range(4)), trained("half", (0, 1)), trained("other", (1, 2, 3))
    folder = LabeledFolder(paths, list("aabb"), [""] * 4)
    names, skipped = without_learned(folder, [half, whole, "efficientnet-lite0"])
    assert names == [half, "efficientnet-lite0"]
    assert [(one.model, one.reason.partition(":")[0]) for one in skipped] == [
        (whole, "it learned from each image that would be searched for")
    ]
    assert require_unlearned(folder, names).splits == ["train"] * 2 + ["test"] * 2
    # Each alone leaves some; together they leave none.
    names, skipped = without_learned(folder, [half, other, "efficientnet-lite0"])
    assert (names, [one.model for one in skipped]) == ([half, "efficientnet-lite0"], [other])
    assert "3 of the 4 images" in skipped[0].reason
    # Without a model there is no comparison: the error says why.
    assert without_learned(folder, [whole]) == ([whole], [])
    assert without_learned(folder, [half]) == ([half], [])
