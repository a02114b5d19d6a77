"""Metadata goes, pixels and orientation stay."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from nearsight.errors import ImageError
from nearsight.images import decode
from nearsight.images.privacy import without_metadata

SECRET = b"SpyCam 3000"


def image(kind, *, orientation=1, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0110] = SECRET.decode()
    exif[0x0112] = orientation
    exif.get_ifd(0x8825)[1] = "N"
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, exif=exif, **options)
    return file.getvalue()


def pixels_of(data):
    return np.asarray(decode(data).image)


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize(("kind", "media"), [("JPEG", "jpeg"), ("PNG", "png")])
def test_pixels_and_orientation_stay(kind, media, orientation):
    data = image(kind, orientation=orientation)
    clean, media_type = without_metadata(data)
    assert SECRET in data
    assert SECRET not in clean
    assert media_type == f"image/{media}"
    np.testing.assert_array_equal(pixels_of(clean), pixels_of(data))
    assert decode(clean).exif.camera is None


def test_webp():
    data = image("WEBP", lossless=True)
    clean, media_type = without_metadata(data)
    assert (SECRET in data, SECRET in clean, media_type) == (True, False, "image/webp")
    np.testing.assert_array_equal(pixels_of(clean), pixels_of(data))
    turned, media_type = without_metadata(image("WEBP", lossless=True, orientation=6))
    assert media_type == "image/jpeg"  # decoded: WebP states its orientation in EXIF only
    assert decode(turned).image.size == (6, 9)


def test_the_color_profile_stays():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("JPEG", "PNG", "WEBP"):
        clean, _ = without_metadata(image(kind, icc_profile=profile))
        with Image.open(io.BytesIO(clean)) as opened:
            assert opened.info["icc_profile"] == profile


def test_texts_comments_and_what_follows_the_end_go():
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", SECRET.decode())
    info.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    assert SECRET not in without_metadata(image("PNG", pnginfo=info) + SECRET)[0]
    assert SECRET not in without_metadata(image("JPEG", comment=SECRET) + SECRET)[0]


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"quality": 100, "subsampling": 0}]
)
def test_the_film_or_the_second_image_behind_a_jpeg_goes(options):
    """Phones put them there, with the place and the time of their own."""
    alone = image("JPEG", orientation=6, **options)
    film = b"\0\0\0\x18ftypmp42" + SECRET + b"\xff\xd9 moov"
    for behind in (film, image("JPEG"), b"\xff\xd9"):
        clean, _ = without_metadata(alone + behind)
        assert SECRET not in clean
        assert clean == without_metadata(alone)[0]
        assert clean.endswith(b"\xff\xd9")
        np.testing.assert_array_equal(pixels_of(clean), pixels_of(alone))


def test_what_is_behind_a_webp_goes():
    alone = image("WEBP", lossless=True)
    chunk = b"film" + struct.pack("<I", len(SECRET) + 1) + SECRET + b"\0"
    assert without_metadata(alone + chunk) == without_metadata(alone)
    inside = alone[:4] + struct.pack("<I", len(alone) - 8 + len(chunk)) + alone[8:] + chunk
    assert without_metadata(inside) == without_metadata(alone)


def test_a_jpeg_that_is_cut_off_loses_its_metadata_only():
    whole = image("JPEG")
    assert without_metadata(whole[:-2])[0] + b"\xff\xd9" == without_metadata(whole)[0]


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF"])
def test_other_formats_become_jpeg(kind):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, kind)
    clean, media_type = without_metadata(file.getvalue())
    assert media_type == "image/jpeg"
    assert clean.startswith(b"\xff\xd8\xff")


def test_what_is_no_image_is_refused():
    with pytest.raises(ImageError):
        without_metadata(b"<svg onload='alert(1)'>")


@given(st.sampled_from(["JPEG", "PNG", "WEBP"]), st.integers(0, 400), st.binary(max_size=6))
def test_a_damaged_file_raises_nothing_else_and_leaks_nothing(kind, position, noise):
    data = image(kind)
    damaged = data[:position] + noise + data[position + len(noise) :]
    try:
        clean, _ = without_metadata(damaged)
    except ImageError:
        return
    assert not clean.startswith(b"<")
