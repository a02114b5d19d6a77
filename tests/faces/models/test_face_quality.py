from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nearsight.faces.models import POOR, assess_quality

FRONT = np.array([[48.0, 45.4], [103.0, 45.4], [75.5, 78.8], [52.6, 105.7], [98.4, 105.7]])


@pytest.fixture(scope="module")
def chip():
    """Smooth blobs with fine grain over them, as skin and features are."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(60, 190, (12, 12), np.uint8)).resize(
        (150, 150), Image.Resampling.BICUBIC
    )
    return Image.fromarray(
        np.clip(np.asarray(coarse) + rng.normal(0, 6, (150, 150)), 0, 255).astype(np.uint8)
    ).convert("RGB")


def judge(image, landmarks=FRONT, size_px=120.0):
    return assess_quality(np.asarray(image), landmarks, size_px)


def test_a_good_image_has_no_problem(chip):
    good = judge(chip)
    assert good.problems == ()
    assert good.score > 0.8


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda image: image.filter(ImageFilter.GaussianBlur(9)), "blurred"),
        (lambda image: image.point(lambda v: v * 0.1), "dark"),
        (lambda image: image.point(lambda v: 225 + v * 0.12), "overexposed"),
        (lambda image: image.point(lambda v: 120 + v * 0.05), "without contrast"),
    ],
)
def test_what_is_wrong_with_the_image_is_named(chip, change, problem):
    found = judge(change(chip))
    assert problem in found.problems
    assert found.score < POOR


def test_a_small_face_is_poor(chip):
    assert "small" in judge(chip, size_px=20).problems
    assert judge(chip, size_px=60).score > judge(chip, size_px=40).score


@pytest.mark.parametrize("angle", [0, 40, 90, 180])
def test_tilt_is_told_and_is_no_turn(chip, angle):
    radians = np.radians(angle)
    turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    found = judge(chip, FRONT @ turn.T)
    assert abs(found.tilt_deg) == pytest.approx(angle, abs=0.1)
    assert found.problems == ()


def test_a_nose_beyond_an_eye_is_turned_away(chip):
    profile = FRONT.copy()
    profile[2, 0] = 110
    found = judge(chip, profile)
    assert found.turn > 1
    assert found.problems == ("turned away",)


@pytest.mark.parametrize("landmarks", [np.zeros((5, 2)), np.full((5, 2), np.nan)])
def test_landmarks_that_say_nothing_are_poor_and_no_error(chip, landmarks):
    found = judge(chip, landmarks)
    assert found.score == 0
    numbers = [value for value in asdict(found).values() if isinstance(value, float)]
    assert len(numbers) == 8
    assert np.isfinite(numbers).all()


def test_a_single_color_is_poor():
    assert judge(Image.new("RGB", (150, 150), "gray")).score == 0
