"""Any mode and profile to sRGB without transparency: something is left to see."""

import io

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw

from nearsight.errors import ImageError
from nearsight.images import decode
from nearsight.images.color import ON_BLACK, OPAQUE, to_rgb
from nearsight.images.strict_decoding import DecodingError

from sample_images import encoded, png, png_chunk, profile, samples, scene


def pixels(data):
    return np.asarray(decode(data).image).astype(int)


def ramp16():
    return np.linspace(0, 65535, 64 * 48).round().astype(np.uint16).reshape(48, 64)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bit_gray_keeps_its_range(image_format):
    data = encoded(Image.fromarray(ramp16()), image_format)
    expected = np.rint(ramp16() / 257).astype(int)
    got = pixels(data)
    assert np.array_equal(got[..., 0], got[..., 2])
    assert np.abs(got[..., 0] - expected).max() <= (1 if image_format == "JPEG2000" else 0)
    assert (got.min(), got.max()) == (0, 255)


def test_big_endian_sixteen_bit_tiff():
    data = encoded(Image.fromarray(ramp16().byteswap().view(">u2"), mode=None), "TIFF")
    assert np.array_equal(pixels(data)[..., 0], np.rint(ramp16() / 257).astype(int))


def test_dark_sixteen_bit_images_stay_dark():
    dark = Image.fromarray(np.full((8, 8), 200, np.uint16))
    for image_format in ("PNG", "PPM", "TIFF"):
        assert pixels(encoded(dark, image_format)).max() == 1, image_format


def test_sixteen_bit_white_is_zero_is_inverted():
    data = encoded(Image.fromarray(ramp16()), "TIFF", tiffinfo={262: 0})
    assert np.abs(pixels(data)[..., 0] - (255 - np.rint(ramp16() / 257))).max() <= 0


def test_sixteen_bit_color():
    values = np.stack([ramp16(), ramp16().T.reshape(48, 64), 65535 - ramp16()], -1)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    assert np.abs(pixels(png(64, 48, 16, 2, rows)) - values / 257).max() <= 1


@pytest.mark.parametrize("mode", ["I", "F"])
@pytest.mark.parametrize("highest", [255, 65535])
def test_wide_gray_is_scaled_by_its_range(mode, highest):
    values = np.linspace(0, highest, 64).reshape(8, 8)
    if mode == "F" and highest == 65535:
        values = values / 65535
        highest = 1
    image = Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32))
    got = np.asarray(to_rgb(image))[..., 0]
    assert np.abs(got - values / highest * 255).max() <= 1
    assert got.max() == 255


@pytest.mark.parametrize(
    "values",
    [
        np.full((4, 4), -1, np.int32),
        np.full((4, 4), 70_000, np.int32),
        np.full((4, 4), -0.5, np.float32),
        np.full((4, 4), 300.0, np.float32),
        np.full((4, 4), np.nan, np.float32),
    ],
)
def test_values_without_a_scale_are_refused(values):
    with pytest.raises(DecodingError, match="no known scale|no pixel holds"):
        to_rgb(Image.fromarray(values))
    with pytest.raises(ImageError, match="no known scale|no pixel holds"):
        decode(encoded(Image.fromarray(values), "TIFF"))


def halves():
    """Left half opaque red, right half transparent black."""
    image = Image.new("RGBA", (32, 16), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((0, 0, 15, 15), fill=(255, 0, 0, 255))
    return image


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "GIF", "JPEG2000"])
def test_transparency_lies_on_white(image_format):
    got = pixels(encoded(halves(), image_format, **({"lossless": True} if image_format == "WEBP" else {})))
    assert np.array_equal(got[8, 4], (255, 0, 0))
    assert np.array_equal(got[8, 28], (255, 255, 255))


def test_half_transparency_is_mixed_with_white():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert np.abs(pixels(encoded(image, "PNG")) - 127).max() <= 1
    gray = Image.new("LA", (4, 4), (0, 128))
    assert np.abs(pixels(encoded(gray, "PNG")) - 127).max() <= 1


def test_palette_with_transparency():
    image = halves().convert("RGB").quantize(4)
    transparent = image.getpixel((28, 8))
    for value in (transparent, bytes(0 if i == transparent else 255 for i in range(4))):
        got = pixels(encoded(image, "PNG", transparency=value))
        assert np.array_equal(got[8, 4], (255, 0, 0))
        assert np.array_equal(got[8, 28], (255, 255, 255))


