"""Noticing that the end of a JPEG is missing, and never complaining about one that is whole."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nearsight.errors import ImageError
from nearsight.images import decode

from sample_images import encoded, exif_block, scene

WHOLE = encoded(scene(320, 240), "JPEG", quality=85)


def pixels(data, **options):
    return np.asarray(decode(data, **options).image).astype(int)


@pytest.mark.parametrize(
    "tail", [b"\xff\xd9", bytes(4096), b"\xff" * 4096, WHOLE, b"\xff\xd9" + WHOLE, b"\0\0\xff\xd9"]
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("min_side_px", [None, 30])
def test_a_cut_is_noticed_whatever_follows_it(tail, share, min_side_px):
    cut = WHOLE[: int(len(WHOLE) * share)]
    with pytest.raises(ImageError, match="cut off"):
        decode(cut + tail, min_side_px=min_side_px)


def test_of_an_image_closed_too_early_at_most_the_last_block_is_lost():
    whole, n_lost_bytes = pixels(WHOLE), 0
    for n_cut in range(3, 60):
        try:
            got = pixels(WHOLE[:-n_cut] + b"\xff\xd9")
        except ImageError:
            continue
        n_lost_bytes = n_cut
        rows, columns = np.nonzero(np.abs(got - whole).max(-1))
        assert rows.min(initial=239) >= 240 - 17
        assert columns.min(initial=319) >= 320 - 17
    assert n_lost_bytes <= 12


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"trailer", WHOLE, b"\xff\xd8\xff" + bytes(99)])
def test_what_follows_the_end_does_not_matter(tail):
    assert np.array_equal(pixels(WHOLE + tail), pixels(WHOLE))


def test_padding_before_markers_does_not_matter():
    assert WHOLE.endswith(b"\xff\xd9")
    assert np.array_equal(pixels(WHOLE[:-2] + b"\xff\xff\xff\xd9"), pixels(WHOLE))


def test_a_thumbnail_inside_is_not_the_image():
    exif = exif_block(1) + encoded(scene(32, 24), "JPEG")
    data = encoded(scene(320, 240), "JPEG", quality=85, exif=exif)
    assert np.array_equal(pixels(data), pixels(WHOLE))
    with pytest.raises(ImageError):
        decode(data[: len(data) // 2] + b"\xff\xd9")


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    quality=st.integers(1, 100),
    content=st.sampled_from(["noise", "scene", "flat"]),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    subsampling=st.integers(0, 2),
    restarts=st.integers(0, 9),
    optimize=st.booleans(),
    progressive=st.booleans(),
    min_side_px=st.sampled_from([None, 1, 4, 9]),
)
def test_whole_images_are_never_called_cut(
    width, height, quality, content, mode, subsampling, restarts, optimize, progressive, min_side_px
):
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    image = {
        "noise": Image.fromarray(noise),
        "scene": scene().crop((0, 0, width, height)),
        "flat": Image.new("RGB", (width, height), (9, 99, 199)),
    }[content].convert(mode)
    data = encoded(
        image,
        "JPEG",
        quality=quality,
        subsampling=subsampling,
        restart_marker_blocks=restarts,
        optimize=optimize,
        progressive=progressive,
    )
    decode(data, min_side_px=min_side_px)
    with Image.open(io.BytesIO(data)) as opened:
        assert np.array_equal(pixels(data), np.asarray(opened.convert("RGB")).astype(int))


def test_an_end_mark_deep_in_a_large_file_is_found():
    # The search for the end goes by blocks of a megabyte: let the data cross several.
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", quality=95, subsampling=0)
    assert len(data) > 3 << 20
    assert decode(data, min_side_px=100).image.size == (400, 300)
    with pytest.raises(ImageError, match="cut off"):
        decode(data[: 2 << 20] + b"\xff\xd9", min_side_px=100)
