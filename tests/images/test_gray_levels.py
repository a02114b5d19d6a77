"""Which value of a deep gray image is black, and which is white."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nearsight.errors import ImageError
from nearsight.images import decode
from nearsight.images.gray_levels import SCALED, GrayScale, to_8_bits

from sample_images import encoded, png, scene

GRAY = np.asarray(scene(64, 48).convert("L")).astype(np.float64)
GRAY = (GRAY - GRAY.min()) / np.ptp(GRAY)


def decoded(data):
    image = decode(data)
    return np.asarray(image.image)[..., 0].astype(int), image.notes


def shows_the_scene(values, top=0):
    """Whether the rows from `top` on show the scene in full contrast."""
    values = values[top:].astype(float)
    return np.corrcoef(values.ravel(), GRAY[top:].ravel())[0, 1] > 0.98 and np.ptp(values) > 200


def in_container(values, image_format):
    return encoded(Image.fromarray(values), image_format)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("white", [255, 1023, 4095])
def test_content_that_is_less_deep_than_its_container_shows(image_format, white):
    values, notes = decoded(in_container(np.rint(GRAY * white).astype(np.uint16), image_format))
    assert np.abs(values - GRAY * 255).max() <= 1
    assert not notes


def test_a_hot_pixel_does_not_make_the_rest_black():
    raw = np.rint(GRAY * 4095).astype(np.uint16)
    raw[3, 3] = 65535
    assert np.abs(decoded(in_container(raw, "TIFF"))[0] - GRAY * 255)[4:].max() <= 1


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM"])
def test_a_photograph_of_16_bits_keeps_its_brightness(image_format):
    raw = np.rint(GRAY * 20000).astype(np.uint16)
    assert np.array_equal(decoded(in_container(raw, image_format))[0], np.rint(raw / 257))


def test_a_narrow_range_far_from_black_is_scaled_and_said():
    values, notes = decoded(in_container(np.rint(30000 + GRAY * 2000).astype(np.uint16), "TIFF"))
    assert shows_the_scene(values)
    assert notes == (SCALED,)


def test_a_blank_page_stays_blank():
    noise = np.random.default_rng(0).integers(60000, 60008, (48, 64)).astype(np.uint16)
    values, notes = decoded(in_container(noise, "TIFF"))
    assert np.ptp(values) <= 1
    assert not notes


def tiff(values, **tags):
    return encoded(Image.fromarray(values), "TIFF", tiffinfo={int(k[1:]): v for k, v in tags.items()})


@pytest.mark.parametrize("offset", [-1024, -30000])
def test_signed_values_show(offset):
    values, notes = decoded(tiff(np.rint(offset + GRAY * 3000).astype(np.int32)))
    assert shows_the_scene(values)
    assert notes == (SCALED,)


@pytest.mark.parametrize(
    ("low", "high", "is_scaled"),
    [(0, 1, False), (0, 255, False), (0, 0.02, True), (0, 1.3, True), (-3, 900, True)],
)
def test_floating_point_values_show(low, high, is_scaled):
    values, notes = decoded(tiff((low + GRAY * (high - low)).astype(np.float32)))
    assert shows_the_scene(values)
    assert notes == ((SCALED,) if is_scaled else ())


def test_missing_floating_point_values_are_transparent():
    raw = (1000 + GRAY * 300).astype(np.float32)
    raw[:10] = np.nan
    raw[10:12] = np.inf
    values, _ = decoded(tiff(raw))
    assert (values[:12] == 255).all()
    assert shows_the_scene(values, top=12)


def test_the_no_data_value_of_elevation_models_is_transparent():
    raw = (100 + GRAY * 2000).astype(np.float32)
    raw[:20] = -9999
    values, _ = decoded(tiff(raw, t42113="-9999"))
    assert (values[:20] == 255).all()
    assert shows_the_scene(values, top=20)


def test_the_range_that_a_file_states_is_used():
    raw = np.rint(1000 + GRAY * 500).astype(np.uint16)
    expected = np.clip((raw.astype(float) - 800) / 1000, 0, 1) * 255
    for tags in (
        {"t340": 800, "t341": 1800},
        {"t280": 800, "t281": 1800},
        {"t270": "ImageJ=1.53\nimages=1\nmin=800.0\nmax=1800.0\n"},
    ):
        values, notes = decoded(tiff(raw, **tags))
        assert np.abs(values - expected).max() <= 1, tags
        assert not notes


@pytest.mark.parametrize("window", [(0, 0), (5, 2), (60000, 65535), (0, float("nan"))])
def test_a_range_that_leaves_nothing_is_ignored(window):
    raw = Image.fromarray(np.rint(GRAY * 4095).astype(np.uint16))
    plain = to_8_bits(raw, GrayScale(white=65535))
    with_range = to_8_bits(raw, GrayScale(white=65535, window=window))
    assert np.array_equal(np.asarray(with_range.image), np.asarray(plain.image))


def retyped(data, number, old, new):
    """Change one SHORT value of a little-endian TIFF's first directory."""
    entry = number.to_bytes(2, "little") + b"\3\0\1\0\0\0"
    at = data.index(entry) + 8
    assert int.from_bytes(data[at : at + 2], "little") == old
    return data[:at] + new.to_bytes(2, "little") + data[at + 2 :]


