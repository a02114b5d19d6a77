"""Every checksum of a PNG, and chunks that have nothing to do with the image."""

import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from nearsight.errors import ImageError
from nearsight.images import decode

from sample_images import encoded, exif_block, png_chunk, samples, scene

PLAIN = encoded(scene(64, 48), "PNG")


def pixels(data):
    return np.asarray(decode(data).image).astype(int)


def with_chunk(kind, content, *, after_header=True):
    at = 33 if after_header else len(PLAIN) - 12
    return PLAIN[:at] + png_chunk(kind, content) + PLAIN[at:]


def test_every_flipped_bit_is_noticed():
    for name in ("png", "png-palette", "apng", "png-16"):
        data = samples()[name]
        rng = np.random.default_rng(0)
        for position in {*range(8, 60), *rng.integers(8, len(data), 100).tolist()}:
            flipped = bytearray(data)
            flipped[position] ^= 1 << int(rng.integers(8))
            with pytest.raises(ImageError):
                decode(bytes(flipped))


def test_the_message_names_the_chunk():
    at = PLAIN.index(b"IDAT") + 40
    with pytest.raises(ImageError, match="wrong checksum of its chunk 'IDAT'"):
        decode(PLAIN[:at] + b"\xaa\x55" + PLAIN[at + 2 :])


@pytest.mark.parametrize("after_header", [True, False])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(40 << 20))),  # Pillow fails above 1 MiB
        (b"zTXt", b"Comment\0\x07damaged"),
        (b"iTXt", b"\xff\xfe"),
        (b"tEXt", b""),
        (b"iCCP", b"name\0\x09"),
        (b"iCCP", b"name\0\0damaged"),
        (b"acTL", bytes(8)),  # Pillow warns
        (b"fcTL", bytes(3)),
        (b"gAMA", b"x"),
        (b"cHRM", b""),
        (b"pHYs", b""),
        (b"eXIf", b"damaged"),
        (b"raNd", bytes(1000)),
    ],
)
def test_side_chunks_neither_fail_nor_warn(kind, content, after_header):
    assert np.array_equal(pixels(with_chunk(kind, content, after_header=after_header)), pixels(PLAIN))


@pytest.mark.parametrize("after_header", [True, False])
def test_orientation_may_stand_before_or_behind_the_image(after_header):
    block = exif_block(6).removeprefix(b"Exif\0\0")
    assert decode(with_chunk(b"eXIf", block, after_header=after_header)).image.size == (48, 64)


def test_orientation_in_the_texts_of_other_programs():
    hexed = exif_block(6).hex().encode()
    profile = b"\nexif\n%8d\n" % len(exif_block(6)) + hexed + b"\n"
    for kind, content in (
        (b"tEXt", b"Raw profile type exif\0" + profile),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),
        (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
    ):
        assert decode(with_chunk(kind, content)).image.size == (48, 64), kind


def test_text_written_by_pillow():
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "a cat " * 400_000, zip=True)
    info.add_itxt("note", "été")
    assert np.array_equal(pixels(encoded(scene(64, 48), "PNG", pnginfo=info)), pixels(PLAIN))


def test_no_image_chunk():
    start, end = PLAIN.index(b"IDAT") - 4, len(PLAIN) - 12
    with pytest.raises(ImageError, match="PNG"):
        decode(PLAIN[:start] + PLAIN[end:])


def test_what_follows_the_end_does_not_matter():
    assert np.array_equal(pixels(PLAIN + b"trailer"), pixels(PLAIN))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_modes(mode):
    image = scene(64, 48).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    expected = scene(64, 48).convert("L").convert("RGB") if mode == "I;16" else image.convert("RGB")
    assert np.array_equal(pixels(encoded(image, "PNG")), np.asarray(expected).astype(int))
