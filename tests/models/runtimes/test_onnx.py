"""ONNX files that fit their spec, and those that do not."""

import dataclasses
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from nearsight.errors import WeightsError
from nearsight.models import Backend, ModelSpec
from nearsight.models.runtimes.onnx import OnnxBackend

SPEC = ModelSpec(
    id="means", dim=3, weights_sha256="", input_px=(8, 6), resize_px=8, mean=(0, 0, 0), std=(1, 1, 1)
)


def means(shape: Sequence[object] = ("n", 3, 8, 6), output: str = "pooled", factor: float = 1) -> bytes:
    """Return a network whose vector is the image's mean color."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Mul", ["flat", "factor"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def embed(backend: Backend, color: tuple[int, int, int]) -> np.ndarray:
    return backend.embed([backend.prepare(Image.new("RGB", (9, 20), color))])[0]


def test_the_vector_has_unit_length() -> None:
    np.testing.assert_allclose(embed(OnnxBackend(SPEC, means()), (30, 0, 40)), [0.6, 0, 0.8], atol=1e-6)


def test_the_vector_keeps_its_length_where_the_spec_says_so() -> None:
    backend = OnnxBackend(dataclasses.replace(SPEC, normalize=False), means())
    np.testing.assert_allclose(embed(backend, (51, 0, 255)), [0.2, 0, 1], atol=1e-6)


def test_nothing_seen_stays_nothing() -> None:
    np.testing.assert_array_equal(embed(OnnxBackend(SPEC, means()), (0, 0, 0)), [0, 0, 0])


@pytest.mark.parametrize("factor", [np.inf, np.nan])
def test_numbers_that_are_none(factor: float) -> None:
    with pytest.raises(WeightsError, match="means computed numbers that are not finite"):
        embed(OnnxBackend(SPEC, means(factor=factor)), (1, 2, 3))


@pytest.mark.parametrize("shape", [["n", 3, 8, 6], [1, 3, 8, 6], [None, 3, "h", "w"]])
def test_graphs_that_fit(shape: list[object]) -> None:
    backend = OnnxBackend(SPEC, means(shape))
    images = [backend.prepare(Image.new("RGB", (8, 8), (10 * i, 5, 5))) for i in range(3)]
    assert backend.embed(images).shape == (3, 3)


@pytest.mark.parametrize("shape", [["n", 3, 6, 8], [4, 3, 8, 6], ["n", 8, 6], ["n", 1, 8, 6]])
def test_graphs_of_another_input(shape: list[object]) -> None:
    with pytest.raises(WeightsError, match="means must have one input"):
        OnnxBackend(SPEC, means(shape))


def test_graphs_of_another_output() -> None:
    with pytest.raises(WeightsError, match="no output 'pooled'; it has other"):
        OnnxBackend(SPEC, means(output="other"))
    with pytest.raises(WeightsError, match=r"must be \(n, 5\)"):
        OnnxBackend(dataclasses.replace(SPEC, dim=5), means())


def test_a_wrong_dim_that_only_an_image_shows() -> None:
    model = onnx.load_from_string(means())
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "d"
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "c"
    backend = OnnxBackend(dataclasses.replace(SPEC, dim=5), model.SerializeToString())
    with pytest.raises(WeightsError, match=r"layer .pooled. of .* has shape .* must be \(n, 5\)"):
        embed(backend, (1, 2, 3))


def test_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot load means from its content"):
        OnnxBackend(SPEC, b"not a model")
    with pytest.raises(WeightsError, match="missing.onnx"):
        OnnxBackend(SPEC, tmp_path / "missing.onnx")


def test_pickling_a_file_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "means.onnx"
    onnx.save(onnx.load_from_string(means()), path)
    for model in (path, means()):
        again = pickle.loads(pickle.dumps(OnnxBackend(SPEC, model)))
        np.testing.assert_allclose(embed(again, (30, 0, 40)), [0.6, 0, 0.8], atol=1e-6)


def test_a_pickle_of_the_default_model_is_small(lite0: Backend) -> None:
    assert len(pickle.dumps(lite0)) < 2000


def test_decode_px() -> None:
    squash = dataclasses.replace(SPEC, resize_mode="squash", resize_px=1)
    assert OnnxBackend(dataclasses.replace(SPEC, resize_px=11), means()).decode_px == 11
    assert OnnxBackend(squash, means()).decode_px == 8
    both = dataclasses.replace(SPEC, resize_mode="squash-crop", resize_px=11)
    assert OnnxBackend(both, means()).decode_px == 11
    assert OnnxBackend(dataclasses.replace(SPEC, draft=False), means()).decode_px is None


def test_not_a_bit_depends_on_the_batch(lite0: Backend) -> None:
    rng = np.random.default_rng(0)
    prepared = list(rng.integers(0, 256, (5, 224, 224, 3), np.uint8))
    together = lite0.embed(prepared)
    np.testing.assert_array_equal(np.concatenate([lite0.embed([one]) for one in prepared]), together)