def test_signed_bytes_are_no_unsigned_bytes():
    raw = np.rint(GRAY * 200 - 100).astype(np.int8)
    data = encoded(Image.fromarray(raw.view(np.uint8)), "TIFF", tiffinfo={339: 1})
    values, _ = decoded(retyped(data, 339, 1, 2))
    assert np.array_equal(values, raw.astype(int) + 128)


def test_unsigned_values_beyond_two_billion_do_not_wrap():
    raw = np.rint(GRAY * 4e9).astype(np.uint32)
    data = encoded(Image.fromarray(raw.view(np.int32)), "TIFF")
    assert shows_the_scene(decoded(retyped(data, 339, 2, 1))[0])


@pytest.mark.parametrize("white", [255, 1023, 4095])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_content_that_is_less_deep_than_16_bits_of_color_shows(white, mode):
    reference = np.asarray(scene(64, 48).convert("RGB" if mode != "LA" else "LA"))
    colors = reference if mode == "RGB" else reference[..., :1] if mode == "LA" else reference
    deep = np.rint(colors / 255 * white).astype(np.uint16)
    if mode != "RGB":
        alpha = np.full((48, 64, 1), 65535, np.uint16)
        alpha[:4] = 0
        deep = np.concatenate([deep, alpha], -1)
    color_type = {"RGB": 2, "RGBA": 6, "LA": 4}[mode]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    got = np.asarray(decode(png(64, 48, 16, color_type, rows)).image).astype(int)
    assert np.abs(got - colors)[4:].max() <= 1
    if mode != "RGB":
        assert (got[:4] == 255).all()


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_content_that_is_less_deep_than_16_bits_of_a_tiff_shows(endian, compression):
    colors = np.asarray(scene(64, 48))
    deep = np.rint(colors / 255 * 4095).astype(f"{endian}u2").tobytes()
    data = color_tiff(deep if compression == 1 else zlib.compress(deep), endian, compression)
    assert np.abs(np.asarray(decode(data).image).astype(int) - colors).max() <= 1
    full = (colors.astype(np.uint16) * 257).astype(f"{endian}u2").tobytes()
    data = color_tiff(full if compression == 1 else zlib.compress(full), endian, compression)
    assert np.array_equal(np.asarray(decode(data).image), colors)


