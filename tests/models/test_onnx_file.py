"""Any ONNX file by name: facts beside it, any layer, the same fingerprint in any place."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from nearsight.errors import InvalidParameterError, UnknownModelError, WeightsError
from nearsight.models import Backend, find_model, load_model
from nearsight.testing import BackendTests

FACTS = {
    "dim": 5,
    "input_px": [8, 6],
    "resize_px": 9,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "layer": "vector",
}


def network(*, seed: int = 0, text: bool = False) -> onnx.ModelProto:
    """Return a convolution (n, 5, 8, 6) called map, tokens (n, 48, 5), and their mean called vector."""
    kernel = np.random.default_rng(seed).standard_normal((5, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["map"], ["flat"], axis=1),
        helper.make_node("Reshape", ["flat", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["tokens"], ["vector"], axes=[1], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 6])]
    outputs = [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 5])]
    if text:
        nodes.append(helper.make_node("Identity", ["ids"], ["words"]))
        inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"]))
        outputs.append(helper.make_tensor_value_info("words", TensorProto.INT64, ["n", "t"]))
    weights = [
        onnx.numpy_helper.from_array(kernel, "kernel"),
        onnx.numpy_helper.from_array(np.array([-1, 5, 48]), "shape"),
    ]
    graph = helper.make_graph(nodes, "small", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(folder: Path, *, seed: int = 0, text: bool = False, **facts: object) -> str:
    folder.mkdir(exist_ok=True)
    onnx.save(network(seed=seed, text=text), folder / "m.onnx")
    (folder / "m.onnx.json").write_text(json.dumps({**FACTS, **facts}))
    return f"onnx:{folder / 'm.onnx'}"


def embed(name: str) -> np.ndarray:
    backend = load_model(name)
    pixels = np.random.default_rng(3).integers(0, 256, (9, 9, 3), np.uint8)
    return backend.embed([backend.prepare(Image.fromarray(pixels))])[0]


class TestAFile(BackendTests):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return load_model(write(tmp_path))


class TestALayerInside(BackendTests):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return load_model(write(tmp_path, layer="tokens", pooling="cls"))


@pytest.mark.parametrize("layer", ["map", "tokens"])
def test_layers_inside_are_averaged(tmp_path: Path, layer: str) -> None:
    np.testing.assert_allclose(embed(write(tmp_path, layer=layer)), embed(write(tmp_path)), atol=1e-5)


def test_the_first_token(tmp_path: Path) -> None:
    first, mean = embed(write(tmp_path, layer="tokens", pooling="cls")), embed(write(tmp_path))
    assert first @ mean < 0.99
    with pytest.raises(WeightsError, match="layer 'map' of .* with pooling='cls' it must be"):
        load_model(write(tmp_path, layer="map", pooling="cls"))


@pytest.mark.parametrize("layer", ["vector", "tokens", "map"])
def test_a_wrong_dim(tmp_path: Path, layer: str) -> None:
    with pytest.raises(WeightsError, match=r"must be \(n, 7\)"):
        load_model(write(tmp_path, dim=7, layer=layer))


def test_the_other_tower_is_left_out(tmp_path: Path) -> None:
    one, both = write(tmp_path / "one"), write(tmp_path / "both", text=True)
    np.testing.assert_array_equal(embed(one), embed(both))
    again = pickle.loads(pickle.dumps(load_model(both)))
    assert again.spec == load_model(both).spec


def test_the_id_is_a_place_and_the_fingerprint_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    here, there = find_model("onnx:a/m.onnx").spec, find_model("onnx:b/m.onnx").spec
    assert here.id == f"onnx:{tmp_path / 'a' / 'm.onnx'}"
    assert here.fingerprint == there.fingerprint
    assert str(tmp_path) not in json.dumps(here.fingerprint.to_dict())
    other = find_model(write(tmp_path / "b", seed=1)).spec
    assert other.fingerprint != here.fingerprint
    assert other.fingerprint.model != here.fingerprint.model


def test_weights_beside_the_file_are_hashed(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write(tmp_path)
    onnx.save(network(), path, save_as_external_data=True, location="m.data", size_threshold=100)
    before = find_model(f"onnx:{path}").spec
    np.testing.assert_allclose(embed(f"onnx:{path}"), embed(write(tmp_path / "b")), atol=1e-6)
    data = bytearray((tmp_path / "m.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "m.data").write_bytes(data)
    assert find_model(f"onnx:{path}").spec.fingerprint != before.fingerprint
    (tmp_path / "m.data").unlink()
    with pytest.raises(WeightsError, match=r"its weights are in m\.data"):
        find_model(f"onnx:{path}")


def test_missing_facts_come_with_a_template_that_works(tmp_path: Path) -> None:
    name = write(tmp_path)
    beside = tmp_path / "m.onnx.json"
    beside.unlink()
    with pytest.raises(InvalidParameterError, match=r"m\.onnx\.json is missing") as caught:
        find_model(name)
    beside.write_text(str(caught.value).split("\n", 1)[1])
    assert find_model(name).spec.dim == 5
    assert embed(name).shape == (5,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "does not contain a JSON object"),
        ("{}", "lacks dim, input_px, mean, std, layer"),
        (json.dumps({**FACTS, "means": 1}), "'means'; did you mean mean[?]"),
        (json.dumps({**FACTS, "id": "x"}), "unknown key 'id'"),
        (json.dumps({**FACTS, "dim": "5"}), "wrong type"),
        (json.dumps({**FACTS, "mean": [0]}), "it must have 3 numbers"),
    ],
)
def test_wrong_facts(tmp_path: Path, text: str, message: str) -> None:
    name = write(tmp_path)
    (tmp_path / "m.onnx.json").write_text(text)
    with pytest.raises(InvalidParameterError, match=message):
        find_model(name)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="There is no file"):
        find_model(f"onnx:{tmp_path / 'none.onnx'}")
    with pytest.raises(WeightsError, match="no layer 'vectors'; did you mean vector[?]"):
        find_model(write(tmp_path, layer="vectors"))
    (tmp_path / "m.onnx").write_bytes(b"\x99not a model")
    with pytest.raises(WeightsError, match="cannot be read as an ONNX model"):
        find_model(f"onnx:{tmp_path / 'm.onnx'}")
