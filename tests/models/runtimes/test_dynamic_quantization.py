"""Networks that scale by their whole batch: a vector must not depend on others' images or texts."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from models.layouts import write_layout, write_text_tower
from onnx import TensorProto, helper
from PIL import Image
from runtime import FakeRuntime

from nearsight.models import ModelSpec, load_text_encoder
from nearsight.models.onnx_graph import read_graph_facts
from nearsight.models.runtimes import openvino
from nearsight.models.runtimes.onnx import OnnxBackend

SPEC = ModelSpec(
    id="means", dim=3, weights_sha256="", input_px=(8, 8), resize_px=8, mean=(0, 0, 0), std=(1, 1, 1)
)


def quantized(graph, value, output):
    """Add the nodes that round a value to eight bits of its own range, as quantizers write them."""
    levels, scale, zero = (f"{output}.{part}" for part in ("levels", "scale", "zero"))
    graph.node.append(helper.make_node("DynamicQuantizeLinear", [value], [levels, scale, zero]))
    graph.node.append(helper.make_node("DequantizeLinear", [levels, scale, zero], [output]))


def means(inside=False):
    """Return a network whose vector is the image's mean color, rounded; also inside of a branch."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["pool"]),
            helper.make_node("Flatten", ["pool"], ["flat"]),
        ],
        "means",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor("true", TensorProto.BOOL, [], [True])],
    )
    if inside:
        output = helper.make_tensor_value_info("rounded", TensorProto.FLOAT, [None, 3])
        branch = helper.make_graph([], "branch", [], [output])
        quantized(branch, "flat", "rounded")
        graph.node.append(
            helper.make_node("If", ["true"], ["pooled"], then_branch=branch, else_branch=branch)
        )
    else:
        quantized(graph, "flat", "pooled")
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda", "directml", "openvino"])
def test_an_image_has_one_vector_whatever_its_batch(device, inside, tmp_path, monkeypatch):
    session = onnxruntime.InferenceSession(means(inside), providers=["CPUExecutionProvider"])
    pixels = np.stack([np.full((3, 8, 8), level, np.float32) for level in (0.03, 0.9)])
    pixels[0, 1] = 0.02
    together = session.run(None, {"x": pixels})[0][0]
    assert not np.allclose(together, session.run(None, {"x": pixels[:1]})[0][0]), "this network cannot fail"

    if device == "openvino" and not openvino.is_installed():
        pytest.skip("needs OpenVINO")
    offered = {"cuda": ["CUDAExecutionProvider"], "directml": ["DmlExecutionProvider"]}.get(device, [])
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeRuntime(*offered))
    backend = OnnxBackend(SPEC, means(inside)).to_device(device, tmp_path)
    images = [backend.prepare(Image.new("RGB", (8, 8), color)) for color in ((8, 5, 3), (250, 240, 230))]
    [alone] = backend.embed(images[:1])
    np.testing.assert_array_equal(backend.embed(images * 4)[0], alone)


def test_a_text_has_one_vector_whatever_its_batch(tmp_path):
    folder = write_text_tower(write_layout(tmp_path / "clip"))
    path = folder / "onnx" / "text_model.onnx"
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "mean"
    quantized(model.graph, "mean", "text_embeds")
    onnx.save(model, path)
    assert read_graph_facts(path).depends_on_batch
    tower = load_text_encoder(f"dir:{folder}")
    [alone] = tower.embed(["a cat"])
    np.testing.assert_array_equal(tower.embed(["a cat", "the dog and the dog", "dog"])[0], alone)
