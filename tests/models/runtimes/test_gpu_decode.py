"""JPEGs that a GPU decodes, with its memory and its decoder played by the processor."""

import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from jpeg_decoders import PillowDecoder, jpeg
from models.layouts import write_layout
from PIL import Image, ImageFile
from runtime import FakeRuntime

from nearsight import processor
from nearsight.errors import InvalidParameterError
from nearsight.images import Limits, decode
from nearsight.models import load_model
from nearsight.models.precision import parity
from nearsight.models.precision.parity import compare
from nearsight.models.runtimes import cuda_runtime, gpu_decode, placement
from nearsight.models.runtimes.gpu_decode import GpuDecoder, decoder_for
from nearsight.models.runtimes.jpeg_decoders import NvImageCodec
from nearsight.models.runtimes.onnx_session import DeviceArray, offered_devices
from nearsight.models.synthetic_images import synthetic_images

CUDA = "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return f"dir:{write_layout(tmp_path_factory.mktemp('model'))}"


@pytest.fixture
def backend(monkeypatch, model, tmp_path):
    """The model on a GPU that is not there."""
    monkeypatch.setattr(placement, "_warned", set())
    monkeypatch.setattr(parity, "_N_IMAGES", 12)
    # A package may have brought CUDA's library, without a GPU.
    monkeypatch.setattr(cuda_runtime, "_library", lambda: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeRuntime(CUDA))
    return load_model(model, device="cuda", cache_dir=tmp_path)


def nv_image_codec():
    pytest.importorskip("nvidia.nvimgcodec")
    return NvImageCodec("cpu")


def photographs(n=9, seed=3):
    """JPEGs of several sizes and kinds."""
    files = []
    for i, image in enumerate(synthetic_images(n, seed=seed)):
        image = image.resize((90 + 31 * (i % 4), 70 + 17 * (i % 5)))
        options = {"subsampling": i % 3} if i % 4 else {}
        image = image.convert("L") if i % 4 == 0 else image
        files.append(jpeg(image, turned=i % 8 + 1, progressive=i % 5 == 3, **options))
    return files


def by_processor(backend, files):
    return backend.embed([backend.prepare(decode(data).image) for data in files])


def all_encoded(decoder, files):
    jpegs = decoder.choose(files, Limits())
    assert None not in jpegs
    return jpegs


@pytest.mark.parametrize("open_decoder", [PillowDecoder, nv_image_codec])
@pytest.mark.parametrize("n", [1, 8, 21])
def test_the_vectors_are_those_of_pillows_decoding(backend, tmp_path, open_decoder, n):
    decoder = GpuDecoder(backend, open_decoder, tmp_path)
    files = photographs(n)
    results = decoder.submit(all_encoded(decoder, files), thumbnails=True)()
    vectors = np.stack([result.vector for result in results])
    assert compare(vectors, by_processor(backend, files)).smallest > parity.EQUIVALENT_COSINE
    for data, result in zip(files, results, strict=True):
        image = decode(data)
        assert (result.width, result.height, result.exif) == (image.width, image.height, image.exif)
        small = decode(result.thumbnail).image
        assert small.size == image.image.size
        difference = np.asarray(small, np.int16) - np.asarray(image.image)
        assert np.abs(difference).mean() < 6


def test_a_thumbnail_of_a_large_image_is_small(backend, tmp_path):
    decoder = GpuDecoder(backend, PillowDecoder, tmp_path)
    image = synthetic_images(1, seed=2)[0].resize((1000, 700))
    [result] = decoder.submit(all_encoded(decoder, [jpeg(image, turned=6)]), thumbnails=True)()
    small = decode(result.thumbnail).image
    assert small.size == (175, 250)
    wanted = image.transpose(Image.Transpose.ROTATE_270).reduce(4)
    assert np.abs(np.asarray(small, np.int16) - np.asarray(wanted)).mean() < 4


