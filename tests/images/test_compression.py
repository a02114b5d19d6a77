"""JPEG compression is measured by headers and by the traces in pixels."""

import io

import pytest
from PIL import Image

from nearsight.images.compression import jpeg_quality
from nearsight.images.quality import measure_quality

from sample_images import encoded, grainy, scene


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize("quality", [15, 30, 50, 75, 90, 95])
@pytest.mark.parametrize("container", ["PNG", "BMP", "TIFF", "JPEG"])
def test_compression_is_found_whatever_the_pixels_were_stored_in_afterwards(quality, container):
    once = encoded(grainy(), "JPEG", quality=quality)
    expected = measure_quality(once).compression
    # libjpeg's factor: 5,000 / quality below 50, 200 - 2 quality above, in percent.
    assert expected == pytest.approx((50 / quality if quality < 50 else 2 - quality / 50), abs=0.06, rel=0.1)
    options = {"quality": 98} if container == "JPEG" else {}
    again = measure_quality(encoded(decoded(once), container, **options))
    assert again.compression == pytest.approx(expected, rel=0.15)
    assert again.stored_compression < 0.08


def test_compression_is_found_after_a_crop_that_moves_the_blocks():
    once = decoded(encoded(grainy(), "JPEG", quality=30))
    cropped = once.crop((3, 5, once.width, once.height))
    assert measure_quality(encoded(cropped, "PNG")).compression == pytest.approx(50 / 30, rel=0.15)


@pytest.mark.parametrize("quality", [20, 30, 49, 50, 51, 75, 90, 95, 100])
def test_the_quality_of_a_jpeg_is_read_from_its_table(quality):
    assert abs(jpeg_quality(encoded(scene(), "JPEG", quality=quality)) - quality) <= 1


def test_other_formats_and_damaged_files_have_no_quality_to_speak_of():
    assert jpeg_quality(encoded(scene(), "PNG")) == 100
    assert jpeg_quality(b"\xff\xd8nothing") == 100
