"""The width of edges and the noise, against images whose figures are known."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nearsight.images.quality import measure_quality
from nearsight.images.statistics import statistics

from sample_images import encoded


def disk(low=0, high=255, size=(256, 192)):
    y, x = np.mgrid[: size[1], : size[0]]
    inside = (x - size[0] / 2) ** 2 + (y - size[1] / 2) ** 2 < (min(size) / 3) ** 2
    return Image.fromarray(np.where(inside, high, low).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("width", [1.0, 2.0, 3.0, 5.0])
def test_the_width_of_a_blurred_edge_is_that_of_the_blur(width):
    blurred = disk().filter(ImageFilter.GaussianBlur(width))
    assert statistics(blurred).edge_width == pytest.approx(width, rel=0.12)


def test_the_width_does_not_depend_on_contrast_or_brightness():
    blurred = [
        disk(*levels).filter(ImageFilter.GaussianBlur(3)) for levels in ((0, 255), (90, 140), (200, 120))
    ]
    for image in blurred:
        assert statistics(image).edge_width == pytest.approx(3, rel=0.2)


def test_the_width_is_a_share_of_the_longer_side():
    large = disk(size=(384, 288)).filter(ImageFilter.GaussianBlur(3))
    assert statistics(large).edge_width == pytest.approx(2, rel=0.15)


def test_motion_along_one_axis_is_blur():
    pixels = np.asarray(disk(), np.float32)
    moved = np.mean([np.roll(pixels, shift, axis=1) for shift in range(-6, 7)], axis=0)
    assert statistics(Image.fromarray(moved.astype(np.uint8))).edge_width > 2
    turned = Image.fromarray(moved.astype(np.uint8)).transpose(Image.Transpose.ROTATE_90)
    assert statistics(turned).edge_width > 2


def test_one_sharp_thing_before_a_blurred_ground_is_sharp():
    ground = disk().filter(ImageFilter.GaussianBlur(6))
    ground.paste((255, 255, 255), (20, 20, 80, 80))
    assert statistics(ground).edge_width < 0.8


def test_noise_is_measured_in_gray_levels():
    flat = np.full((256, 256, 3), 128.0)
    for deviation in (2, 8):
        noise = np.random.default_rng(0).normal(0, deviation, (256, 256, 1))
        pixels = Image.fromarray(np.clip(flat + noise, 0, 255).astype(np.uint8))
        # The flattest tenth of the tiles has a bit less.
        assert measure_quality(encoded(pixels, "PNG")).noise == pytest.approx(deviation, rel=0.15)
