"""Headers that every decoder reads alike, and files that are left to ours."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from nearsight.errors import ImageError
from nearsight.images import Limits, decode
from nearsight.images.jpeg_header import plain_jpeg

sides = st.integers(1, 90)


def encoded(size=(64, 48), mode="RGB", *, turned=1, **options):
    pixels = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = turned, "Canon"
    if turned != 1:
        options["exif"] = exif.tobytes()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


@settings(max_examples=40)
@given(
    size=st.tuples(sides, sides),
    mode=st.sampled_from(["RGB", "L"]),
    turned=st.integers(1, 8),
    subsampling=st.integers(0, 2),
    progressive=st.booleans(),
    restart=st.sampled_from([0, 3]),
)
def test_it_says_what_the_decoder_says(size, mode, turned, subsampling, progressive, restart):
    data = encoded(
        size,
        mode,
        turned=turned,
        subsampling=subsampling if mode == "RGB" else 0,
        progressive=progressive,
        restart_marker_blocks=restart,
    )
    header, image = plain_jpeg(data), decode(data)
    assert (header.width, header.height) == size
    assert header.upright_size == (image.width, image.height) == image.image.size
    assert header.exif == image.exif
    assert header.is_progressive == progressive
    if progressive:
        assert header.corner_px is None


@settings(max_examples=60)
@given(data=st.data(), progressive=st.booleans())
def test_what_is_cut_off_is_left_to_the_decoder(data, progressive):
    whole = encoded(progressive=progressive)
    assert plain_jpeg(whole) is not None
    assert plain_jpeg(whole[: data.draw(st.integers(0, len(whole) - 2))]) is None


def test_fewer_components_than_the_frame_says():
    whole = encoded()
    frame = whole.index(b"\xff\xc0")
    size = int.from_bytes(whole[frame + 2 : frame + 4], "big")
    short = whole[: frame + 2] + (size - 3).to_bytes(2, "big") + whole[frame + 4 : frame + size - 1]
    assert plain_jpeg(short + whole[frame + 2 + size :]) is None


@settings(max_examples=100)
@given(data=st.data())
def test_changed_bytes_raise_nothing(data):
    whole = bytearray(encoded(turned=6))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(2, 700))] = data.draw(st.integers(0, 255))
    header = plain_jpeg(bytes(whole))
    if header is not None:
        try:
            image = decode(bytes(whole))
        except ImageError:
            return
        assert header.upright_size == (image.width, image.height)


@pytest.mark.parametrize(
    ("size", "subsampling", "corner"),
    [
        ((64, 48), 2, (4, 4)),
        ((64, 48), 0, (4, 4)),
        ((65, 48), 0, None),  # one column of the last block
        ((64, 53), 0, (3, 4)),
        ((64, 53), 2, (3, 4)),
        ((68, 48), 1, (4, 2)),
    ],
)
def test_the_corner_is_of_the_last_block(size, subsampling, corner):
    assert plain_jpeg(encoded(size, subsampling=subsampling)).corner_px == corner


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_missing_last_block_leaves_the_corner_in_one_color(subsampling):
    """As a decoder fills it that takes any end for the end."""
    data = encoded((64, 48), subsampling=subsampling, quality=90)
    header = plain_jpeg(data)
    rows, columns = header.corner_px
    for image, is_flat in ((data, False), (data[:-900] + b"\xff\xd9", True)):
        pixels = np.asarray(Image.open(io.BytesIO(image)))[-rows:, -columns:]
        assert (np.ptp(pixels, axis=(0, 1)).max() == 0) == is_flat


def test_profiles():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert plain_jpeg(encoded(icc_profile=srgb)) is not None
    assert plain_jpeg(encoded(mode="L", icc_profile=srgb)) is None
    assert plain_jpeg(encoded(icc_profile=b"damaged")) is not None
    wide = bytearray(srgb)
    at = wide.index(b"rXYZ", 128)
    place = int.from_bytes(wide[at + 4 : at + 8], "big")
    wide[place + 8 : place + 20] = np.array([50000, 20000, 3000], ">u4").tobytes()
    assert plain_jpeg(encoded(icc_profile=bytes(wide))) is None


def test_what_else_is_left_to_the_decoder():
    assert plain_jpeg(encoded(mode="CMYK")) is None
    assert plain_jpeg(encoded(mode="RGB", keep_rgb=True)) is None
    # The first of one component may have any factors, which decoders ignore or not.
    assert plain_jpeg(encoded(mode="L", subsampling=2)) is None
    assert plain_jpeg(b"\xff\xd8\xff") is None
    data = encoded()
    assert plain_jpeg(data, Limits(max_pixels=3000)) is None
    assert plain_jpeg(data, Limits(max_bytes=100)) is None
    deep = data.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c")
    assert plain_jpeg(deep) is None
    lossless = data.replace(b"\xff\xc0\x00\x11", b"\xff\xc3\x00\x11")
    assert plain_jpeg(lossless) is None
