"""Graphs that nearsight edits stay valid models, whatever the converter makes of them."""

import numpy as np
import onnx
import onnxruntime
import pytest
from models.convolutions import network
from models.layouts import write_layout
from models.vit import transformer
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.transformers import float16 as converter

from nearsight.errors import WeightsError
from nearsight.models import find_model
from nearsight.models.graph_structure import named_operations
from nearsight.models.onnx_graph import convert_types, with_operation_names
from nearsight.models.precision import float16
from nearsight.models.precision.parity import compare
from nearsight.models.preprocess import preprocess
from nearsight.models.synthetic_images import synthetic_images


def as_version_1_31(proto, **options):
    """Convert as ONNX Runtime 1.31 does: the cast of a value, once for each operation that reads it."""
    half = original(proto, **options)
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    for node in casts:
        half.graph.node.add().CopyFrom(node)
    for value in list(half.graph.value_info):
        half.graph.value_info.add().CopyFrom(value)
    return half


original = converter.convert_float_to_float16


@pytest.fixture(params=["installed", "1.31"])
def runtime(request, monkeypatch):
    if request.param == "1.31":
        monkeypatch.setattr(converter, "convert_float_to_float16", as_version_1_31)


def require_valid(model):
    graph = onnx.load_model_from_string(model).graph
    for names in (
        [node.name for node in graph.node],
        [name for node in graph.node for name in node.output],
        [tensor.name for tensor in graph.initializer],
        [value.name for value in graph.value_info],
    ):
        assert len(names) == len(set(names))
    onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def clip(path):
    """Write the image encoder of a tiny CLIP."""
    return f"dir:{write_layout(path.parent)}"


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("write", [transformer, network, clip])
def test_every_graph_in_float16_is_valid_and_opens(tmp_path, write):
    entry = find_model(write(tmp_path / "model.onnx"))
    graph = entry.variants.graph(None)
    session = require_valid(float16.convert_to_float16(graph, entry.spec))
    exact = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    pixels = np.stack([preprocess(image, entry.spec) for image in synthetic_images(6, seed=3)])
    rows, wanted = (s.run([entry.spec.layer], {s.get_inputs()[0].name: pixels})[0] for s in (session, exact))
    assert compare(rows, wanted).smallest > 0.9999


@pytest.mark.usefixtures("runtime")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2"])
def test_every_built_in_graph_in_float16_is_valid_and_opens(name):
    entry = find_model(name)
    if not entry.available():
        pytest.skip(f"{name} is not installed")
    require_valid(
        float16.convert_to_float16(
            entry.variants.graph(None), entry.spec, float32_operations=entry.variants.float32_in_fp16
        )
    )


def bounded(n=2, *, names=("first", "second")):
    """Return a model whose operations share a bound, as those of a network with clipped activations."""
    nodes = [
        helper.make_node("Clip", [f"x{i}", "zero", "six"], [f"x{i + 1}"], name=names[i]) for i in range(n)
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "bounded",
        [value("x0", TensorProto.FLOAT, ["n", 4])],
        [value(f"x{n}", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.float32(at), name) for name, at in (("zero", 0), ("six", 6))],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def test_operations_in_float32_may_share_a_constant(runtime):
    def convert(proto):
        return converter.convert_float_to_float16(proto, keep_io_types=True, node_block_list=["first"])

    require_valid(convert_types(bounded(), convert))


def test_a_cast_of_whole_numbers_of_the_models_own_stays(runtime):
    """As where positions are counted: what counts takes no float16, and the number of them is whole."""
    value, node = helper.make_tensor_value_info, helper.make_node
    graph = helper.make_graph(
        [
            node("Shape", ["x"], ["shape"], name="shape"),
            node("Gather", ["shape", "last"], ["width"], name="gather"),
            node("Cast", ["width"], ["limit"], name="cast", to=TensorProto.FLOAT),
            node("Range", ["zero", "limit", "one"], ["positions"], name="range"),
            node("Add", ["x", "positions"], ["y"], name="add"),
        ],
        "positions",
        [value("x", TensorProto.FLOAT, ["n", 4])],
        [value("y", TensorProto.FLOAT, ["n", 4])],
        [
            numpy_helper.from_array(np.int64(1), "last"),
            *(numpy_helper.from_array(np.float32(at), name) for name, at in (("zero", 0), ("one", 1))),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def convert(proto):
        return converter.convert_float_to_float16(proto, keep_io_types=True)

    require_valid(converted := convert_types(model.SerializeToString(), convert))
    [found] = ReferenceEvaluator(converted).run(None, {"x": np.zeros((1, 4), np.float32)})
    assert found.tolist() == [[0, 1, 2, 3]]


def test_two_operations_of_one_name_get_two():
    def convert(proto):
        for node in proto.graph.node:
            node.name = "same"
        return proto

    require_valid(model := convert_types(bounded(), convert))
    assert [name for name, _ in named_operations(model)] == ["same", "same_2"]


def test_a_name_for_an_operation_without_one_is_free():
    model = with_operation_names(bounded(names=("x2", "")))
    assert [name for name, _ in named_operations(model)] == ["x2", "x2_2"]


def test_what_the_converter_breaks_is_refused(monkeypatch, tmp_path):
    def broken(proto, **options):
        proto.graph.node[0].input[0] = "nowhere"
        return proto

    monkeypatch.setattr(converter, "convert_float_to_float16", broken)
    entry = find_model(network(tmp_path / "net.onnx"))
    with pytest.raises(WeightsError, match="cannot be converted to float16: ValidationError"):
        float16.convert_to_float16(entry.variants.graph(None), entry.spec)


def test_a_model_that_the_checker_refuses_as_it_is_may_be_converted():
    """The runtime opens it: a declared size of an inner value is wrong."""
    model = onnx.load_model_from_string(bounded())
    model.graph.value_info.append(helper.make_tensor_value_info("x1", TensorProto.FLOAT, ["n", 5]))
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.checker.check_model(model, full_check=True)
    assert convert_types(model.SerializeToString(), lambda proto: proto)
