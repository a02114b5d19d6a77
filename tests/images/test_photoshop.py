"""Photoshop documents: the merged image."""

import io
import sys

import numpy as np
import pytest
from PIL import Image, ImageChops

from nearsight.errors import ImageError
from nearsight.images import Limits, decode
from nearsight.images.photoshop import SIGNATURE

from sample_images import scene


def document(image):
    psd_tools = pytest.importorskip("psd_tools")
    file = io.BytesIO()
    psd_tools.PSDImage.frompil(image).save(file)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "RGBA"])
def test_the_merged_image_is_read(mode):
    psd_tools = pytest.importorskip("psd_tools")
    if mode == "1" and tuple(map(int, psd_tools.__version__.split(".")[:2])) < (1, 26):
        pytest.skip("psd-tools before 1.26, the last for Python 3.10, does not read what it writes")
    image = scene(64, 48).convert(mode)
    decoded = decode(document(image))
    assert np.array_equal(np.asarray(decoded.image), np.asarray(image.convert("RGB")))
    assert (decoded.width, decoded.height) == (64, 48)


def test_ink_is_not_upside_down():
    image = scene(64, 48).convert("CMYK")
    # Photoshop stores ink inverted, and `frompil` stores what it is given.
    decoded = decode(document(ImageChops.invert(image)))
    assert np.array_equal(np.asarray(decoded.image), np.asarray(image.convert("RGB")))


def test_limits_are_checked_before_it_is_read():
    with pytest.raises(ImageError, match=r"Limits\.max_pixels"):
        decode(document(Image.new("L", (64, 48))), limits=Limits(max_pixels=1000))
    with pytest.raises(ImageError, match=r"Limits\.max_seconds"):
        decode(document(Image.new("L", (64, 48))), limits=Limits(max_seconds=-1))


def test_a_damaged_one_is_a_failure():
    data = document(scene(64, 48))
    for damaged in (data[:20], data[:100], data[: len(data) // 2], data[:-10]):
        with pytest.raises(ImageError):
            decode(damaged)
    assert decode(data + b"more").width == 64


def test_without_the_extra_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "psd_tools", None)
    data = SIGNATURE + b"\0\1" + bytes(6) + b"\0\3\0\0\0\x30\0\0\0\x40\0\x08\0\3"
    with pytest.raises(ImageError, match=r"is a Photoshop document; .*pip install 'nearsight\[formats\]'"):
        decode(data)