def test_what_the_gpu_does_not_decode_comes_back_in_its_place(backend, tmp_path):
    files = photographs(5)
    refused = files[2]
    decoder = GpuDecoder(backend, lambda: PillowDecoder(lambda data: data == refused), tmp_path)
    results = decoder.submit(all_encoded(decoder, files))()
    assert [result is None for result in results] == [False, False, True, False, False]
    wanted = by_processor(backend, files)
    for result, vector in zip(results, wanted, strict=True):
        if result is not None:
            assert result.vector @ vector > 0.9999


def test_a_white_ground_needs_no_check(backend, tmp_path, monkeypatch):
    """The decoder fills missing blocks with gray, which it shows when it is opened."""
    decoder = GpuDecoder(backend, PillowDecoder, tmp_path)
    checked = []
    monkeypatch.setattr(gpu_decode, "_is_whole", lambda data: checked.append(data) or True)
    for ground, n_checked in (("white", 0), ("navy", 0), ((128, 128, 128), 1)):
        image = Image.new("RGB", (96, 64), ground)
        image.paste(synthetic_images(1, seed=1)[0].resize((40, 40)))
        assert decoder.submit(all_encoded(decoder, [jpeg(image)]))()[0] is not None
        assert len(checked) == n_checked


def test_a_batch_of_which_nothing_is_decoded(backend, tmp_path):
    decoder = GpuDecoder(backend, lambda: PillowDecoder(lambda data: True), tmp_path)
    assert decoder.submit(all_encoded(decoder, photographs(3)))() == [None] * 3


def test_a_decoder_that_gives_another_size_is_not_believed(backend, tmp_path):
    class Turning(PillowDecoder):
        def pixels(self, data):
            upright = super().pixels(data)
            height, width, _ = upright.shape
            return DeviceArray(upright.pointer, (width, height, 3), np.uint8, upright)

    decoder = GpuDecoder(backend, Turning, tmp_path)
    image = synthetic_images(1, seed=1)[0].resize((64, 48))
    assert decoder.submit(all_encoded(decoder, [jpeg(image)]))() == [None]


@pytest.mark.parametrize("open_decoder", [PillowDecoder, nv_image_codec])
def test_a_file_that_ends_early_but_has_its_end_marker_is_left_to_our_decoder(
    backend, tmp_path, monkeypatch, open_decoder
):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    decoder = GpuDecoder(backend, open_decoder, tmp_path)
    rng = np.random.default_rng(0)
    whole = jpeg(Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8)))
    cut = whole[:-4000] + b"\xff\xd9"
    # Nothing is known of the files but what the header and the pixels say.
    results = decoder.submit(all_encoded(decoder, [whole, cut]))()
    assert results[0] is not None
    assert results[1] is None


def test_a_corner_in_one_color_is_no_damage(backend, tmp_path):
    decoder = GpuDecoder(backend, PillowDecoder, tmp_path)
    image = Image.new("RGB", (96, 64), "white")
    image.paste(synthetic_images(1, seed=1)[0].resize((40, 40)))
    [result] = decoder.submit(all_encoded(decoder, [jpeg(image)]))()
    assert result.vector @ by_processor(backend, [jpeg(image)])[0] > 0.9999


@pytest.mark.parametrize(
    "data",
    [
        b"Dear diary",
        jpeg(Image.new("CMYK", (64, 48))),
        jpeg(Image.new("RGB", (64, 48)))[:-200],
        jpeg(Image.new("RGB", (64, 15))),
    ],
)
def test_what_is_left_to_the_processor(backend, tmp_path, data):
    assert GpuDecoder(backend, PillowDecoder, tmp_path).choose([data], Limits()) == [None]


def test_a_gpu_that_fails_leaves_the_rest_to_the_processor(backend, tmp_path):
    opened = []

    def fail():
        if opened:
            raise RuntimeError("out of memory")

    decoder = GpuDecoder(backend, lambda: PillowDecoder(delay=fail), tmp_path)
    opened.append(True)
    files = photographs(3)
    with pytest.warns(UserWarning, match="the GPU stopped decoding, the processor goes on: out of memory"):
        assert decoder.submit(all_encoded(decoder, files))() == [None] * 3
    assert decoder.choose(files, Limits()) == [None] * 3


