"""An image under other conditions than the good ones is adapted, refused, or told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nearsight.anomaly.conditions import Capture, Conditions
from nearsight.errors import ImageError

from sample_images import scene


def conditions_of(*captures: Capture) -> Conditions:
    conditions = Conditions()
    for capture in captures:
        conditions.add(capture)
    return conditions


def capture(width=100, height=100, gray=False, quality=100) -> Capture:
    return Capture(width, height, gray, quality)


def test_channels_are_told_apart_by_every_pixel():
    gray = np.full((5, 5, 3), 90, np.uint8)
    assert Capture.of(Image.fromarray(gray), b"").gray
    gray[4, 4, 2] = 91
    assert not Capture.of(Image.fromarray(gray), b"").gray


def test_without_good_images_nothing_is_changed():
    image = scene()
    assert Conditions().adapted(image, Capture.of(image, b""), "a") == (image, ())


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_any_size_fits_or_is_refused_with_both_sizes(width, height):
    good = conditions_of(capture(400, 300), capture(800, 500))
    fits = 4 / 3 / 1.05 <= width / height <= 1.6 * 1.05 and width * height >= 30_000
    if not fits:
        with pytest.raises(ImageError, match=rf"{width}×{height}.*400×300 to 800×500"):
            good._size(capture(width, height), "a.png")
        return
    size = good._size(capture(width, height), "a.png")
    assert 0.98 * 400 * 300 <= size[0] * size[1] <= 1.02 * 800 * 500
    assert 1.3 < size[0] / size[1] < 1.63


def test_an_image_within_the_sizes_of_the_good_ones_is_left_alone():
    good = conditions_of(capture(400, 300), capture(800, 500))
    image = Image.new("RGB", (600, 400))
    assert good.adapted(image, capture(600, 400), "a") == (image, ())


def test_an_image_of_another_size_is_resampled_to_the_good_ones():
    adapted, notes = conditions_of(capture()).adapted(scene(300, 303), capture(300, 303), "a")
    assert adapted.size == (100, 100)
    assert notes == ("resampled from 300×303 to 100×100 pixels",)


def test_color_and_gray():
    good = conditions_of(capture(gray=True))
    adapted, notes = good.adapted(scene(100, 100), capture(), "a")
    assert Capture.of(adapted, b"").gray
    assert notes == ("converted to gray, as the good images are",)
    with pytest.raises(ImageError, match="is gray, and the good images are in color"):
        conditions_of(capture()).adapted(scene(100, 100), capture(gray=True), "a")
    mixed = conditions_of(capture(), capture(gray=True))
    for gray in (True, False):
        assert mixed.adapted(scene(100, 100), capture(gray=gray), "a")[1] == ()


def test_heavier_compression_is_told():
    good = conditions_of(capture(quality=90), capture(quality=95))
    assert good.adapted(scene(100, 100), capture(quality=85), "a")[1] == ()
    [note] = good.adapted(scene(100, 100), capture(quality=40), "a")[1]
    assert "about 40, that of the good images 90 or more" in note
    assert "without loss" in conditions_of(capture()).adapted(scene(100, 100), capture(quality=40), "a")[1][0]


def test_plain_data_is_all_of_it():
    good = conditions_of(capture(400, 300, quality=80), capture(800, 500, gray=True))
    assert Conditions.from_dict(good.to_dict()) == good
