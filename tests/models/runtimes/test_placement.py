"""Devices: chosen, measured before they are trusted, and told about where they stand idle."""

import json
import pickle
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from models.layouts import write_layout
from runtime import FakeRuntime

from nearsight import Collection, Embedder, processor
from nearsight.errors import (
    DeviceError,
    FingerprintMismatchError,
    InvalidParameterError,
    MissingExtraError,
    ParityError,
)
from nearsight.models import find_model, load_model
from nearsight.models.precision import parity
from nearsight.models.runtimes import devices, openvino, placement
from nearsight.models.runtimes.onnx_session import offered_devices
from nearsight.models.synthetic_images import synthetic_images
from nearsight.testing import BackendTests

from fake import FakeBackend

CUDA, COREML = "CUDAExecutionProvider", "CoreMLExecutionProvider"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing has been told; few images are measured on."""
    monkeypatch.setattr(placement, "_warned", set())
    monkeypatch.setattr(parity, "_N_IMAGES", 12)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network of one matrix: what batches do to it, and what a device does, is plain to see."""
    return f"dir:{write_layout(tmp_path_factory.mktemp('model'))}"


@pytest.fixture
def machine(monkeypatch):
    def become(*offered, **facts):
        runtime = FakeRuntime(*offered, **facts)
        monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
        return runtime

    return become


def vectors(backend, n=11):
    return backend.embed([backend.prepare(image) for image in synthetic_images(12, seed=1)[:n]])


class TestOnADevice(BackendTests):
    @pytest.fixture
    def backend(self, model, tmp_path, machine):
        machine(CUDA)
        return load_model(model, device="cuda", cache_dir=tmp_path)


@pytest.fixture(scope="module")
def lite0_openvino(cache_dir):
    return load_model("efficientnet-lite0", device="openvino", cache_dir=cache_dir)


@pytest.mark.processor
@pytest.mark.skipif(not openvino.is_installed(), reason="needs OpenVINO")
class TestOpenVino(BackendTests):
    @pytest.fixture
    def backend(self, lite0_openvino):
        return lite0_openvino

    def test_it_is_the_same_model(self, backend, lite0):
        assert backend.device == "openvino"
        assert backend.spec == lite0.spec
        assert (vectors(backend) * vectors(lite0)).sum(1).min() > 0.99999


@pytest.fixture(scope="module")
def lite0_cuda(cache_dir):
    return load_model("efficientnet-lite0", device="cuda", cache_dir=cache_dir)


@pytest.mark.gpu
@pytest.mark.skipif(
    not (processor.has_nvidia_gpu() and "cuda" in offered_devices()),
    reason="needs an NVIDIA GPU and onnxruntime-gpu",
)
class TestCuda(BackendTests):
    @pytest.fixture
    def backend(self, lite0_cuda):
        return lite0_cuda

    def test_the_same_images_give_the_same_vectors(self, backend, prepared, vectors):
        # A GPU does not promise equality to the last bit.
        np.testing.assert_allclose(backend.embed(prepared), vectors, atol=1e-5)


def test_auto_takes_what_is_offered_and_opens_without_a_word(model, tmp_path, machine):
    runtime = machine("TensorrtExecutionProvider", CUDA)
    backend = load_model(model, cache_dir=tmp_path)
    assert backend.device == "cuda"
    assert [session.provider for session in runtime.sessions] == [CUDA]
    assert runtime.sessions[0].provider_options["use_tf32"] == 0
    cpu = load_model(model, device="cpu", cache_dir=tmp_path)
    assert cpu.device == "cpu"
    assert backend.spec == cpu.spec
    np.testing.assert_allclose(vectors(backend), vectors(cpu), atol=1e-5)


def test_what_is_measured_is_remembered_with_the_machine(model, tmp_path, machine, monkeypatch):
    runtime = machine(CUDA)
    load_model(model, cache_dir=tmp_path)
    n_images = sum(runtime.sessions[0].batches)
    load_model(model, cache_dir=tmp_path)
    assert sum(runtime.sessions[1].batches) < n_images
    [file] = (tmp_path / "parity").iterdir()
    assert json.loads(file.read_text())["runtime"] == "cuda"
    # Another driver is another machine.
    monkeypatch.setattr(devices, "nvidia_driver", lambda: "NVRM version: 999")
    parity._machine.cache_clear()
    load_model(model, cache_dir=tmp_path)
    assert sum(runtime.sessions[2].batches) == n_images
    parity._machine.cache_clear()


