"""Folders in the Hugging Face ONNX layout: which file, which output, which name."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from models.layouts import PROCESSOR, write_layout
from onnx import TensorProto, numpy_helper
from PIL import Image

from nearsight import Collection
from nearsight.errors import FingerprintMismatchError, ParityError, UnknownModelError, WeightsError
from nearsight.models import Backend, find_model, load_model
from nearsight.models.huggingface.folder import PRECISIONS, ModelFolder, select_image_model, split_precision
from nearsight.models.precision import parity
from nearsight.testing import BackendTests

TOKENS = {"last_hidden_state": [5, 8], "pooler_output": [8]}


class TestAFolder(BackendTests):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return load_model(f"dir:{write_layout(tmp_path)}")


@pytest.mark.parametrize(
    ("names", "precision", "chosen"),
    [
        ({"onnx/model.onnx", "onnx/vision_model.onnx", "model.onnx"}, "", "onnx/vision_model.onnx"),
        ({"onnx/model.onnx", "vision_model.onnx"}, "", "onnx/model.onnx"),
        ({"model.onnx"}, "", "model.onnx"),
        ({"onnx/model.onnx", "onnx/model_fp16.onnx"}, "fp16", "onnx/model_fp16.onnx"),
    ],
)
def test_which_file(names: set[str], precision: str, chosen: str) -> None:
    assert select_image_model(names, precision, "x") == chosen


def test_another_precision_is_offered() -> None:
    with pytest.raises(
        UnknownModelError, match="x has no onnx/vision_model.onnx or .*add #quantized to the name"
    ):
        select_image_model({"onnx/vision_model_quantized.onnx", "onnx/text_model.onnx"}, "", "x")
    with pytest.raises(UnknownModelError, match="export the model to ONNX"):
        select_image_model({"model.safetensors"}, "", "x")
    with pytest.raises(UnknownModelError, match="remove #fp16"):
        select_image_model({"model.onnx"}, "fp16", "x")


def test_precision_in_a_name(tmp_path: Path) -> None:
    assert split_precision("a/b#fp16") == ("a/b", "fp16")
    assert split_precision("my #1 folder") == ("my #1 folder", "")
    write_layout(tmp_path / "m#1")
    write_layout(tmp_path / "m#1", file="onnx/vision_model_quantized.onnx")
    full = find_model(f"dir:{tmp_path / 'm#1'}").spec
    small = find_model(f"dir:{tmp_path / 'm#1'}#quantized").spec
    assert (full.precision, small.precision) == ("float32", "quantized")
    assert load_model(small.id).spec == small
    assert small.fingerprint != full.fingerprint


@pytest.mark.parametrize(
    ("family", "outputs", "layer", "pooling", "dim"),
    [
        ("clip", {"last_hidden_state": [5, 8], "image_embeds": [6]}, "image_embeds", "mean", 6),
        ("siglip", TOKENS, "pooler_output", "mean", 8),
        ("vit", TOKENS, "last_hidden_state", "cls", 8),
        ("dinov2", {"last_hidden_state": [5, 8]}, "last_hidden_state", "cls", 8),
        ("dinov3_vit", TOKENS, "pooler_output", "mean", 8),
        ("swin", {"last_hidden_state": [5, 8]}, "last_hidden_state", "mean", 8),
        ("convnext", {"last_hidden_state": [7, 2, 2]}, "last_hidden_state", "mean", 7),
        ("resnet", {"pooler_output": [7, 1, 1]}, "pooler_output", "mean", 7),
    ],
)
def test_which_output(tmp_path: Path, family, outputs, layer, pooling, dim) -> None:
    backend = load_model(f"dir:{write_layout(tmp_path, model_type=family, outputs=outputs)}")
    assert (backend.spec.layer, backend.spec.pooling, backend.spec.dim) == (layer, pooling, dim)
    assert backend.embed([backend.prepare(Image.radial_gradient("L").convert("RGB"))]).shape == (1, dim)


def test_the_whole_jpeg_is_decoded(tmp_path: Path) -> None:
    assert load_model(f"dir:{write_layout(tmp_path)}").decode_px is None


def test_the_id_loads_it_again_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_layout(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    spec = find_model("dir:a").spec
    monkeypatch.chdir("/")
    assert spec.id == f"dir:{tmp_path / 'a'}"
    assert load_model(spec.id).spec == spec


def test_copies_are_comparable_and_other_files_are_not(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    write_layout(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    write_layout(tmp_path / "other", seed=1)
    collection = Collection.create(tmp_path / "c", model=f"dir:{tmp_path / 'a'}")
    collection.add([tmp_path / "p.png"])
    again = Collection.open(tmp_path / "c", model=f"dir:{tmp_path / 'b'}")
    assert len(again) == 1
    with pytest.raises(FingerprintMismatchError, match="weights_sha256"):
        Collection.open(tmp_path / "c", model=f"dir:{tmp_path / 'other'}")


def test_preprocessing_is_part_of_it(tmp_path: Path) -> None:
    before = find_model(f"dir:{write_layout(tmp_path)}").spec.fingerprint
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "resample": 2}))
    assert find_model(f"dir:{tmp_path}").spec.fingerprint != before


def test_a_processor_of_both_kinds(tmp_path: Path) -> None:
    before = find_model(f"dir:{write_layout(tmp_path)}").spec.fingerprint
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": PROCESSOR}))
    assert find_model(f"dir:{tmp_path}").spec.fingerprint == before


def test_what_a_text_tower_will_need(tmp_path: Path) -> None:
    folder = ModelFolder(write_layout(tmp_path), "fp16")
    assert (folder.text_model, folder.tokenizer) == (None, None)
    (tmp_path / "onnx" / "text_model_fp16.onnx").write_bytes(b"")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert folder.text_model == tmp_path / "onnx" / "text_model_fp16.onnx"
    assert folder.tokenizer == tmp_path / "tokenizer.json"


def test_what_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="There is no folder"):
        find_model(f"dir:{tmp_path / 'none'}")
    with pytest.raises(WeightsError, match="has the outputs logits; .* use onnx:"):
        find_model(f"dir:{write_layout(tmp_path, outputs={'logits': [9]})}")
    write_layout(tmp_path)
    for name in ("config.json", "preprocessor_config.json"):
        content = (tmp_path / name).read_text()
        (tmp_path / name).write_text("{")
        with pytest.raises(WeightsError, match=f"{name} cannot be read as JSON"):
            find_model(f"dir:{tmp_path}")
        (tmp_path / name).unlink()
        with pytest.raises(WeightsError, match=f"has no {name}"):
            find_model(f"dir:{tmp_path}")
        (tmp_path / name).write_text(content)


def halve(path: Path) -> None:
    """Write a model's weights, inputs and outputs in 16 bits."""
    model = onnx.load(path)
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path)


