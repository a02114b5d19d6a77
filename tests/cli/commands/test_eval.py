"""`eval`, as a user runs it."""

import json

import pytest


@pytest.mark.slow
def test_models_are_compared_on_a_folder_of_classes(nearsight, kinds, tmp_path):
    for file in sorted(kinds.iterdir())[::3]:
        target = tmp_path / "set" / file.name[:3] / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    page = tmp_path / "models.html"
    model = "efficientnet-lite0"
    result = nearsight("eval", tmp_path / "set", "--model", model, "--html", page, "--json")
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    [facts] = document["models"]
    assert facts["model"] == document["recommended"] == model
    assert facts["dim"] == 1280
    assert facts["license"] == "Apache-2.0"
    for metric in ("recall@1", "map@10", "knn_accuracy"):
        assert facts[metric] == 1
        low, high = facts["intervals"][metric]
        assert low <= facts[metric] <= high
    assert document["queries"] == document["gallery"] == 20
    assert document["dimensions"][-1]["dim"] == 1280
    assert not nearsight.collection.exists()
    html = page.read_text()
    for text in ("Figures", "Quality and speed", model, document["verdict"]):
        assert text in html
    assert document["skipped"] == []
    assert document["learned_classes"] is None
    text = nearsight("eval", tmp_path / "set", "--model", model)
    assert "Name a second model to compare" in text.stdout
    assert document["advised_dim"] < 1280
    assert f"nearsight index PATH --model {model} --dim {document['advised_dim']}" in text.stdout
    # With --dim, there is no #centered.
    text = nearsight("eval", tmp_path / "set", "--model", f"{model}#centered")
    assert f"nearsight index PATH --model {model} --dim " in text.stdout
