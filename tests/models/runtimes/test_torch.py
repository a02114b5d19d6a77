"""A module of one's own, by name."""

import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest

from nearsight import Collection, ModelSpec, processor
from nearsight.errors import (
    DeviceError,
    InvalidParameterError,
    UnknownModelError,
    WeightsError,
)
from nearsight.models import find_model, load_model
from nearsight.models.precision import parity
from nearsight.models.preprocess import preprocess
from nearsight.models.runtimes import placement
from nearsight.models.runtimes import torch as of_torch
from nearsight.testing import BackendTests
from nearsight.testing.backends import example_images

torch = pytest.importorskip("torch", reason="make parity installs it")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(placement, "_warned", set())
    monkeypatch.setattr(parity, "_N_IMAGES", 12)
    of_torch._build_module.cache_clear()


@pytest.fixture
def tiny(tmp_path):
    return load_model("torch:models.nets:make", cache_dir=tmp_path)


class TestConformance(BackendTests):
    @pytest.fixture(params=["make", "places", "tokens", "coarse"])
    def backend(self, request, tmp_path):
        with warnings.catch_warnings():
            # How near bfloat16 is.
            warnings.simplefilter("ignore")
            return load_model(f"torch:models.nets:{request.param}", cache_dir=tmp_path)


def test_a_vector_is_what_the_module_gives(tiny):
    from models import nets

    [image] = example_images(3)[2:]
    pixels = torch.from_numpy(preprocess(image, tiny.spec)[None])
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(nets.Tiny().eval()(pixels))[0].numpy()
    np.testing.assert_allclose(tiny.embed([tiny.prepare(image)])[0], wanted, atol=1e-6)
    assert (tiny.spec.dim, tiny.spec.id, tiny.device) == (12, "torch:models.nets:make", "cpu")
    # Four for each number; the count of batches is an eight-byte whole number.
    assert tiny.spec.size_bytes == 4 * sum(v.numel() for v in nets.Tiny().state_dict().values()) + 4


@pytest.mark.parametrize("name", ["from_dict", "from_object", "from_tuple"])
def test_one_output_of_several(tiny, tmp_path, name):
    model = load_model(f"torch:models.nets:{name}", cache_dir=tmp_path)
    prepared = [tiny.prepare(image) for image in example_images(4)]
    np.testing.assert_allclose(model.embed(prepared), tiny.embed(prepared), atol=1e-6)


def test_weights_make_the_fingerprint():
    specs = [find_model(f"torch:models.nets:{name}").spec for name in ("make", "other_weights")]
    assert specs[0].weights_sha256 != specs[1].weights_sha256
    from models import nets

    module = nets.Tiny()
    before = of_torch._hash_weights(module)[0]
    assert before == specs[0].weights_sha256
    # A buffer counts as a parameter does; the mode does not.
    module.eval()
    assert of_torch._hash_weights(module)[0] == before
    module.norm.running_mean += 1e-3
    assert of_torch._hash_weights(module)[0] != before
    assert of_torch._hash_weights(module.half())[0] != before


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "bool"])
def test_weights_of_any_type_can_be_hashed(dtype):
    module = torch.nn.Module()
    module.register_buffer("one", torch.ones((), dtype=getattr(torch, dtype)))
    module.register_buffer("turned", torch.ones((3, 2), dtype=getattr(torch, dtype)).T)
    assert len(of_torch._hash_weights(module)[0]) == 64


def test_training_goes_on_without_us():
    from models import nets

    module = nets.Tiny()
    spec = ModelSpec(id="mine", dim=12, weights_sha256="", **nets.FACTS)
    backend = of_torch.TorchBackend(module, spec)
    prepared = [backend.prepare(image) for image in example_images(3)]
    before = backend.embed(prepared)
    assert module.training
    with torch.no_grad():
        module.head.weight.zero_()
    np.testing.assert_array_equal(backend.embed(prepared), before)


def test_a_module_without_a_name_can_be_pickled():
    from models import nets

    spec = ModelSpec(id="mine", dim=12, weights_sha256="", **nets.FACTS)
    backend = of_torch.TorchBackend(nets.Tiny(), spec)
    prepared = [backend.prepare(image) for image in example_images(3)]
    again = pickle.loads(pickle.dumps(backend))
    np.testing.assert_allclose(again.embed(prepared), backend.embed(prepared), atol=1e-6)


def test_facts_from_the_module():
    spec = find_model("torch:models.nets:with_attribute").spec
    assert (spec.input_px, spec.license) == ((16, 16), "CC0-1.0")
    spec = find_model("torch:models.nets:as_timm").spec
    assert (spec.resize_px, spec.interpolation, spec.license) == (17, "bilinear", "mit")
    assert spec.mean == (0.485, 0.456, 0.406)