@pytest.mark.slow
def test_a_file_in_16_bits_is_measured_beside_the_full_one(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "model")
    half = write_layout(folder, file="onnx/vision_model_fp16.onnx") / "onnx" / "vision_model_fp16.onnx"
    halve(half)
    model = load_model(f"dir:{folder}#fp16", cache_dir=tmp_path)
    assert model.spec.precision == "float16"
    [file] = (tmp_path / "parity").iterdir()
    assert json.loads(file.read_text())["smallest"] > 0.9999
    # A file of another model is found out.
    write_layout(folder, file="onnx/vision_model_fp16.onnx", seed=1)
    halve(half)
    with pytest.raises(ParityError, match="#fp16 differs too much"):
        load_model(f"dir:{folder}#fp16", cache_dir=tmp_path)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure on a dozen images."""
    monkeypatch.setattr(parity, "_N_IMAGES", 12)


def coarsen(path: Path, step: float) -> None:
    """Round a model's weights to multiples of a step."""
    model = onnx.load(path)
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            values = np.rint(numpy_helper.to_array(weight) / step) * step
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), weight.name))
    onnx.save(model, path)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "fp16"])
def test_a_publishers_file_is_measured_beside_the_full_one(tmp_path: Path, precision: str) -> None:
    folder = write_layout(tmp_path / "model")
    file = write_layout(folder, file=f"onnx/vision_model_{precision}.onnx") / "onnx"
    coarsen(file / f"vision_model_{precision}.onnx", 0.15)
    name = f"dir:{folder}#{precision}"
    with pytest.warns(UserWarning, match=rf"#{precision}, measured once .* at least .* of the ten nearest"):
        model = load_model(name, device="cpu", cache_dir=tmp_path)
    assert model.spec.fingerprint != find_model(f"dir:{folder}").spec.fingerprint
    load_model(name, device="cpu", cache_dir=tmp_path)
    coarsen(file / f"vision_model_{precision}.onnx", 2)
    with pytest.raises(
        ParityError, match=rf"#{precision} differs too much .* Use dir:{folder} in full precision"
    ):
        load_model(name, device="cpu", cache_dir=tmp_path)


@pytest.mark.usefixtures("few")
def test_what_cannot_be_compared_is_told_once(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "model", file="onnx/vision_model_quantized.onnx")
    name, said = f"dir:{folder}#quantized", rf"not compared with .* put the full model into {folder}"
    with pytest.warns(UserWarning, match=said):
        assert load_model(name, device="cpu", cache_dir=tmp_path).spec.dim == 6
    load_model(name, device="cpu", cache_dir=tmp_path)
    # A full file that comes later is compared, unless it gives something else.
    write_layout(folder, outputs={"pooler_output": [6]})
    with pytest.warns(UserWarning, match=said):
        load_model(name, device="cpu", cache_dir=tmp_path / "new")
    write_layout(folder, seed=1)
    with pytest.raises(ParityError, match="differs too much"):
        load_model(name, device="cpu", cache_dir=tmp_path)


@pytest.mark.usefixtures("few")
def test_a_full_file_without_its_weights_is_not_there(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "model")
    write_layout(folder, file="onnx/vision_model_quantized.onnx")
    full = folder / "onnx" / "vision_model.onnx"
    onnx.save(onnx.load(full), full, save_as_external_data=True, location="weights", size_threshold=100)
    (folder / "onnx" / "weights").unlink()
    with pytest.warns(UserWarning, match="not compared"):
        load_model(f"dir:{folder}#quantized", device="cpu", cache_dir=tmp_path)
