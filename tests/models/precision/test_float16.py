"""float16: what it keeps of a network, and when its vectors are the model's own."""

import warnings

import numpy as np
import onnx
import pytest
from models.convolutions import network
from models.eight_bits import loaded_or_skipped
from models.vit import transformer
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from onnxruntime.transformers.float16 import convert_float_to_float16

from nearsight import Collection
from nearsight.errors import (
    DeviceError,
    FingerprintMismatchError,
    ParityError,
    UnknownModelError,
    WeightsError,
)
from nearsight.models import find_model, load_model
from nearsight.models.onnx_graph import convert_types, weights, with_weights
from nearsight.models.precision import float16, parity
from nearsight.models.precision.int8_calibration import calibrate
from nearsight.models.precision.parity import compare
from nearsight.models.preprocess import preprocess
from nearsight.models.runtimes import openvino, placement
from nearsight.models.synthetic_images import synthetic_images
from nearsight.testing import BackendTests

# What is measured is told once, by whichever test comes first.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*measured once", f"ignore:.*{float16.SLOW_PROCESSOR_NOTE}"),
    pytest.mark.processor,
]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing has been told, few images are measured on, and the runtime is that of most processors."""
    monkeypatch.setattr(placement, "_warned", set())
    monkeypatch.setattr(parity, "_N_IMAGES", 12)
    monkeypatch.setattr(openvino, "has_float16", lambda: False)


def load(name, cache_dir):
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # Fixtures of a module come before what `fresh` does.
        warnings.simplefilter("ignore", UserWarning)
        patch.setattr(openvino, "has_float16", lambda: False)
        return load_model(name, device="cpu", cache_dir=cache_dir)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return transformer(tmp_path_factory.mktemp("vit") / "vit.onnx")


@pytest.fixture(scope="module")
def loud(tmp_path_factory):
    return transformer(tmp_path_factory.mktemp("vit") / "loud.onnx", loudness=1e3)


@pytest.fixture(scope="module")
def lite0_half(cache_dir):
    return load("efficientnet-lite0#fp16", cache_dir)


@pytest.fixture(scope="module")
def vit_half(vit, cache_dir):
    return load(f"{vit}#fp16", cache_dir)


@pytest.fixture(scope="module")
def vit_own(vit, cache_dir):
    return load(f"{vit}#fp16,cpu", cache_dir)


@pytest.mark.slow
class TestLite0(BackendTests):
    @pytest.fixture
    def backend(self, lite0_half):
        return lite0_half

    @pytest.mark.slow
    def test_is_the_default_model_by_its_vectors(self, backend, lite0):
        shown = synthetic_images(30, seed=99)
        X, exact = (b.embed([b.prepare(image) for image in shown]) for b in (backend, lite0))
        assert parity.EQUIVALENT_COSINE <= compare(X, exact).smallest < 1
        assert backend.spec == lite0.spec


@pytest.mark.slow
class TestTransformer(BackendTests):
    @pytest.fixture
    def backend(self, vit_half):
        return vit_half


class TestOfItsOwn(BackendTests):
    """Where it was not near enough to be the model itself."""

    @pytest.fixture
    def backend(self, vit_own):
        return vit_own

    def test_its_name_leads_back(self, backend):
        assert find_model(backend.spec.id).spec == backend.spec


def test_what_is_measured_is_told_once(vit, tmp_path):
    with pytest.warns(UserWarning, match="measured once") as told:
        backend = load_model(f"{vit}#fp16", device="cpu", cache_dir=tmp_path)
    slow, near = (str(warning.message) for warning in told)
    assert slow == f"{vit}#fp16: {float16.SLOW_PROCESSOR_NOTE}"
    assert f"#fp16 on cpu gives the vectors of {vit}; measured once: cosine to the exact vectors" in near
    assert "of the ten nearest neighbors the same" in near
    assert backend.spec == find_model(vit).spec
    load_model(f"{vit}#fp16", device="cpu", cache_dir=tmp_path)


def test_a_collection_is_of_both(vit, tmp_path):
    images = [np.asarray(image) for image in synthetic_images(6, seed=2)]
    collection = Collection.create(tmp_path / "c", model=f"{vit}#fp16", device="cpu", cache_dir=tmp_path)
    assert collection.spec == find_model(vit).spec
    collection.add(images[:3])
    exact = Collection.open(tmp_path / "c", model=vit, cache_dir=tmp_path)
    exact.add(images[3:])
    near = Collection.open(tmp_path / "c", model=f"{vit}#fp16", cache_dir=tmp_path)
    assert near.search(images[4], k=1)[0].similarity > 0.9999


@pytest.mark.slow
def test_what_is_not_quite_the_model_has_a_fingerprint_of_its_own(vit, tmp_path, monkeypatch):
    for module in (parity, placement):
        monkeypatch.setattr(module, "EQUIVALENT_COSINE", 1.1)
    with pytest.warns(UserWarning, match=r"#fp16,cpu, measured once on this machine: cosine"):
        collection = Collection.create(
            tmp_path / "near", model=f"{vit}#fp16", device="cpu", cache_dir=tmp_path
        )
    assert collection.spec.id == f"{vit}#fp16,cpu"
    assert collection.fingerprint != find_model(vit).spec.fingerprint
    image = np.asarray(synthetic_images(6, seed=2)[0])
    collection.add([image])
    # Whatever a later measurement would say, its name means these vectors.
    monkeypatch.undo()
    again = Collection.open(tmp_path / "near", device="cpu", cache_dir=tmp_path)
    assert again.search(image, k=1)[0].similarity > 0.9999
    with pytest.raises(FingerprintMismatchError, match=r"output.precision: fp16-\w+-cpu, there float32"):
        Collection.open(tmp_path / "near", model=vit, cache_dir=tmp_path)


def test_what_is_too_far_is_refused(vit, tmp_path, monkeypatch):
    for module in (parity, placement):
        monkeypatch.setattr(module, "MIN_COSINE", 1.1)
    with pytest.raises(ParityError, match=r"#fp16 differs too much.*at least 1.1 .*in full precision"):
        load_model(f"{vit}#fp16", device="cpu", cache_dir=tmp_path)


def test_squares_may_leave_the_range(loud):
    """In numpy's float16: ONNX Runtime leaves out casts on a processor, and so hides what overflows."""
    entry = find_model(loud)
    graph = entry.variants.graph(None)
    pixels = np.stack([preprocess(image, entry.spec) for image in synthetic_images(12, seed=7)])

    def run(model):
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(onnx.load_model_from_string(model))
            return evaluator.run(["image_embeds"], {"pixels": pixels})[0]

    wanted = run(graph.read_bytes())
    found = run(float16.convert_to_float16(graph, entry.spec))
    assert compare(found, wanted).smallest > parity.EQUIVALENT_COSINE
    plain = run(convert_types(graph, lambda model: convert_float_to_float16(model, keep_io_types=True)))
    assert not (compare(plain, wanted).smallest >= parity.MIN_COSINE)


