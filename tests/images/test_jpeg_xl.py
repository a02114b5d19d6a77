"""JPEG XL: every depth, and its own header."""

import contextlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearsight.errors import ImageError
from nearsight.images import Limits, decode
from nearsight.images.jpeg_xl import CODESTREAM, CONTAINER

from sample_images import exif_block, scene

COLORS = np.asarray(scene(64, 48))
GRAY = np.asarray(scene(64, 48).convert("L"))


def jxl(pixels, **options):
    return pytest.importorskip("imagecodecs").jpegxl_encode(pixels, lossless=True, **options)


def boxed(codestream, exif=b""):
    """Return a codestream in a container, as cameras write it."""
    boxes = [CONTAINER, b"\0\0\0\x14ftypjxl \0\0\0\0jxl "]
    if exif:
        boxes.append((len(exif) + 12).to_bytes(4, "big") + b"Exif" + bytes(4) + exif)
    boxes.append((len(codestream) + 8).to_bytes(4, "big") + b"jxlc" + codestream)
    return b"".join(boxes)


@pytest.mark.parametrize("factor", [1, 257, 16])
@pytest.mark.parametrize("channels", ["gray", "color", "alpha"])
def test_every_depth_shows_the_same(factor, channels):
    expected = {"gray": GRAY, "color": COLORS, "alpha": COLORS}[channels]
    pixels = expected.astype(np.uint16) * factor if factor > 1 else expected
    if channels == "alpha":
        opaque = np.full((48, 64, 1), 255 if factor == 1 else 65535, pixels.dtype)
        pixels = np.concatenate([pixels, opaque], -1)
    got = np.asarray(decode(jxl(pixels)).image).astype(int)
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, -1)
    assert np.abs(got - expected).max() <= 1


def test_floating_point_values_show():
    got = np.asarray(decode(jxl((COLORS / 255).astype(np.float32))).image).astype(int)
    assert np.abs(got - COLORS).max() <= 1


@pytest.mark.parametrize("size", [(8, 8), (48, 64), (33, 700), (1, 1), (256, 256), (100, 133), (90, 160)])
def test_the_pixels_are_counted_before_they_are_decoded(size):
    data = jxl(np.zeros(size, np.uint8))
    height, width = size
    with pytest.raises(ImageError, match=f"{width}×{height} = {width * height:,} pixels"):
        decode(
            data, limits=Limits(max_pixels=width * height - 1) if width * height > 1 else Limits(max_pixels=0)
        )
    decoded = decode(data, limits=Limits(max_pixels=width * height))
    assert (decoded.width, decoded.height) == (width, height)


def test_the_exif_of_a_container_is_read():
    codestream = jxl(COLORS)
    assert codestream.startswith(CODESTREAM), "not wrapped by the encoder"
    decoded = decode(boxed(codestream, exif_block(6).removeprefix(b"Exif\0\0")))
    assert decoded.exif.orientation == 6
    # The decoder turns by its own header, which says nothing here.
    assert np.array_equal(np.asarray(decoded.image), COLORS)


@settings(deadline=None)
@given(
    st.binary(max_size=60), st.sampled_from([CODESTREAM, CONTAINER, CONTAINER + b"\0\0\0\0jxlc" + CODESTREAM])
)
def test_any_bytes_are_a_failure_or_an_image(noise, start):
    with contextlib.suppress(ImageError):
        decode(start + noise, limits=Limits(max_pixels=10_000))


def test_a_damaged_one_is_a_failure():
    data = jxl(COLORS)
    for damaged in (data[:20], data[: len(data) // 2]):
        with pytest.raises(ImageError):
            decode(damaged)


def test_without_the_extra_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ImageError, match=r"is a JPEG XL; .*pip install 'nearsight\[formats\]'"):
        decode(CODESTREAM + b"\x41" + bytes(20))