def test_auto_falls_back_and_says_so_once(model, tmp_path, machine):
    machine(CUDA, opens=False)
    with pytest.warns(
        UserWarning,
        match=r"cuda is not used; the model runs on the processor: onnxruntime offers cuda but cannot",
    ):
        assert load_model(model, cache_dir=tmp_path).device == "cpu"
    load_model(model, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ({"opens": False}, r"cannot open it.*no NVIDIA GPU.*pip uninstall -y .*onnxruntime-gpu\[cuda"),
        ({"opens": "CUDA failure 100: no device"}, "cuda:1 cannot open dir:.*: CUDA failure 100"),
    ],
)
def test_a_device_by_name_never_falls_back(model, tmp_path, machine, facts, complaint, monkeypatch):
    monkeypatch.setattr(processor, "has_nvidia_gpu", lambda: False)
    machine(CUDA, **facts)
    with pytest.raises(DeviceError, match=complaint):
        load_model(model, device="cuda:1", cache_dir=tmp_path)


def test_a_device_that_this_build_lacks(model, tmp_path, machine, monkeypatch):
    machine()
    monkeypatch.setattr(devices, "installed_onnxruntime_packages", lambda: ["onnxruntime"])
    wanted = "has no DmlExecutionProvider.*pip uninstall -y onnxruntime && pip install onnxruntime-directml"
    with pytest.raises(DeviceError, match=wanted):
        load_model(model, device="directml", cache_dir=tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(openvino, "is_installed", lambda: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'nearsight\[openvino\]'"):
        load_model(model, device="openvino", cache_dir=tmp_path)


def test_a_device_that_is_none(model):
    with pytest.raises(InvalidParameterError, match=r"'cudo'; did you mean cuda\?"):
        load_model(model, device="cudo")
    with pytest.raises(InvalidParameterError, match="cuda:1"):
        load_model(model, device="cuda:x")
    with pytest.raises(DeviceError, match="cannot run on mps"):
        load_model(model, device="mps")


def test_an_idle_gpu_is_told_once_with_the_way_to_use_it(model, tmp_path, machine, monkeypatch):
    machine("AzureExecutionProvider")
    monkeypatch.setattr(processor, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(devices, "installed_onnxruntime_packages", lambda: ["onnxruntime"])
    with pytest.warns(
        UserWarning, match=r"GPU is not used.*pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu"
    ):
        load_model(model, cache_dir=tmp_path)
    load_model(model, cache_dir=tmp_path)
    load_model(model, device="cpu", cache_dir=tmp_path)


def test_a_device_that_errs_a_little_is_used_by_name_only(model, tmp_path, machine):
    machine(COREML, error=0.05)
    said = r"coreml is not used for .*device='coreml' uses it.*cosine to the exact vectors at least 0\.99\d+"
    with pytest.warns(UserWarning, match=said):
        assert load_model(model, cache_dir=tmp_path).device == "cpu"
    with pytest.warns(UserWarning, match=r"#coreml, measured once on this machine: .* of the ten nearest"):
        named = load_model(model, device="coreml", cache_dir=tmp_path)
    exact = load_model(model, device="cpu", cache_dir=tmp_path)
    assert named.device == "coreml"
    assert named.spec.id == f"{model}#coreml"
    assert named.spec.precision == "float32-coreml"
    assert named.spec.fingerprint != exact.spec.fingerprint
    # The name leads back, and the form knows its place.
    assert find_model(named.spec.id).spec == named.spec
    for device in ("auto", "cpu", "coreml"):
        again = load_model(named.spec.id, device=device, cache_dir=tmp_path)
        np.testing.assert_array_equal(vectors(again), vectors(named))
    with pytest.raises(DeviceError, match="#coreml runs on coreml only"):
        load_model(named.spec.id, device="cuda", cache_dir=tmp_path)
    np.testing.assert_array_equal(vectors(pickle.loads(pickle.dumps(named))), vectors(named))


def test_a_device_that_errs_much_is_refused(model, tmp_path, machine):
    machine(COREML, error=0.3)
    with pytest.raises(ParityError, match=r"#coreml differs too much.*at least 0\.99"):
        load_model(model, device="coreml", cache_dir=tmp_path)
    with pytest.raises(ParityError, match="differs too much"), warnings.catch_warnings():
        load_model(f"{model}#coreml", cache_dir=tmp_path)
    with pytest.warns(UserWarning, match="coreml is not used") as told:
        assert load_model(model, cache_dir=tmp_path / "new").device == "cpu"
    assert "device='coreml'" not in str(told[0].message)


def test_collections_of_two_arithmetics_do_not_mix(model, tmp_path, machine):
    machine(COREML, error=0.05)
    images = [np.asarray(image) for image in synthetic_images(12, seed=1)[:6]]
    exact = Collection.create(tmp_path / "exact", model=model, device="cpu", cache_dir=tmp_path)
    exact.add(images)
    with pytest.warns(UserWarning, match="measured once"):
        near = Collection.create(tmp_path / "near", model=model, device="coreml", cache_dir=tmp_path)
    near.add(images)
    assert near.spec.precision == "float32-coreml"
    # It goes on there, whatever is asked for.
    again = Collection.open(tmp_path / "near", cache_dir=tmp_path)
    assert again.search(images[3], k=1)[0].similarity > 0.9999
    with pytest.raises(FingerprintMismatchError, match=r"output.precision: float32, there float32-coreml"):
        Collection.open(tmp_path / "exact", device="coreml", cache_dir=tmp_path).search(images[0])


def test_threads_fill_batches_of_few_sizes(model, tmp_path, machine):
    runtime = machine(CUDA)
    backend = load_model(model, device="cuda", cache_dir=tmp_path)
    [session] = runtime.sessions
    expected = np.tile(vectors(load_model(model, device="cpu", cache_dir=tmp_path), 12), (5, 1))
    prepared = 5 * [backend.prepare(image) for image in synthetic_images(12, seed=1)]
    session.batches.clear()
    session.delay_s = 0.1  # long enough for others to come meanwhile
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda i: backend.embed(prepared[6 * i : 6 * i + 6]), range(10)))
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5)
    assert set(session.batches) <= {1, 8, 32, 64}
    assert len(session.batches) < 10  # threads alone would run ten


