"""Other forms of a model: any layer, pooled in any way."""

import json

import numpy as np
import onnx
import pytest
from models.layouts import write_layout
from PIL import Image

from nearsight.errors import UnknownModelError, WeightsError
from nearsight.models import find_model, load_model
from nearsight.models.onnx_graph import extract_layer
from nearsight.models.preprocess import preprocess
from nearsight.models.runtimes.onnx import OnnxNetwork
from nearsight.models.runtimes.variants import OnnxVariants
from nearsight.testing import BackendTests


@pytest.fixture(scope="module")
def inner(cache_dir):
    return load_model("efficientnet-lite0#layer=block9.add", cache_dir=cache_dir)


class TestLayer(BackendTests):
    @pytest.fixture
    def backend(self, inner):
        return inner


def test_a_layer_is_what_the_network_computes_there(cache_dir):
    base = find_model("efficientnet-lite0")
    model = load_model("efficientnet-lite0#layer=block4.add", cache_dir=cache_dir)
    image = Image.radial_gradient("L").convert("RGB")
    graph = base.variants.graph(cache_dir)
    places = OnnxNetwork("x", extract_layer(graph, "block4.add")).run(
        "block4.add", {"pixels": preprocess(image, base.spec)[None]}
    )
    wanted = places[0].mean((1, 2))
    [found] = model.embed([model.prepare(image)])
    assert model.spec.dim == len(wanted) == places.shape[1]
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-5)


def test_every_layer_that_is_listed_can_be_had(tmp_path, cache_dir):
    folder = write_layout(tmp_path, outputs={"image_embeds": [6], "last_hidden_state": [10, 4]})
    entry = find_model(f"dir:{folder}")
    layers = entry.variants.layers()
    assert layers["image_embeds"] == (1, 6)
    assert layers["last_hidden_state"] == (1, 10, 4)
    for layer, shape in layers.items():
        model = load_model(f"dir:{folder}#layer={layer}", cache_dir=cache_dir)
        vectors = model.embed([model.prepare(Image.new("RGB", (30, 20), "red"))])
        assert vectors.shape == (1, shape[-1])


@pytest.mark.parametrize(
    ("pooling", "rows"), [("mean", slice(0, 10)), ("cls", slice(0, 1)), ("patches", slice(1, 10))]
)
def test_pooling(tmp_path, cache_dir, pooling, rows):
    # Ten tokens: one for the whole, nine for places.
    folder = write_layout(tmp_path, outputs={"image_embeds": [6], "last_hidden_state": [10, 4]})
    model = load_model(f"dir:{folder}#layer=last_hidden_state,pooling={pooling}", cache_dir=cache_dir)
    image = Image.radial_gradient("L").convert("RGB")
    [file] = folder.rglob("*.onnx")
    pixels = preprocess(image, model.spec)[None]
    tokens = OnnxNetwork("x", file).run("last_hidden_state", {"pixel_values": pixels})[0]
    wanted = tokens[rows].mean(0)
    [found] = model.embed([model.prepare(image)])
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-5)


def test_a_form_is_another_fingerprint_and_a_name_that_leads_back(tmp_path):
    folder = write_layout(tmp_path, outputs={"image_embeds": [6], "last_hidden_state": [10, 4]})
    base = f"dir:{folder}"
    variants = [
        "",
        "#pooling=cls",
        "#layer=last_hidden_state",
        "#layer=last_hidden_state,pooling=cls",
        "#bf16",
    ]
    specs = [find_model(base + form).spec for form in variants]
    assert len({spec.fingerprint.digest for spec in specs}) == len(variants)
    for spec in specs:
        assert find_model(spec.id).spec == spec
    # The model itself is the same: only what is taken from it differs.
    assert len({spec.fingerprint.model for spec in specs}) == 1


def test_the_models_own_layer_by_name_is_the_model(tmp_path):
    folder = write_layout(tmp_path)
    plain, named = find_model(f"dir:{folder}").spec, find_model(f"dir:{folder}#layer=image_embeds").spec
    assert plain.fingerprint == named.fingerprint


def test_a_form_of_an_onnx_file(tmp_path, cache_dir):
    folder = write_layout(tmp_path)
    [file] = folder.rglob("*.onnx")
    facts = {"dim": 6, "input_px": [12, 12], "mean": [0.5] * 3, "std": [0.5] * 3, "layer": "image_embeds"}
    file.with_name(f"{file.name}.json").write_text(json.dumps({**facts, "resize_mode": "squash"}))
    model = load_model(f"onnx:{file}#layer=flat", cache_dir=cache_dir)
    assert model.spec.dim == 3 * 12 * 12
    assert model.embed([model.prepare(Image.new("RGB", (9, 9), "red"))]).shape == (1, 432)


def test_an_unknown_layer_suggests_the_nearest():
    with pytest.raises(UnknownModelError, match=r"no layer 'block9.ad'; did you mean block9.add"):
        find_model("efficientnet-lite0#layer=block9.ad")


def test_a_model_of_one_form_says_so():
    with pytest.raises(UnknownModelError, match="sift-vlad has no variants; remove #bf16"):
        find_model("sift-vlad#bf16")


def test_a_layer_without_a_usable_shape(tmp_path):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ReduceMean", ["pixels"], ["all"], keepdims=0)],
        "flat",
        [value("pixels", 1, ["n", 3, 224, 224])],
        [value("all", 1, [])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    spec = find_model("efficientnet-lite0").spec
    variants = OnnxVariants(spec, lambda _: model.SerializeToString())
    with pytest.raises(WeightsError, match="no shape that gives a vector"):
        variants._dim("all")
    assert "all" not in variants.layers()


def test_words_go_with_the_models_own_layer_only():
    assert find_model("efficientnet-lite0#bf16").load_text_encoder is not None
    assert find_model("efficientnet-lite0#layer=block9.add").load_text_encoder is None
