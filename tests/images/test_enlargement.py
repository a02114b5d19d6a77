"""An enlarged image has no detail of its own, whatever was done to it; a larger original has."""

import io
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from nearsight.images.enlargement import added_detail

from sample_images import encoded

SHARPEN = ImageFilter.UnsharpMask(2, 150, 0)
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@cache
def leaves(width=640, height=512, blur=0.5):
    """Return disks that cover one another: edges of every length, like a photograph."""
    rng = np.random.default_rng(0)
    image = Image.new("RGB", (2 * width, 2 * height))
    draw = ImageDraw.Draw(image)
    for radius in sorted(1.2 * width / rng.uniform(1, 200, 6000), reverse=True):
        x, y = rng.uniform(0, 2 * width), rng.uniform(0, 2 * height)
        color = tuple(rng.integers(30, 226, 3).tolist())
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    smooth = image.filter(ImageFilter.GaussianBlur(2 * blur))
    return smooth.resize((width, height), Image.Resampling.BOX)


def gray(image, quality=None):
    if quality:
        image = Image.open(io.BytesIO(encoded(image, "JPEG", quality=quality)))
    return np.asarray(image.convert("L"))


def noisy(image):
    pixels = np.asarray(image, np.float32) + np.random.default_rng(0).normal(0, 4, (*image.size[::-1], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


AFTER = {
    "plain": lambda image: image,
    "sharpened": lambda image: image.filter(SHARPEN),
    "noise": noisy,
    "other tones": lambda image: image.point(lambda level: int(255 * (level / 255) ** 0.7)),
}


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("how", FILTERS)
def test_an_enlargement_adds_nothing(how, after):
    small = leaves(320, 256)
    for factor, quality, compression in ((2, 85, 0.3), (1.6, None, 0)):
        size = (round(factor * small.width), round(factor * small.height))
        large = AFTER[after](small.resize(size, FILTERS[how]))
        added = added_detail(gray(large, quality), gray(small, 75), compression, 0.5)
        assert added.in_large < 0.1 or added.in_large < 8 * added.in_small


@pytest.mark.parametrize("blur", [0.2, 0.6])
@pytest.mark.parametrize("how", [name for name in FILTERS if name != "nearest"])
def test_a_larger_original_has_detail_of_its_own_also_a_soft_one(how, blur):
    large = leaves(blur=blur)
    small = large.resize((230, 210), FILTERS[how])
    added = added_detail(gray(large, 92), gray(small, 75), 0.16, 0.5)
    assert added.in_large > 0.1
    assert added.in_small < added.in_large / 8


def test_a_reduction_without_smoothing_is_still_one():
    large = leaves()
    matrix = (640 / 300, 0, 0, 0, 512 / 300, 0)
    small = large.transform((300, 300), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    assert added_detail(gray(large), gray(small), 0, 0).in_small < 0.01


@pytest.mark.parametrize("turn", [None, *Image.Transpose])
def test_a_turn_changes_nothing(turn):
    large = leaves()
    small = large.resize((320, 256), Image.Resampling.LANCZOS)
    turned = small if turn is None else small.transpose(turn)
    straight = added_detail(gray(large), gray(small), 0, 0)
    assert added_detail(gray(large), gray(turned), 0, 0).in_large == pytest.approx(
        straight.in_large, rel=0.05
    )


def test_another_frame_is_in_the_smaller_image_too():
    large = leaves()
    small = large.crop((20, 20, 640, 512)).resize((300, 240), Image.Resampling.LANCZOS)
    added = added_detail(gray(large), gray(small), 0, 0)
    assert added.in_small > 0.05


def test_nothing_follows_from_tiny_and_from_plain_images():
    tiny, plain = np.zeros((40, 200), np.uint8), np.full((200, 200), 90, np.uint8)
    assert np.isnan(added_detail(tiny, tiny, 0, 0).in_large)
    assert np.isnan(added_detail(plain, plain[:100, :100], 0, 0).in_large)