def test_each_size_of_a_batch_runs_before_the_first_image(model, tmp_path, machine):
    """So that a GPU searches for its algorithms only once for each."""
    runtime = machine(CUDA)
    backend = load_model(model, device="cuda", cache_dir=tmp_path)
    assert runtime.sessions[0].batches[:6] == [1, 8, 32, 64, 128, 256] == list(backend.batch_sizes)
    backend.embed([backend.prepare(synthetic_images(1, seed=1)[0])] * 200)
    assert set(runtime.sessions[0].batches) == set(backend.batch_sizes)


def test_a_device_of_little_memory_takes_smaller_batches(model, tmp_path, machine):
    runtime = machine(CUDA, largest=64)
    backend = load_model(model, device="cuda", cache_dir=tmp_path)
    assert backend.batch_sizes == (1, 8, 32, 64)
    assert vectors(backend).shape == (11, 6)
    assert max(runtime.sessions[0].batches) == 128


def test_a_network_that_takes_one_image_only(model, tmp_path, machine):
    runtime = machine(CUDA, single=True)
    backend = load_model(model, device="cuda", cache_dir=tmp_path)
    assert vectors(backend).shape == (11, 6)
    assert set(runtime.sessions[0].batches) == {1, 8}
    assert runtime.sessions[0].batches.count(8) == 1


def test_options_of_providers(model, tmp_path, machine):
    runtime = machine("DmlExecutionProvider", "TensorrtExecutionProvider", COREML)
    load_model(model, device="directml:1", cache_dir=tmp_path)
    load_model(model, device="tensorrt", cache_dir=tmp_path)
    load_model(model, device="coreml", cache_dir=tmp_path)
    directml, tensorrt, coreml = runtime.sessions
    # DirectML's documentation asks for this.
    assert not directml.options.enable_mem_pattern
    assert directml.provider_options == {"device_id": 1}
    assert tensorrt.provider_options["trt_engine_cache_path"].startswith(str(tmp_path / "tensorrt"))
    assert set(coreml.batches) == {1}


