import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nearsight.faces.models import chip, similarity_transform

TEMPLATE = np.array([[48.0, 45], [103, 45], [75, 79], [52, 106], [98, 106]])
angles = st.floats(-np.pi, np.pi)
scales = st.floats(0.05, 20)
shifts = st.tuples(st.floats(-1000, 1000), st.floats(-1000, 1000))


@given(angles, scales, shifts)
def test_finds_the_turn_scale_and_shift_that_were_applied(angle, scale, shift):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = similarity_transform(TEMPLATE, TEMPLATE @ turn.T + shift)
    np.testing.assert_allclose(found, np.column_stack([turn, shift]), atol=1e-6 * max(1, scale))


@given(st.integers(0, 10_000))
def test_no_other_similarity_comes_nearer(seed):
    rng = np.random.default_rng(seed)
    points, weights = rng.normal(size=(5, 2)), rng.uniform(0.1, 1, 5)

    def error(matrix):
        return (weights[:, None] * (points @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE) ** 2).sum()

    best = similarity_transform(points, TEMPLATE, weights)
    for _ in range(20):
        a, b, x, y = rng.normal(scale=0.1, size=4)
        assert error(best + np.array([[a, -b, x], [b, a, y]])) >= error(best) - 1e-9


def test_a_mirror_image_is_not_a_turn():
    matrix = similarity_transform(TEMPLATE * [-1, 1], TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize("points", [np.ones((5, 2)), np.full((5, 2), np.nan)])
def test_points_that_say_nothing_have_no_transform(points):
    matrix = similarity_transform(points, TEMPLATE)
    assert np.isnan(matrix).all()
    assert not chip(Image.new("RGB", (50, 50), "red"), matrix, (20, 30)).any()


@pytest.mark.parametrize("scale", [0.8, 1, 3, 7.5])
def test_a_chip_shows_what_lies_under_the_template(scale):
    """Five colored disks at the landmarks come to lie at the template, at any size of the face."""
    colors = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    rows, columns = np.mgrid[: int(160 * scale) + 40, : int(160 * scale) + 40]
    pixels = np.zeros((*rows.shape, 3), np.uint8)
    points = TEMPLATE * scale + 12
    for (x, y), color in zip(points, colors, strict=True):
        pixels[(rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 < (8 * scale) ** 2] = color
    made = chip(Image.fromarray(pixels), similarity_transform(points, TEMPLATE), (150, 150))
    assert made.shape == (150, 150, 3)
    for (x, y), color in zip(TEMPLATE, colors, strict=True):
        assert np.abs(made[int(y), int(x)].astype(int) - color).max() < 30
    # Where a disk lies is right to a third of a pixel.
    red = (made[..., 0] > 125) & (made[..., 1] < 125)
    center = np.argwhere(red).mean(0)[::-1] + 0.5
    np.testing.assert_allclose(center, TEMPLATE[0], atol=0.34)


def test_a_fine_pattern_is_averaged_and_not_sampled():
    pixels = np.zeros((1000, 1000, 3), np.uint8)
    pixels[::2] = 255
    made = chip(Image.fromarray(pixels), np.array([[0.1, 0, 0], [0, 0.1, 0]]), (100, 100))
    assert np.abs(made[5:-5, 5:-5].astype(int) - 127).max() < 12


def test_what_lies_outside_is_black():
    made = chip(Image.new("RGB", (20, 20), "white"), np.array([[1.0, 0, 50], [0, 1, 50]]), (100, 100))
    assert made[60, 60].min() == 255
    assert not made[:45].any()
    far = chip(Image.new("RGB", (20, 20), "white"), np.array([[1.0, 0, 5000], [0, 1, 5000]]), (100, 100))
    assert not far.any()
