"""GIF: the first frame only, and nothing allocated for the others."""

import struct

import numpy as np
import pytest
from PIL import Image

from nearsight.errors import ImageError
from nearsight.images import decode

from sample_images import encoded, samples, scene


def test_a_bomb_that_pillow_would_fill_while_opening():
    data = bytearray(samples()["gif"])
    at = data.index(b"\x2c\0\0\0\0\x40\0\x30\0")
    struct.pack_into("<HH", data, at + 5, 60_000, 60_000)
    with pytest.raises(ImageError, match=r"60000×60000 = 3,600,000,000 pixels"):
        decode(bytes(data))


def test_a_frame_beyond_the_screen_enlarges_it():
    data = bytearray(encoded(scene(64, 48).quantize(16), "GIF"))
    struct.pack_into("<HH", data, 6, 10, 10)
    image = decode(bytes(data))
    assert image.image.size == (64, 48)


def test_a_frame_in_a_corner_leaves_the_rest():
    data = bytearray(encoded(Image.new("P", (8, 8), 0), "GIF"))
    struct.pack_into("<HH", data, 6, 16, 16)
    assert decode(bytes(data)).image.size == (16, 16)


@pytest.mark.parametrize("interlace", [0, 1])
def test_interlacing(interlace):
    image = scene(64, 48).quantize(64)
    got = np.asarray(decode(encoded(image, "GIF", interlace=interlace)).image)
    assert np.array_equal(got, np.asarray(image.convert("RGB")))


def test_comments_before_the_image():
    data = encoded(scene(64, 48).quantize(64), "GIF", comment="x" * 1000)
    assert decode(data).image.size == (64, 48)


def test_no_image():
    with pytest.raises(ImageError, match="holds no image"):
        decode(b"GIF89a\x08\0\x08\0\0\0\0;")
