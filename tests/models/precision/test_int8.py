"""Eight-bit forms, and calibrating them on images."""

import warnings

import numpy as np
import onnx
import pytest
from models.convolutions import network
from models.eight_bits import loaded_or_skipped
from onnx import TensorProto
from PIL import Image

from nearsight.errors import InvalidParameterError, ParityError, UnknownModelError, WeightsError
from nearsight.models import find_model, load_model
from nearsight.models.precision import int8_calibration
from nearsight.models.precision.int8 import calibration_digits, first_operations, quantize_int8, to_int8
from nearsight.models.precision.int8_calibration import MIN_IMAGES, agreement, calibrate
from nearsight.models.precision.parity import compare
from nearsight.models.preprocess import resize_and_crop
from nearsight.models.synthetic_images import synthetic_images
from nearsight.testing import BackendTests
from nearsight.testing.backends import example_images


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    return network(tmp_path_factory.mktemp("net") / "net.onnx")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(synthetic_images(44, seed=5)):
        (folder / f"{i % 2}").mkdir(exist_ok=True)
        image.resize((64, 48)).save(folder / f"{i % 2}" / f"{i:02}.png")
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="module")
def made(name, photos, cache_dir):
    return calibrate(name, photos, cache_dir=cache_dir)


def load(name, cache_dir):
    with warnings.catch_warnings():
        # The parity, told once; whether it is below .9999 is the processor's matter.
        warnings.simplefilter("ignore", UserWarning)
        return load_model(name, cache_dir=cache_dir)


@pytest.fixture(scope="module")
def lite0_int8(cache_dir):
    return loaded_or_skipped(lambda: load("efficientnet-lite0#int8", cache_dir))


@pytest.mark.slow
@pytest.mark.processor
class TestLite0(BackendTests):
    @pytest.fixture
    def backend(self, lite0_int8):
        return lite0_int8


@pytest.mark.slow
class TestCalibrated(BackendTests):
    # An untrained network sees textures, and most of these images alike.
    test_different_images_have_different_vectors = None

    @pytest.fixture
    def backend(self, made, cache_dir):
        return load(made.model, cache_dir)


@pytest.mark.slow
@pytest.mark.processor
def test_the_default_model_stays_near(lite0_int8, lite0):
    shown = synthetic_images(30, seed=99)
    X, exact = (b.embed([b.prepare(image) for image in shown]) for b in (lite0_int8, lite0))
    found = compare(X, exact)
    assert 0.99 <= found.smallest < 1
    assert found.mean > 0.997


@pytest.mark.slow
def test_the_same_images_give_the_same_name_and_vectors(name, photos, made, tmp_path, cache_dir):
    again = calibrate(name, photos, cache_dir=tmp_path)
    assert again.model == made.model
    one, other = load(made.model, cache_dir), load(again.model, tmp_path)
    shown = [one.prepare(image) for image in example_images(5)]
    np.testing.assert_allclose(one.embed(shown), other.embed(shown), atol=1e-5)


@pytest.mark.slow
def test_other_images_are_another_fingerprint(name, photos, made, tmp_path):
    for file in list(photos.rglob("*.png"))[:40]:
        if file.name != "broken.png":
            Image.open(file).rotate(180).save(tmp_path / file.name)
    other = calibrate(name, tmp_path, cache_dir=tmp_path)
    names = [name, f"{name}#int8", made.model, other.model]
    prints = [find_model(each).spec.fingerprint for each in names]
    assert len({each.digest for each in prints}) == 4
    assert len({each.model for each in prints}) == 1


def test_what_is_told(made):
    assert made.n_calibration == 22
    assert made.n_held_out == 22
    [*_, last] = made.trials
    assert last.is_accepted
    assert 0.99 <= last.parity.smallest <= last.parity.mean <= 1.000001
    assert 0 <= last.knn_agreement <= 1
    assert last.speedup > 0