@pytest.mark.parametrize(
    ("bit_depth", "color_type", "row", "transparent", "expected"),
    [
        (8, 0, bytes([7, 9]), b"\0\x07", [255, 9]),
        (16, 0, bytes([1, 2, 200, 9]), b"\x01\x02", [255, 199]),
        (2, 0, bytes([0b01_10_0000]), b"\0\x01", [255, 170]),
        (4, 0, bytes([0x3A]), b"\0\x03", [255, 170]),
        (1, 0, bytes([0b01_000000]), b"\0\0", [0, 255]),
        (8, 2, bytes([1, 2, 3, 90, 90, 90]), b"\0\x01\0\x02\0\x03", [255, 90]),
        (16, 2, bytes([1, 0, 2, 0, 3, 0] + [90, 0] * 3), b"\x01\0\x02\0\x03\0", [255, 90]),
    ],
)
def test_a_transparent_color_at_every_depth(bit_depth, color_type, row, transparent, expected):
    data = png(2, 1, bit_depth, color_type, b"\0" + row, png_chunk(b"tRNS", transparent))
    assert pixels(data)[0].tolist() == [[value] * 3 for value in expected]


def test_one_bit():
    image = Image.fromarray(np.indices((16, 16)).sum(0) % 2 == 0)
    got = pixels(encoded(image, "PNG"))
    assert np.array_equal(got[..., 0], np.asarray(image) * 255)


def test_cmyk_without_a_profile():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for image_format in ("JPEG", "TIFF"):
        red, green, blue = pixels(encoded(image, image_format))[8, 8]
        assert red > 240, image_format
        assert max(green, blue) < 15, image_format


def test_cmyk_that_adobe_did_not_write_is_not_upside_down():
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 255)), "JPEG", quality=95)
    start = data.index(b"\xff\xee")
    plain = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]
    # Pillow has stored 255 minus ink; without Adobe's mark that is ink: cyan.
    red, green, blue = pixels(plain)[8, 8]
    assert red < 15
    assert min(green, blue) > 240


def test_ycck_is_cmyk():
    # Adobe transform 2 marks YCCK: the same bytes then mean other inks.
    data = encoded(scene(64, 48).convert("CMYK"), "JPEG", quality=95)
    at = data.index(b"Adobe") + 11
    ycck = data[:at] + b"\x02" + data[at + 1 :]
    with Image.open(io.BytesIO(ycck)) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.array_equal(pixels(ycck), expected)
    assert np.abs(pixels(ycck) - pixels(data)).mean() > 10


def test_lab_is_converted():
    lab = ImageCms.applyTransform(
        scene(64, 48),
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
    )
    assert np.abs(pixels(encoded(lab, "TIFF")) - np.asarray(scene(64, 48)).astype(int)).mean() < 4


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_profile_is_applied(image_format):
    image = Image.new("RGB", (32, 32), (255, 0, 0))
    red, green, blue = pixels(encoded(image, image_format, icc_profile=profile("swapped")))[16, 16]
    assert blue > 200
    assert max(red, green) < 40


def test_a_profile_is_applied_below_transparency():
    data = encoded(halves(), "PNG", icc_profile=profile("swapped"))
    got = pixels(data)
    assert np.abs(got[8, 4] - (0, 0, 255)).max() < 40
    assert np.array_equal(got[8, 28], (255, 255, 255))


def test_the_srgb_profile_changes_nothing():
    plain = encoded(scene(), "PNG")
    assert np.array_equal(pixels(encoded(scene(), "PNG", icc_profile=profile("sRGB"))), pixels(plain))


def test_a_gray_profile_is_applied_to_gray():
    gray = Image.new("L", (8, 8), 64)
    got = pixels(encoded(gray, "PNG", icc_profile=profile("gray")))
    # linear 0.25 is 0.537 in sRGB
    assert np.abs(got - 137).max() <= 2
    rgb = Image.new("RGB", (8, 8), (64, 64, 64))
    assert np.abs(pixels(encoded(rgb, "PNG", icc_profile=profile("gray"))) - 64).max() == 0


def test_cmyk_with_a_profile_of_another_space_keeps_its_plain_conversion():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    with_profile = encoded(image, "TIFF", icc_profile=profile("sRGB"))
    assert np.array_equal(pixels(with_profile), pixels(encoded(image, "TIFF")))


@pytest.mark.parametrize("broken", [b"x", b"", bytes(128), profile("sRGB")[:200]])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_damaged_profile_is_ignored(image_format, broken):
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encoded(scene(), image_format, icc_profile=broken, **options)
    assert np.array_equal(pixels(data), pixels(encoded(scene(), image_format, **options)))


def test_gray_jpeg_with_a_color_profile():
    data = encoded(scene().convert("L"), "JPEG", icc_profile=profile("sRGB"))
    got = pixels(data)
    assert np.array_equal(got[..., 0], got[..., 1])


