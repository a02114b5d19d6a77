"""What is said of images that differ from those that something was fitted on."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nearsight.analyses.image_conditions import ConditionComparison, ImageConditions


def photo(seed, size=(320, 240), change=lambda image: image):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (6, 8, 3), np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 255
    image = change(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=90)
    return *image.size, file.getvalue()


CHANGES = {
    "gray": lambda image: image.convert("L"),
    "much darker": lambda image: image.point(lambda v: v * 0.3),
    "much brighter": lambda image: image.point(lambda v: 255 - (255 - v) * 0.3),
    "more blurred": lambda image: image.filter(ImageFilter.GaussianBlur(5)),
    "much smaller": lambda image: image.resize((80, 60)),
}


@pytest.fixture(scope="module")
def conditions():
    return ImageConditions.of([photo(seed, (320 + 10 * seed, 240)) for seed in range(8)])


def test_images_like_the_fitted_ones_differ_in_nothing(conditions):
    assert [conditions.differences(*photo(seed)) for seed in range(50, 60)] == [[]] * 10
    assert conditions.differences(*photo(70, (1000, 800))) == []


@pytest.mark.parametrize("kind", CHANGES)
def test_each_difference_is_named_alone(conditions, kind):
    [text] = conditions.differences(*photo(99, change=CHANGES[kind]))
    assert text.startswith(kind)


def test_color_is_a_difference_from_gray():
    gray = ImageConditions.of([photo(seed, change=CHANGES["gray"]) for seed in range(4)])
    [text] = gray.differences(*photo(5))
    assert text.startswith("in color")
    assert gray.differences(*photo(6, change=CHANGES["gray"])) == []


def test_differences_are_counted(conditions):
    comparison = ConditionComparison(conditions)
    for seed in range(3):
        comparison.add(*photo(seed, change=CHANGES["gray"]))
    comparison.add(*photo(4, change=CHANGES["much smaller"]))
    assert [note.split(" (")[0] for note in comparison.notes] == [
        "3 of 4 images: gray, where fitted images are in color",
        "1 of 4 images: much smaller",
    ]


def test_a_file_has_the_same_conditions(conditions):
    assert ImageConditions.from_dict(conditions.to_dict()) == conditions
    assert ImageConditions.of([]) is None