def color_tiff(pixels, endian, compression, n_channels=3, planes=False):
    """Return a TIFF of 64×48 pixels of 16 bits; planes may be given one by one."""
    strips = pixels if isinstance(pixels, list) else [pixels]
    if planes and len(strips) == 1:
        size = len(pixels) // n_channels
        strips = [pixels[i * size : (i + 1) * size] for i in range(n_channels)]
    tags = [
        (256, "H", [64]), (257, "H", [48]), (258, "H", [16] * n_channels), (259, "H", [compression]),
        (262, "H", [2]), (273, "L", strips), (277, "H", [n_channels]), (278, "H", [48]),
        (279, "L", [len(strip) for strip in strips]), (284, "H", [2 if planes else 1]),
    ]  # fmt: skip
    strips_at = 8 + 2 + 12 * len(tags) + 4
    offsets = [strips_at + sum(map(len, strips[:i])) for i in range(len(strips))]
    body, entries = b"".join(strips), b""
    for number, letter, values in tags:
        values = offsets if number == 273 else values
        packed = struct.pack(f"{endian}{len(values)}{letter}", *values)
        if len(packed) > 4:
            place, body = struct.pack(f"{endian}L", strips_at + len(body)), body + packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack(f"{endian}HHL", number, 3 if letter == "H" else 4, len(values)) + place
    head = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(f"{endian}LH", 8, len(tags))
    return head + entries + bytes(4) + body


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("factor", [257, 16, 1])
def test_planes_of_16_bits_are_no_planes_of_8(endian, factor):
    colors = np.asarray(scene(64, 48))
    planes = (colors.astype(np.uint16) * factor).transpose(2, 0, 1).astype(f"{endian}u2")
    data = color_tiff(planes.tobytes(), endian, 1, planes=True)
    assert np.abs(np.asarray(decode(data).image).astype(int) - colors).max() <= 1


def test_what_cannot_be_read_of_compressed_planes_is_a_failure():
    colors = np.asarray(scene(64, 48))
    for factor in (257, 1):
        planes = (colors.astype(np.uint16) * factor).transpose(2, 0, 1).astype("<u2")
        data = color_tiff([zlib.compress(plane.tobytes()) for plane in planes], "<", 8, planes=True)
        if factor == 257:
            assert np.array_equal(np.asarray(decode(data).image), colors)
        else:
            with pytest.raises(ImageError, match="less than a sixteenth of its 16 bits"):
                decode(data)


def test_channels_without_a_meaning_are_refused_by_name():
    with pytest.raises(Exception, match="5 channels of 16-bit unsigned numbers"):
        decode(color_tiff(bytes(64 * 48 * 10), "<", 1, n_channels=5))


@settings(deadline=None)
@given(
    st.sampled_from(["uint16", "int32", "float32"]),
    st.lists(st.integers(-(2**20), 2**20), min_size=4, max_size=4, unique=True),
    st.integers(0, 8),
)
def test_what_differs_widely_is_never_one_gray(dtype, corners, shift):
    values = np.array(corners) / 2**shift
    values = np.abs(values) % 65536 if dtype == "uint16" else values
    raw = np.kron(values.reshape(2, 2), np.ones((6, 6))).astype(dtype)
    eight = np.asarray(
        to_8_bits(Image.fromarray(raw), GrayScale(white=65535 if dtype == "uint16" else None)).image
    )
    if np.ptp(raw.astype(float)) >= 16:
        assert np.ptp(eight.astype(int)) >= 15


@pytest.mark.parametrize("image_format", ["PPM", "JPEG2000"])
def test_color_of_16_bits_that_pillow_reads_as_black_is_a_failure(image_format):
    colors = np.asarray(scene(64, 48)).astype(int)

    def stored(factor):
        if image_format == "PPM":
            return b"P6 # by hand\n64 48\n65535\n" + (colors * factor).astype(">u2").tobytes()
        imagecodecs = pytest.importorskip("imagecodecs")
        return imagecodecs.jpeg2k_encode((colors * factor).astype(np.uint16), level=0, reversible=True)

    assert np.abs(np.asarray(decode(stored(257)).image).astype(int) - colors).max() <= 1
    with pytest.raises(ImageError, match="less than a sixteenth of its 16 bits"):
        decode(stored(1))


def test_interlaced_color_of_16_bits_shows():
    colors = np.asarray(scene(64, 48))
    deep = np.rint(colors / 255 * 4095).astype(">u2")
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    parts = [deep[y::down, x::across] for y, x, down, across in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    data = png(64, 48, 16, 2, rows)
    header = bytearray(data[:33])
    header[28] = 1
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    got = np.asarray(decode(bytes(header) + data[33:]).image).astype(int)
    assert np.abs(got - colors).max() <= 1