def test_gif_shows_its_palette_colors():
    image = scene(64, 48).quantize(32)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.array_equal(pixels(encoded(image, "GIF")), expected)


def test_all_samples_are_bright_enough_to_be_images():
    for name, data in samples().items():
        assert pixels(data).std() > 20, name


def drawing(ink, mode="RGBA"):
    """Lines of one ink on a transparent ground, as drawing programs save them."""
    image = Image.new(mode, (64, 48), (*ink, 0) if mode == "RGBA" else (ink[0], 0))
    ImageDraw.Draw(image).ellipse(
        (8, 8, 50, 40), outline=(*ink, 255) if mode == "RGBA" else (ink[0], 255), width=3
    )
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
def test_a_drawing_on_a_transparent_ground_shows(mode, image_format):
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    for ink, ground, notes in (((0, 0, 0), 255, ()), ((255, 255, 255), 0, (ON_BLACK,))):
        image = drawing(ink, mode)
        decoded = decode(encoded(image, image_format, **options))
        line = np.asarray(image.getchannel("A")) > 0
        values = np.asarray(decoded.image)[..., 0]
        assert (values[line] == ink[0]).all()
        assert (values[~line] == ground).all()
        assert decoded.notes == notes


def test_white_on_a_transparent_palette_shows():
    image = Image.new("P", (32, 32), 0)
    image.putpalette([255, 255, 255] * 2)
    image.paste(1, (8, 8, 24, 24))
    for image_format in ("PNG", "GIF"):
        decoded = decode(encoded(image, image_format, transparency=0))
        assert np.ptp(np.asarray(decoded.image)) == 255
        assert decoded.notes == (ON_BLACK,)


def test_transparency_that_hides_everything_is_ignored():
    image = scene(64, 48).convert("RGBA")
    image.putalpha(0)
    decoded = decode(encoded(image, "PNG"))
    assert np.array_equal(np.asarray(decoded.image), np.asarray(scene(64, 48)))
    assert decoded.notes == (OPAQUE,)


def test_an_empty_transparent_image_is_white():
    decoded = decode(encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), "PNG"))
    assert np.asarray(decoded.image).min() == 255
    assert decoded.notes == ()


def test_content_that_does_not_survive_is_a_failure_with_that_reason():
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 3] = 255  # black everywhere: whatever lies below it is not seen
    ink[:8, :, 0] = 255
    with pytest.raises(ImageError, match="CMYK is converted to sRGB, so nothing is left to see"):
        decode(encoded(Image.frombytes("CMYK", (16, 16), ink.tobytes()), "TIFF"))
    blank = decode(encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 255)), "TIFF"))
    assert np.asarray(blank.image).max() == 0


def test_a_profile_that_erases_everything_is_ignored(monkeypatch):
    class Eraser:
        def apply(self, image):
            return Image.new("RGB", image.size)

    monkeypatch.setattr("nearsight.images.color._srgb_transform", lambda icc, mode: Eraser())
    data = encoded(scene(), "PNG", icc_profile=profile("swapped"))
    assert np.array_equal(pixels(data), np.asarray(scene()))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "YCbCr", "RGBA"])
def test_ordinary_images_keep_their_exact_pixels(mode):
    """As version 1 of the decoder's rules: what Pillow converts, on white."""
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow before 13, the last for Python 3.10, does not read the YCbCr TIFF that it writes")
    image = scene().convert("RGB").quantize(64) if mode == "P" else scene().convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    expected = Image.new("RGB", image.size, "white")
    expected.paste(image.convert("RGB"), mask=image.getchannel("A") if mode == "RGBA" else None)
    decoded = decode(encoded(image, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"))
    assert np.array_equal(np.asarray(decoded.image), np.asarray(expected))
    assert (decoded.notes, decoded.rules_version) == ((), 1)


@settings(deadline=None)
@given(
    st.sampled_from(["RGBA", "LA", "PA", "RGBa", "La"]),
    st.lists(st.binary(min_size=4, max_size=4), min_size=2, max_size=2, unique=True),
)
def test_two_opaque_colors_are_never_one(mode, colors):
    image = Image.new("RGBA", (32, 32), (*colors[0][:3], 255))
    image.paste((*colors[1][:3], 255), (8, 8, 24, 24))
    if mode == "PA":
        image = image.convert("P").convert("PA")
    elif mode in ("LA", "La"):
        image = image.convert("LA").convert(mode)
    elif mode == "RGBa":
        image = image.convert("RGBa")
    plain = image.convert("LA") if mode == "La" else image
    expected = np.asarray(plain.convert("RGBA").convert("RGB"))
    assert np.array_equal(np.asarray(to_rgb(image)), expected)
