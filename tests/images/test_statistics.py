"""Figures of one image, against images whose figures are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nearsight.images.statistics import statistics


def disk(low=0, high=255, size=(256, 192)):
    y, x = np.mgrid[: size[1], : size[0]]
    inside = (x - size[0] / 2) ** 2 + (y - size[1] / 2) ** 2 < (min(size) / 3) ** 2
    return Image.fromarray(np.where(inside, high, low).astype(np.uint8)).convert("RGB")


def test_brightness_and_contrast():
    gray = Image.new("RGB", (64, 64), (128, 128, 128))
    assert statistics(gray).contrast == 0
    assert statistics(gray).span == 0
    dark = statistics(disk(0, 51))
    assert (dark.darkest, dark.brightest) == (0, pytest.approx(0.2))
    assert dark.contrast == 1  # as much as so dark an image can have
    flat = statistics(disk(102, 153))
    assert flat.contrast == pytest.approx(1 / 3, abs=0.01)
    assert statistics(disk(204, 255)).contrast == 1


def test_gray_and_color():
    assert statistics(disk()).is_gray
    assert not statistics(Image.new("RGB", (64, 64), (200, 40, 40))).is_gray


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_small_image_has_figures(width, height, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    measured = statistics(Image.fromarray(pixels))
    assert 0 <= measured.darkest <= measured.brightest <= 1
    assert 0 <= measured.span <= 1
    assert 0 <= measured.contrast <= 1
    assert np.isnan(measured.edge_width) or measured.edge_width >= 0