def test_nothing_is_printed(model, tmp_path, machine, capsys):
    runtime = machine(CUDA)
    load_model(model, device="cuda", cache_dir=tmp_path)
    assert runtime.preloaded
    assert capsys.readouterr().out == ""


def test_a_model_of_the_processor_only(tmp_path, machine):
    machine(CUDA)
    with pytest.raises(DeviceError, match="runs on the processor only; leave device='cuda' away"):
        placement.place_on_device(FakeBackend(), "cuda", tmp_path, load_device_specific=lambda _: None)
    assert isinstance(
        placement.place_on_device(FakeBackend(), "auto", tmp_path, load_device_specific=lambda _: None),
        FakeBackend,
    )


def test_a_loaded_model_has_its_place():
    with pytest.raises(InvalidParameterError, match="runs on cpu; give its name instead"):
        Embedder(FakeBackend(), device="cuda")


def test_a_projection_goes_along(tmp_path, machine, model):
    collection = Collection.create(tmp_path / "c", model=model, device="cpu", cache_dir=tmp_path)
    collection.add([np.asarray(image) for image in synthetic_images(12, seed=1)])
    collection.reduce_dim(3, tmp_path / "short")
    machine(CUDA)
    short = Collection.open(tmp_path / "short", device="cuda", cache_dir=tmp_path)
    assert short._backend.device == "cuda"
    expected = vectors(load_model(f"pca:{tmp_path}/short/projection.npz", device="cpu", cache_dir=tmp_path))
    np.testing.assert_allclose(vectors(short._backend), expected, atol=1e-4)


@pytest.mark.processor
def test_an_embedder_on_a_device_has_threads_to_spare(model, tmp_path, machine):
    machine(CUDA)
    on_device = Embedder(model, cache_dir=tmp_path)
    assert on_device.n_threads > Embedder(model, device="cpu", cache_dir=tmp_path).n_threads
    images = [np.asarray(image) for image in 2 * synthetic_images(12, seed=1)]
    found = on_device.embed(images).vectors
    np.testing.assert_allclose(
        found, Embedder(model, device="cpu", cache_dir=tmp_path).embed(images).vectors, atol=1e-5
    )


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ("", 0.0),
        ("#layer=flat", 0.0),
        ("#dim=4", 0.0),
        ("#fp16=builtin", 0.0),
        ("#dim=4,fp16=builtin", 0.0),
        ("#cuda", 0.05),
        ("", 0.05),
        ("#layer=flat", 0.05),
        ("#dim=4", 0.05),
        ("#dim=4,cuda", 0.05),
        ("#fp16=builtin", 0.05),
        ("#fp16=builtin,cuda", 0.05),
        ("#dim=4,fp16=builtin", 0.05),
    ],
)
@pytest.mark.filterwarnings("ignore:.*measured once")
def test_the_number_of_a_device_reaches_every_form(tmp_path, machine, form, error):
    folder = write_layout(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "matryoshka_dimensions": [2]}))
    runtime = machine(CUDA, error=error)
    backend = load_model(f"dir:{folder}{form}", device="cuda:1", cache_dir=tmp_path)
    again = pickle.loads(pickle.dumps(backend))
    assert [one.device for one in (backend, again)] == ["cuda:1"] * 2
    assert {session.provider_options["device_id"] for session in runtime.sessions} == {1}
    np.testing.assert_array_equal(vectors(backend), vectors(again))
    # The name of what is not quite the model has no number: all devices of a kind compute the same.
    assert ("cuda" in backend.spec.id) == (error > 0)
    named = load_model(backend.spec.id, device="cuda:1", cache_dir=tmp_path)
    assert (named.spec, named.device) == (backend.spec, "cuda:1")
    assert runtime.sessions[-1].provider_options["device_id"] == 1