def test_a_model_that_decodes_at_reduced_size_is_refused(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "_spec", replace(backend.spec, draft=True))
    with pytest.raises(InvalidParameterError, match="it decodes in full size only"):
        GpuDecoder(backend, PillowDecoder, tmp_path)


class TestTheGate:
    """Whether the processor decodes, although there is a GPU."""

    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch):
        monkeypatch.setattr(processor, "has_nvidia_gpu", lambda: True)
        monkeypatch.setattr(gpu_decode, "is_installed", lambda: True)

    def test_a_decoder_of_the_same_pixels_is_used(self, backend, tmp_path, monkeypatch):
        monkeypatch.setattr(gpu_decode, "NvImageCodec", lambda device: PillowDecoder())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            decoder = decoder_for(backend, tmp_path)
        assert isinstance(decoder, GpuDecoder)
        # A search for one image does not open it again.
        assert decoder_for(backend, tmp_path) is decoder

    def test_a_decoder_of_other_pixels_is_not(self, backend, tmp_path, monkeypatch):
        class Coarse(PillowDecoder):
            def pixels(self, data):
                fine = super().pixels(data)
                image = Image.fromarray(fine._owner)
                return super().pixels(jpeg(image.resize((9, 9)).resize(image.size), quality=20))

        monkeypatch.setattr(gpu_decode, "NvImageCodec", lambda device: Coarse())
        with pytest.warns(UserWarning, match="the GPU does not decode for dir:.*cosine"):
            assert decoder_for(backend, tmp_path) is None

    def test_a_decoder_that_does_not_open_is_not(self, backend, tmp_path, monkeypatch):
        def refuse(device):
            raise RuntimeError("no driver")

        monkeypatch.setattr(gpu_decode, "NvImageCodec", refuse)
        with pytest.warns(UserWarning, match="the GPU does not decode, the processor does: no driver"):
            assert decoder_for(backend, tmp_path) is None

    def test_a_model_on_the_processor_has_none(self, model, tmp_path):
        assert decoder_for(load_model(model, device="cpu", cache_dir=tmp_path), tmp_path) is None


@pytest.mark.parametrize(
    ("installed", "gpu", "offered", "device", "usable"),
    [
        (True, True, ["cuda"], "auto", True),
        (True, True, ["cuda"], "cuda:1", True),
        (True, True, ["cuda"], "cpu", False),
        (True, True, [], "auto", False),
        (True, False, ["cuda"], "auto", False),
        (False, True, ["cuda"], "auto", False),
    ],
)
def test_where_a_gpu_decodes(monkeypatch, installed, gpu, offered, device, usable):
    monkeypatch.setattr(gpu_decode, "is_installed", lambda: installed)
    monkeypatch.setattr(processor, "has_nvidia_gpu", lambda: gpu)
    monkeypatch.setattr(gpu_decode, "offered_devices", lambda: offered)
    assert gpu_decode.is_usable(device) == usable


@pytest.mark.parametrize("found", [None, ModuleNotFoundError("No module named 'nvidia'")])
def test_without_the_package(monkeypatch, found):
    def find_spec(name):
        if found is not None:
            raise found

    monkeypatch.setattr(gpu_decode.importlib.util, "find_spec", find_spec)
    assert not gpu_decode.is_installed()


@pytest.mark.gpu
@pytest.mark.skipif(
    not (processor.has_nvidia_gpu() and gpu_decode.is_installed() and "cuda" in offered_devices()),
    reason="needs an NVIDIA GPU and nearsight[cuda]",
)
def test_on_a_gpu_the_vectors_are_those_of_pillows_decoding(cache_dir):
    backend = load_model("efficientnet-lite0#decode=full", device="cuda", cache_dir=cache_dir)
    decoder = decoder_for(backend, cache_dir)
    assert decoder is not None
    files = photographs(40)
    results = decoder.submit(all_encoded(decoder, files), thumbnails=True)()
    vectors = np.stack([result.vector for result in results])
    assert compare(vectors, by_processor(backend, files)).smallest > parity.EQUIVALENT_COSINE
