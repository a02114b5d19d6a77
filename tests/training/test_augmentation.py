"""Views of images."""

import numpy as np
import pytest
from PIL import Image

from nearsight.errors import InvalidParameterError
from nearsight.training.augmentation import AUGMENTATIONS, augmentation, contact_sheet, view


def gradient(width=90, height=60):
    rng = np.random.default_rng(0)
    pixels = np.linspace(0, 200, width)[None, :, None] + rng.uniform(0, 55, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_views_are_the_same_each_time_and_differ_from_each_other(name):
    image, changes = gradient(), AUGMENTATIONS[name]
    views = [view(image, changes, number) for number in range(6)]
    assert views[0] is image
    for number, shown in enumerate(views):
        again = view(image.copy(), changes, number)
        assert shown.tobytes() == again.tobytes()
        assert shown.mode == "RGB"
        area = shown.width * shown.height / (image.width * image.height)
        assert changes.min_area * 0.9 <= area <= 1
    assert len({shown.tobytes() for shown in views}) == 6


def test_documents_are_never_mirrored():
    bright_right = gradient()
    for number in range(1, 30):
        levels = np.asarray(view(bright_right, AUGMENTATIONS["documents"], number).convert("L"), float)
        assert levels[:, -10:].mean() > levels[:, :10].mean()
    mirrored = view(bright_right, AUGMENTATIONS["photos"], 1)
    assert mirrored.tobytes() == bright_right.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()


def test_a_contact_sheet_has_a_row_for_each_image():
    sheet = contact_sheet([gradient(), gradient(20, 40)], AUGMENTATIONS["industrial"], 5)
    assert sheet.size == (5 * 132 + 4, 2 * 132 + 4)


def test_an_unknown_augmentation_names_the_others():
    with pytest.raises(InvalidParameterError, match="'xrays'; it must be one of photos, products"):
        augmentation("xrays")
