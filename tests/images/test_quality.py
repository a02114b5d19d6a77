"""What is measured of an image: each loss is found on the pixels, whatever the file looks like."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from nearsight.errors import ImageError
from nearsight.images import Limits, decode
from nearsight.images.quality import is_compression_of, measure_quality

from sample_images import encoded, grainy


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_an_image_that_was_never_compressed_has_no_trace():
    quality = measure_quality(encoded(grainy(), "PNG"))
    assert (quality.compression, quality.is_lossy, quality.has_known_loss) == (0, False, True)


def test_an_image_that_is_read_in_time_once_and_not_again_is_told(monkeypatch):
    """Drawings were, on a busy machine: one of them ended a search for duplicates."""
    data = encoded(grainy(), "PNG")
    whole = decode(data)
    monkeypatch.setattr("nearsight.images.quality.decode", lambda *_, **__: whole)
    with pytest.raises(ImageError, match="max_seconds"):
        measure_quality(data, Limits(max_seconds=-1))


@pytest.mark.parametrize("tint", [(1, 1, 1), (1.07, 0.95, 0.75), (0.7, 0.9, 1.1)])
def test_gray_and_toned_images_have_no_color(tint):
    image = grainy()
    gray = np.asarray(image.convert("L"), np.float32)[..., None] * np.array(tint)
    toned = Image.fromarray(np.clip(gray, 0, 255).astype(np.uint8))
    assert measure_quality(encoded(toned, "PNG")).chroma < 0.1 * measure_quality(encoded(image, "PNG")).chroma


def test_few_tones_and_few_colors():
    image = grainy()
    gray = image.convert("L")
    few = measure_quality(encoded(gray.point(lambda value: value & 0xE0), "PNG"))
    assert few.tones < 3 < 6 < measure_quality(encoded(gray, "PNG")).tones
    assert measure_quality(encoded(image.quantize(64).convert("RGB"), "BMP")).n_colors <= 64


def test_repeated_pixels():
    image = grainy()
    large = image.resize((3 * image.width, 3 * image.height), Image.Resampling.NEAREST)
    assert measure_quality(encoded(large, "PNG")).has_repeated_pixels
    assert not measure_quality(encoded(image, "PNG")).has_repeated_pixels


def test_what_decoded_pixels_do_not_show():
    deep = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16)
    assert measure_quality(encoded(deep, "PNG")).has_more
    assert measure_quality(encoded(grainy().convert("RGBA"), "PNG")).has_more
    assert not measure_quality(encoded(grainy(), "PNG")).has_more


@pytest.mark.parametrize(("lossless", "known"), [(True, True), (False, False)])
def test_the_loss_of_webp_is_unknown_unless_there_is_none(lossless, known):
    quality = measure_quality(encoded(grainy(), "WEBP", lossless=lossless))
    assert (quality.is_lossy, quality.has_known_loss) == (not lossless, known)


@pytest.mark.parametrize("quality", [20, 60, 90])
def test_a_compressed_copy_is_one_and_its_source_is_none(quality):
    source = encoded(grainy(), "PNG")
    copy = encoded(decoded(encoded(grainy(), "JPEG", quality=quality)), "PNG")
    a, b = measure_quality(source), measure_quality(copy)
    assert is_compression_of(b, a)
    assert quality == 90 or not is_compression_of(a, b)


@pytest.mark.parametrize(
    "edit",
    [
        lambda image: image.filter(ImageFilter.UnsharpMask(2, 150, 0)),
        lambda image: image.filter(ImageFilter.GaussianBlur(1.2)),
        lambda image: image.filter(ImageFilter.MedianFilter(5)),
        lambda image: image.point(lambda value: min(255, value * 1.3)),
        lambda image: Image.fromarray(
            np.clip(
                np.asarray(image, np.float32) + np.random.default_rng(0).normal(0, 8, (*image.size[::-1], 1)),
                0,
                255,
            ).astype(np.uint8)
        ),
    ],
)
def test_an_edited_image_is_not_the_source_of_its_compressed_original(edit):
    original = encoded(grainy(), "JPEG", quality=75)
    edited = measure_quality(encoded(edit(decoded(original)), "PNG"))
    assert not is_compression_of(measure_quality(original), edited)
    assert not is_compression_of(edited, measure_quality(original))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 9))
def test_images_of_any_size_are_measured(width, height, seed):
    quality = measure_quality(encoded(grainy(seed, (width, height)), "PNG"))
    assert np.isfinite(
        [*quality.spectrum, quality.noise, quality.chroma, quality.tones, quality.compression]
    ).all()
    assert is_compression_of(quality, quality) is (len(quality.blocks) > 0)


def test_what_is_no_image():
    with pytest.raises(ImageError):
        measure_quality(b"Dear diary")