@pytest.mark.slow
def test_weights_and_activations_are_of_eight_bits(name):
    spec = find_model(name).spec
    shown = [resize_and_crop(image, spec) for image in synthetic_images(4, seed=1)]
    graph = onnx.load_model_from_string(
        quantize_int8(find_model(name).variants.graph(None), spec, shown)
    ).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert sum(kind == TensorProto.INT8 for kind in kinds.values()) >= 3
    # Per channel: a scale for each of the 16 outputs.
    assert any(list(t.dims) == [16] and t.data_type == TensorProto.FLOAT for t in graph.initializer)
    partly = quantize_int8(
        find_model(name).variants.graph(None), spec, shown, float32_operations=["conv0", "relu0"]
    )
    held = {tensor.name: tensor.data_type for tensor in onnx.load_model_from_string(partly).graph.initializer}
    assert held["w0"] == TensorProto.FLOAT


@pytest.mark.slow
def test_what_loses_too_much_is_refused_after_half_of_it_was_tried_in_float32(
    name, photos, tmp_path, monkeypatch
):
    tried = []
    monkeypatch.setattr(int8_calibration, "MIN_COSINE", 1.01)
    with pytest.raises(ParityError, match=r"the smallest cosine .* is at best .*at least 1.01 is needed"):
        calibrate(name, photos, cache_dir=tmp_path, progress=tried.append)
    assert tried[1:] == [
        "calibrating",
        "calibrating with 2 parts in float32",
        "calibrating with 4 parts in float32",
    ]
    assert not list(tmp_path.rglob("int8-*"))


def test_a_calibration_that_is_not_here(name, tmp_path):
    with pytest.raises(WeightsError, match="nearsight models quantize onnx:.* --calibration DIR"):
        load_model(f"{name}#int8=01234567", cache_dir=tmp_path)


def test_too_few_images(name, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(InvalidParameterError, match=f"1 usable images; at least {MIN_IMAGES} are needed"):
        calibrate(name, tmp_path, cache_dir=tmp_path)


@pytest.mark.parametrize("form", ["#bf16", "#int8"])
def test_a_form_in_low_precision_is_not_quantized(photos, tmp_path, form):
    with pytest.raises(UnknownModelError, match="in full precision and full length"):
        calibrate(f"efficientnet-lite0{form}", photos, cache_dir=tmp_path)


def test_a_model_without_a_network_is_not_quantized(photos, tmp_path):
    with pytest.raises(UnknownModelError, match="sift-vlad is not an ONNX model"):
        calibrate("sift-vlad", photos, cache_dir=tmp_path)


def test_the_first_operations(name):
    graph = find_model(name).variants.graph(None)
    assert first_operations(graph, 0) == []
    assert first_operations(graph, 1 / 3) == ["conv0", "relu0"]
    assert len(first_operations(graph, 1)) == 8


def test_digits_follow_what_was_given(name):
    spec = find_model(name).spec
    one = np.zeros((32, 32, 3), np.uint8)
    digits = calibration_digits(spec, ["a", "b"], [one])
    assert digits == calibration_digits(spec, ["b", "a"], [one])
    assert (
        len({digits, calibration_digits(spec, ["a"], [one]), calibration_digits(spec, ["a", "b"], [one + 1])})
        == 3
    )


def test_steps_are_the_channels_own():
    values = np.array([[1, 0.5, -0.004], [100, -50, 0.3], [0, 0, 0]], np.float32)
    near = to_int8(values)
    assert np.abs(near - values).max(1).tolist() <= [1 / 254, 100 / 254, 0]
    np.testing.assert_array_equal(to_int8(near), near)


def test_agreement_of_votes_and_of_the_nearest():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 8)).astype(np.float32)
    labels = ["a", "b"] * 30
    assert agreement(X, X, labels) == 1
    assert agreement(X, rng.permutation(X), labels) < 1
    assert agreement(X, X, ["a"] * 60) == 1
    assert agreement(rng.permutation(X), X, ["a"] * 60) < 0.5
