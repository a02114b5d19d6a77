"""TIFF: all the ways to store pixels, and tags that point nowhere."""

import struct

import numpy as np
import pytest
from PIL import Image

from nearsight.errors import ImageError
from nearsight.images import decode

from sample_images import encoded, exif_block, profile, scene

IMAGE = scene(64, 48)


def pixels(data):
    return np.asarray(decode(data).image).astype(int)


def entries(data):
    """Yield the offset and tag of each entry of the first page, little-endian classic TIFF."""
    (start,) = struct.unpack_from("<L", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for offset in range(start + 2, start + 2 + 12 * count, 12):
        yield offset, struct.unpack_from("<H", data, offset)[0]


def entry_of(data, tag):
    return next(offset for offset, found in entries(data) if found == tag)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_raw_16"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
def test_lossless_pixels(mode, compression):
    image = IMAGE.convert(mode)
    data = encoded(image, "TIFF", **({} if compression == "tiff_raw_16" else {"compression": compression}))
    assert np.array_equal(pixels(data), np.asarray(image.convert("RGB")).astype(int))


def test_fax():
    image = IMAGE.convert("1")
    assert np.array_equal(
        pixels(encoded(image, "TIFF", compression="group4")), np.asarray(image.convert("RGB")).astype(int)
    )


def test_big_tiff():
    data = encoded(IMAGE, "TIFF", big_tiff=True, tiffinfo={274: 3})
    assert data[2] == 43
    assert np.array_equal(pixels(data), np.asarray(IMAGE.rotate(180)).astype(int))


@pytest.mark.parametrize("tag", [270, 305, 306, 315, 700, 33432, 34377, 34665, 34853, 42112])
@pytest.mark.parametrize("kind", [2, 3, 5, 12, 99])
def test_metadata_that_points_nowhere_neither_fails_nor_warns(tag, kind):
    data = bytearray(encoded(IMAGE, "TIFF", tiffinfo={270: "a description that is long"}))
    struct.pack_into("<HHLL", data, entry_of(data, 270), tag, kind, 1000, 0xFFFFFF00)
    assert np.array_equal(pixels(bytes(data)), np.asarray(IMAGE).astype(int))


@pytest.mark.parametrize("tag", [256, 257, 258, 259, 262, 273, 279])
def test_a_pixel_tag_that_points_nowhere_is_an_error(tag):
    data = bytearray(encoded(IMAGE, "TIFF"))
    at = entry_of(data, tag)
    struct.pack_into("<LL", data, at + 4, 1000, 0xFFFFFF00)
    with pytest.raises(ImageError, match="TIFF"):
        decode(bytes(data))


def test_exif_beside_the_image_does_not_matter():
    data = encoded(IMAGE, "TIFF", exif=exif_block(1))
    assert np.array_equal(pixels(data), np.asarray(IMAGE).astype(int))


def test_twelve_bits_reach_white():
    values = np.linspace(0, 4095, 16).round().astype(int).reshape(2, 8)
    packed = bytearray()
    for a, b in values.reshape(-1, 2).tolist():
        packed += bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255))
    tags = [
        (256, 3, 8), (257, 3, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1),
        (273, 4, 8), (277, 3, 1), (278, 3, 2), (279, 4, len(packed)),
    ]  # fmt: skip
    table = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHLL", t, k, 1, v) for t, k, v in tags)
    data = b"II*\0" + struct.pack("<L", 8 + len(packed)) + bytes(packed) + table + bytes(4)
    assert np.abs(pixels(data)[..., 0] - np.rint(values / 4095 * 255)).max() <= 1


def test_the_profile_is_found():
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert pixels(encoded(red, "TIFF", icc_profile=profile("swapped")))[4, 4, 2] > 200


def test_pages_after_the_first_are_not_looked_at():
    data = encoded(IMAGE, "TIFF", save_all=True, append_images=[scene(30, 20, 5)])
    (start,) = struct.unpack_from("<L", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    damaged = bytearray(data)
    struct.pack_into("<L", damaged, start + 2 + 12 * count, 0xFFFFFFF0)
    assert np.array_equal(pixels(bytes(damaged)), np.asarray(IMAGE).astype(int))