def test_half_precision_passes_the_gate(tmp_path, recwarn):
    near = load_model("torch:models.nets:half", cache_dir=tmp_path)
    assert near.spec.precision == "float16"
    assert near.spec.fingerprint != find_model("torch:models.nets:make").spec.fingerprint
    assert len(list((tmp_path / "parity").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "error", "complaint"),
    [
        ("nets", UnknownModelError, "is not the name of a factory; give torch:PACKAGE.MODULE:FACTORY"),
        ("models.nest:make", UnknownModelError, "no module 'models.nest'.*PYTHONPATH=. nearsight"),
        ("models.nets:mak", UnknownModelError, "no factory 'mak'; did you mean make"),
        ("models.nets:alone", InvalidParameterError, "lacks input_px and mean and std"),
        ("models.nets:wrong_fact", InvalidParameterError, "fact 'mena'; did you mean mean"),
        ("models.nets:wrong_dim", InvalidParameterError, r"dim=13, but its output has shape \[1, 12\]"),
        (
            "models.nets:wrong_size",
            WeightsError,
            r"fails on images of shape \[1, 3, 20, 16\]: RuntimeError",
        ),
        ("models.nets:no_module", WeightsError, "returns str; it must return a torch.nn.Module"),
        ("models.nets:failing", WeightsError, "failed: FileNotFoundError: weights.pt"),
        ("models.nets:unnamed", WeightsError, "without a tensor 'output'; give one .*: vector, places"),
        ("models.nets:text", WeightsError, "returns str without a tensor"),
        ("models.nets:flat", WeightsError, r"returns shape \[1\] for 1 images"),
    ],
)
def test_what_is_wrong_is_said(name, error, complaint):
    with pytest.raises(error, match=complaint):
        find_model(f"torch:{name}")


def test_an_output_too_short(tmp_path):
    backend = load_model("torch:models.nets:short", cache_dir=tmp_path)
    with pytest.raises(WeightsError, match=r"returns shape \[1, 12\] for 3 images"):
        backend.embed([backend.prepare(image) for image in example_images(3)])


def test_a_factory_of_changing_weights(tmp_path):
    entry = find_model("torch:models.nets:unsteady")
    of_torch._build_module.cache_clear()
    with pytest.raises(WeightsError, match="must return the same weights each time"):
        entry.load(tmp_path)


def test_forms(tmp_path):
    spec = find_model("torch:models.nets:tokens#pooling=cls").spec
    assert spec.pooling == "cls"
    assert load_model(spec.id, cache_dir=tmp_path).spec == spec
    near = find_model("torch:models.nets:make#cuda").spec
    assert near.precision == "float32-cuda"
    with pytest.raises(UnknownModelError, match="its factory sets layer and precision"):
        find_model("torch:models.nets:make#bf16")
    assert find_model("torch:models.nets:make").variants.layers() == {"output": (1, 12)}


def test_a_device_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="cannot run .* on cuda; it offers cpu.*pytorch.org"):
        load_model("torch:models.nets:make", device="cuda", cache_dir=tmp_path)
    monkeypatch.setattr(processor, "has_nvidia_gpu", lambda: True)
    with pytest.warns(UserWarning, match="GPU is not used: this torch cannot open it"):
        load_model("torch:models.nets:make", cache_dir=tmp_path)


def test_a_device_that_is_there(tmp_path, monkeypatch):
    # The processor stands for the GPU: that the module is moved there, measured and trusted is what is seen.
    moved = []
    real, outputs = of_torch.TorchBackend.__init__, of_torch._outputs
    monkeypatch.setattr(
        of_torch,
        "_outputs",
        lambda module, pixels, spec, _, dtype: outputs(module, pixels, spec, "cpu", dtype),
    )

    def init(self, module, spec, *, device="cpu", reload=None):
        moved.append(device)
        real(self, module, spec, device="cpu", reload=reload)
        self._device = device

    monkeypatch.setattr(of_torch.TorchBackend, "__init__", init)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    backend = load_model("torch:models.nets:make", cache_dir=tmp_path)
    assert backend.device == "cuda"
    assert moved == ["cpu", "cuda"]
    assert backend.spec.fingerprint == find_model("torch:models.nets:make").spec.fingerprint
    assert pickle.loads(pickle.dumps(backend)).device == "cuda"
    assert load_model("torch:models.nets:make", device="cuda:1", cache_dir=tmp_path).device == "cuda:1"
    own = load_model("torch:models.nets:make#cuda", device="cuda:1", cache_dir=tmp_path)
    assert (own.device, own.spec.id) == ("cuda:1", "torch:models.nets:make#cuda")
    assert load_model("torch:models.nets:make#cuda", cache_dir=tmp_path).device == "cuda"
    with pytest.raises(DeviceError, match="#cuda runs on cuda only"):
        load_model("torch:models.nets:make#cuda", device="mps", cache_dir=tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_real_gpu(tmp_path, tiny):
    backend = load_model("torch:models.nets:make", device="cuda", cache_dir=tmp_path)
    prepared = [tiny.prepare(image) for image in example_images(9)]
    np.testing.assert_allclose(backend.embed(prepared), tiny.embed(prepared), atol=1e-3)


def test_a_collection_of_it(tmp_path):
    made = example_images(9)[2:]
    collection = Collection.create(tmp_path / "c", model="torch:models.nets:make", cache_dir=tmp_path)
    collection.add(made)
    of_torch._build_module.cache_clear()
    again = Collection.open(tmp_path / "c", cache_dir=tmp_path)
    assert again.search(made[3], k=1)[0].similarity > 0.9999


def test_a_spec_as_facts(monkeypatch):
    from models import nets

    spec = ModelSpec(id="any", dim=12, weights_sha256="0", **nets.FACTS, license="mit")
    monkeypatch.setattr(nets, "make", lambda: (nets.Tiny(), spec))
    found = find_model("torch:models.nets:make").spec
    assert found == replace(
        spec,
        id="torch:models.nets:make",
        weights_sha256=found.weights_sha256,
        size_bytes=found.size_bytes,
    )
