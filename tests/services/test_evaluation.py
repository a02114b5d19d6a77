"""Which models `eval` compares, and what is known of those it does not."""

import json
from dataclasses import replace

from nearsight import list_models
from nearsight.models.huggingface.known_models import KNOWN_MODELS
from nearsight.services.evaluation import installed_models, learned_by


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


def test_a_trained_folder_says_which_classes_it_learned(tmp_path):
    for name, record in (("new", {"classes": ["a", "b"]}), ("old", {}), ("damaged", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training.json").write_text(json.dumps(record) if record is not None else "{")
    names = [f"dir:{tmp_path / name}" for name in ("new", "old", "damaged", "gone")]
    names += [f"{names[0]}#centered", "efficientnet-lite0", f"hub:{tmp_path / 'new'}"]
    classes = frozenset({"a", "b"})
    assert learned_by(names) == {names[0]: classes, f"{names[0]}#centered": classes}
