"""The mean and spread of inner layers, beside the vector."""

import numpy as np
import pytest
from PIL import Image

from nearsight.errors import UnknownModelError
from nearsight.models import find_model, layer_statistics, load_model
from nearsight.models.layer_statistics import OUTPUT, last_layers, with_layer_statistics
from nearsight.models.onnx_graph import layer_shapes, weights, with_outputs
from nearsight.models.preprocess import preprocess
from nearsight.models.runtimes.onnx import OnnxNetwork
from nearsight.testing import BackendTests


@pytest.fixture(scope="module")
def layered(cache_dir):
    """The model with constants of a few images only, which take a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_statistics, "_N_IMAGES", 6)
        return load_model("efficientnet-lite0#layers", cache_dir=cache_dir / "layers")


class TestLayers(BackendTests):
    @pytest.fixture
    def backend(self, layered):
        return layered


def test_the_vector_is_the_models_own_then_standardized_statistics(cache_dir, monkeypatch, layered):
    monkeypatch.setattr(layer_statistics, "_N_IMAGES", 6)
    base = find_model("efficientnet-lite0")
    graph = base.variants.graph(cache_dir)
    widths = last_layers(graph, layer_shapes(graph, base.spec.input_px), base.spec.layer)
    assert list(widths.values()) == [112, 192, 320]
    image = Image.radial_gradient("L").convert("RGB")
    network = OnnxNetwork("x", with_outputs(graph, list(widths)))
    maps = network.run_all(list(widths), {"pixels": preprocess(image, base.spec)[None]})
    statistics = np.concatenate(
        [part for layer in widths for part in (maps[layer][0].mean((1, 2)), maps[layer][0].std((1, 2)))]
    )
    constants = weights(with_layer_statistics(base.spec, graph))
    standardized = (statistics - constants[f"{OUTPUT}.usual"]) * constants[f"{OUTPUT}.scale"]
    plain = load_model("efficientnet-lite0", cache_dir=cache_dir)
    [own] = plain.embed([plain.prepare(image)])
    wanted = np.concatenate([own, standardized / np.linalg.norm(standardized)]) / np.sqrt(2)
    [vector] = layered.embed([layered.prepare(image)])
    np.testing.assert_allclose(vector, wanted, atol=1e-5)
    assert layered.spec.fingerprint != base.spec.fingerprint


def test_constants_have_few_digits_so_that_processors_agree():
    values = np.array([0.0, 1.23456, -0.00098765, 1234.5])
    np.testing.assert_allclose(layer_statistics._rounded(values), [0, 1.23, -0.000988, 1230], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet-lite0#layers,bf16", "full precision of its own"),
        ("efficientnet-lite0#layers,layer=block9.add", "full precision of its own"),
        ("sift-vlad#layers", "remove #layers"),
        ("efficientnet-lite0#layer=block9.add,pooling=mean,layers", "full precision of its own"),
    ],
)
def test_other_forms_are_refused(name, message):
    with pytest.raises(UnknownModelError, match=message):
        find_model(name)


def test_a_network_without_feature_maps_is_refused(tmp_path):
    from models.layouts import write_layout

    folder = write_layout(tmp_path, outputs={"image_embeds": [6]})
    with pytest.raises(UnknownModelError, match=r"#layers needs a convolutional network.*remove #layers"):
        find_model(f"dir:{folder}#layers")
