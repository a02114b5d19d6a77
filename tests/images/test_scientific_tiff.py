"""TIFF of numbers that Pillow does not read."""

import io
import sys

import numpy as np
import pytest

from nearsight.errors import ImageError
from nearsight.images import Limits, decode
from nearsight.images.gray_levels import SCALED

from sample_images import scene

COLORS = np.asarray(scene(64, 48)).astype(np.float64)
GRAY = np.asarray(scene(64, 48).convert("L")).astype(np.float64)


def tiff(values, **options):
    file = io.BytesIO()
    pytest.importorskip("tifffile").imwrite(file, values, **options)
    return file.getvalue()


def resembles(image, expected):
    values = np.asarray(image).astype(float)
    values = values if expected.ndim == 3 else values[..., 0]
    return np.corrcoef(values.ravel(), expected.ravel())[0, 1] > 0.98 and np.ptp(values) > 200


@pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "uint64"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_gray_numbers_show(dtype, compression):
    if compression:
        pytest.importorskip("imagecodecs")
    values = 1000 + 40 * GRAY
    decoded = decode(tiff(values.astype(dtype), compression=compression))
    assert resembles(decoded.image, GRAY)
    assert decoded.notes == (SCALED,)
    assert (decoded.width, decoded.height) == (64, 48)


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floating_point_color_shows_as_it_is(dtype, planes):
    values = (COLORS / 255).astype(dtype)
    options = {"photometric": "rgb", "planarconfig": "separate" if planes else "contig"}
    decoded = decode(tiff(values.transpose(2, 0, 1) if planes else values, **options))
    assert np.abs(np.asarray(decoded.image).astype(float) - COLORS).max() <= 1
    assert decoded.notes == ()


def test_missing_numbers_are_transparent():
    values = GRAY * 40
    values[:10] = np.nan
    image = np.asarray(decode(tiff(values)).image)
    assert (image[:10] == 255).all()
    assert resembles(image[10:], GRAY[10:])


def test_limits_hold_and_damage_is_a_failure():
    data = tiff(GRAY)
    with pytest.raises(ImageError, match=r"Limits\.max_pixels"):
        decode(data, limits=Limits(max_pixels=1000))
    with pytest.raises(ImageError):
        decode(data[: len(data) // 2])


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ImageError, match="5 channels of 64-bit floating-point numbers"):
        decode(tiff(np.zeros((48, 64, 5)), photometric="minisblack", planarconfig="contig"))


def test_without_the_extra_the_remedy_is_said(monkeypatch):
    data = tiff(GRAY)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(
        ImageError, match=r"64-bit floating-point numbers.*pip install 'nearsight\[formats\]'"
    ):
        decode(data)