def test_the_number_of_a_device_reaches_a_collections_own_projection(tmp_path, machine, model):
    runtime = machine(CUDA, error=0.05)
    with pytest.warns(UserWarning, match="measured once"):
        collection = Collection.create(tmp_path / "c", model=model, device="cuda:1", cache_dir=tmp_path)
    collection.add([np.asarray(image) for image in synthetic_images(12, seed=1)])
    collection.reduce_dim(3, tmp_path / "short")
    short = Collection.open(tmp_path / "short", device="cuda:1", cache_dir=tmp_path)
    assert short.search(np.asarray(synthetic_images(12, seed=1)[2]), k=1)[0].similarity > 0.999
    assert {session.provider_options["device_id"] for session in runtime.sessions} == {1}


@pytest.mark.processor
def test_float16_on_a_device_is_compared_with_the_processor_in_float32(model, tmp_path, machine):
    runtime = machine(CUDA)
    with pytest.warns(UserWarning, match=rf"#fp16=builtin on cuda gives the vectors of {model}; measured"):
        backend = load_model(f"{model}#fp16=builtin", device="cuda", cache_dir=tmp_path)
    assert backend.spec == find_model(model).spec
    exact = load_model(model, device="cpu", cache_dir=tmp_path)
    assert not np.array_equal(vectors(backend), vectors(exact))
    np.testing.assert_allclose(vectors(backend), vectors(exact), atol=1e-3)
    assert load_model(f"{model}#fp16=builtin", cache_dir=tmp_path).device == "cuda"
    assert {session.provider for session in runtime.sessions} == {CUDA}


@pytest.mark.slow
@pytest.mark.processor
@pytest.mark.filterwarnings("ignore:.*slower than float32", "ignore:.*on cpu gives the vectors")
def test_float16_of_its_own_on_a_device(model, tmp_path, machine):
    machine(CUDA, error=0.05)
    with pytest.warns(UserWarning, match=r"#fp16=builtin,cuda, measured once .* of the ten nearest"):
        backend = load_model(f"{model}#fp16=builtin", device="cuda", cache_dir=tmp_path)
    assert backend.spec.id == f"{model}#fp16=builtin,cuda"
    assert find_model(backend.spec.id).spec == backend.spec
    prints = [find_model(f"{model}{form}").spec.fingerprint for form in ("", "#cuda", "#fp16=builtin,cpu")]
    assert backend.spec.fingerprint not in prints
    # What `auto` was to find are the vectors of float32, and the processor has them.
    with pytest.warns(UserWarning, match=r"cuda is not used for .*#fp16=builtin.*device='cuda' uses it"):
        auto = load_model(f"{model}#fp16=builtin", cache_dir=tmp_path / "new")
    on_processor = "openvino" if openvino.has_float16() else "cpu"
    assert (auto.device, auto.spec) == (on_processor, find_model(model).spec)
    with pytest.raises(DeviceError, match="runs on cuda only"):
        load_model(backend.spec.id, device="directml", cache_dir=tmp_path)


def test_float16_on_a_device_that_errs_much_is_refused(model, tmp_path, machine):
    machine(CUDA, error=0.3)
    with pytest.raises(ParityError, match=r"#fp16=builtin differs too much.*at least 0\.99"):
        load_model(f"{model}#fp16=builtin", device="cuda", cache_dir=tmp_path)


def test_a_lossy_device_and_a_model_of_one_form(tmp_path, machine, model):
    collection = Collection.create(tmp_path / "c", model=model, device="cpu", cache_dir=tmp_path)
    collection.add([np.asarray(image) for image in synthetic_images(12, seed=1)])
    collection.reduce_dim(3, tmp_path / "short")
    machine(COREML, error=0.02)
    with pytest.raises(ParityError, match="has no variants, and coreml computes slightly different vectors"):
        load_model(f"pca:{tmp_path}/short/projection.npz", device="coreml", cache_dir=tmp_path)


def test_engines_of_two_networks_do_not_share_a_folder(model, tmp_path, machine):
    runtime = machine("TensorrtExecutionProvider")
    for form in ("", "#fp16=builtin"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            load_model(f"{model}{form}", device="tensorrt", cache_dir=tmp_path)
    folders = {session.provider_options["trt_engine_cache_path"] for session in runtime.sessions}
    assert len(folders) == 2