def test_what_overflows_is_refused(tmp_path):
    name = network(tmp_path / "net.onnx")
    path = tmp_path / "net.onnx"
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    path.write_bytes(with_weights(path, {key: held[key] * 300 for key in ("w0", "w1", "w2")}))
    with pytest.raises(WeightsError, match="not finite.*use the float32 version"):
        load_model(f"{name}#fp16", device="cpu", cache_dir=tmp_path)


def test_weights_are_of_16_bits_but_for_what_is_kept(tmp_path):
    entry = find_model(network(tmp_path / "net.onnx"))
    made = onnx.load_model_from_string(
        float16.convert_to_float16(entry.variants.graph(None), entry.spec, float32_operations=["conv0"])
    )
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kinds["w0"] == TensorProto.FLOAT
    assert kinds["w1"] == kinds["w2"] == kinds["b2"] == TensorProto.FLOAT16
    for value in (*made.graph.input, *made.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT


def test_nothing_is_rounded_between_what_stays_in_float32(vit):
    entry = find_model(vit)
    graph = onnx.load_model_from_string(
        float16.convert_to_float16(entry.variants.graph(None), entry.spec)
    ).graph
    nodes = {node.name: node for node in graph.node}
    for first, then in (("squared", "variance"), ("variance", "safe"), ("safe", "root")):
        assert nodes[f"first.{then}"].input[0] in nodes[f"first.{first}"].output


@pytest.mark.slow
@pytest.mark.parametrize("passed_on", [False, True])
def test_biases_that_convolutions_share(tmp_path, passed_on):
    """As exporters store them: one for several, or passed on by an operation that does nothing."""
    name, path = network(tmp_path / "net.onnx"), tmp_path / "net.onnx"
    model = onnx.load(path)
    second = next(node for node in model.graph.node if node.output[0] == "conv1")
    if passed_on:
        model.graph.node.insert(0, onnx.helper.make_node("Identity", ["b0"], ["same"]))
    second.input[2] = "same" if passed_on else "b0"
    onnx.save(model, path)
    entry = find_model(name)
    before, after = weights(path), weights(float16.round_weights_to_float16(path, entry.spec))
    assert not np.array_equal(after["b2"], before["b2"])
    if passed_on:
        # Each gets its own correction.
        assert not np.array_equal(after["b0"], after["same"])
    else:
        # It is nobody's to correct.
        np.testing.assert_array_equal(after["b0"], before["b0"])
    assert load(f"{name}#fp16", tmp_path).spec.fingerprint == entry.spec.fingerprint
    eight_bits = loaded_or_skipped(lambda: load(f"{name}#int8", tmp_path))
    assert eight_bits.spec.precision.startswith("int8")


@pytest.mark.slow
def test_the_same_bytes_each_time(vit):
    entry = find_model(vit)
    graph = entry.variants.graph(None)
    assert float16.convert_to_float16(graph, entry.spec) == float16.convert_to_float16(graph, entry.spec)


@pytest.mark.parametrize("form", ["#bf16,cuda", "#int8,cpu", "#cpu"])
def test_forms_that_no_device_has(form):
    with pytest.raises(UnknownModelError, match=r"only fp16 and full precision can belong to a device"):
        find_model(f"efficientnet-lite0{form}")


def test_it_is_made_out_of_float32_only(tmp_path):
    name = network(tmp_path / "net.onnx")
    with pytest.raises(UnknownModelError, match="in full precision and full length"):
        calibrate(f"{name}#fp16", tmp_path, cache_dir=tmp_path)
    facts = tmp_path / "net.onnx.json"
    facts.write_text(facts.read_text().replace("{", '{"precision": "float16", ', 1))
    with pytest.raises(UnknownModelError, match=r"is in float16, but fp16 is computed from float32"):
        find_model(f"{name}#fp16")


@pytest.mark.skipif(not openvino.is_installed(), reason="needs OpenVINO")
def test_openvino_is_not_believed_blindly(vit, tmp_path, monkeypatch):
    monkeypatch.undo()
    if openvino.has_float16():
        pytest.skip("this processor computes in float16")
    with pytest.raises(DeviceError, match="cannot compute in float16"):
        load_model(f"{vit}#fp16", device="openvino", cache_dir=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not openvino.is_installed(), reason="needs OpenVINO")
def test_a_processor_that_has_float16_computes_in_it(vit, tmp_path, monkeypatch):
    monkeypatch.setattr(openvino, "has_float16", lambda: True)
    with pytest.warns(UserWarning, match="measured once") as told:
        backend = load_model(f"{vit}#fp16", device="cpu", cache_dir=tmp_path)
    assert backend.device == "openvino"
    assert float16.SLOW_PROCESSOR_NOTE not in str(told[0].message)
