"""Whether two pictures are one, seen from their pixels."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from nearsight.errors import InvalidParameterError
from nearsight.images import thumbnail
from nearsight.images.registration import SAME, SURE, black_corners, miniature, register, sharpness

from pictures import scene, texture


def agreement(here: Image.Image, there: Image.Image) -> float:
    [value] = register(*(miniature(thumbnail(image))[None] for image in (here, there))).agreement
    return float(value)


@pytest.fixture(scope="module")
def picture():
    return texture(400, 300, 7)


def turned(picture, degrees):
    return picture.rotate(degrees, Image.Resampling.BICUBIC)


def marked(picture):
    copy = picture.copy()
    ImageDraw.Draw(copy).rectangle((20, 250, 250, 285), fill="white")
    return copy


@pytest.mark.parametrize(
    "edit",
    [
        lambda p: p,
        lambda p: p.resize((200, 150), Image.Resampling.LANCZOS),
        lambda p: p.resize((800, 300)),
        lambda p: p.crop((30, 20, 390, 290)),
        lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda p: p.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        lambda p: p.transpose(Image.Transpose.ROTATE_90),
        lambda p: p.transpose(Image.Transpose.TRANSVERSE),
        lambda p: turned(p, 6),
        lambda p: turned(p, -9),
        lambda p: p.point(lambda v: v * 0.6 + 30),
        lambda p: p.convert("L"),
        marked,
    ],
)
def test_an_edited_picture_is_still_the_same(picture, edit):
    assert agreement(picture, edit(picture)) > SAME
    assert agreement(edit(picture), picture) > SAME


def test_other_pictures_are_not_the_same():
    minis = np.stack([miniature(texture(400, 300, seed)) for seed in range(16)])
    i, j = np.triu_indices(16, 1)
    assert register(minis[i], minis[j]).agreement.max() < SAME < SURE


def test_alike_from_far_is_not_the_same():
    # One large shape in common, other details.
    a, b = (Image.blend(scene(400, 300, 3), texture(400, 300, seed), 0.5) for seed in (1, 2))
    assert agreement(a, b) < SAME


def test_a_mirror_image_is_told(picture):
    minis = [miniature(p) for p in (picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    found = register(np.stack([minis[0]] * 2), np.stack(minis))
    assert found.mirrored.tolist() == [False, True]
    np.testing.assert_allclose(found.transforms[1], [[-1, 0, 0], [0, 1, 0]], atol=0.02)


def test_the_transform_says_where_things_lie(picture):
    there = picture.crop((0, 0, 360, 276))
    [transform] = register(miniature(picture)[None], miniature(there)[None]).transforms
    np.testing.assert_allclose(transform, [[400 / 360, 0, 40 / 360], [0, 300 / 276, 24 / 276]], atol=0.03)


def test_each_pair_is_compared_for_itself(picture):
    edits = [picture, turned(picture, 5), marked(picture), texture(400, 300, 9)] * 30
    minis = np.stack([miniature(edit) for edit in edits])
    first = np.stack([miniature(picture)] * len(minis))
    together = register(first, minis).agreement
    alone = [register(first[i : i + 1], minis[i : i + 1]).agreement[0] for i in range(4)]
    np.testing.assert_allclose(together, alone * 30, atol=2e-3)


def test_a_plain_colour_agrees_with_nothing(picture):
    plain = Image.new("RGB", (400, 300), "teal")
    assert agreement(plain, plain) == 0
    assert agreement(plain, picture) <= 0.3


def test_no_pairs_at_all():
    nothing = np.empty((0, 96, 96), np.uint8)
    assert register(nothing, nothing).agreement.shape == (0,)


@pytest.mark.parametrize("shape", [(2, 96, 96), (1, 64, 64), (96, 96)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InvalidParameterError, match="as `miniature` gives them"):
        register(np.zeros((1, 96, 96), np.uint8), np.zeros(shape, np.uint8))


def test_sharpness_tells_blurred_from_crisp_whatever_is_laid_over(picture):
    crisp, blurred, blurred_and_marked = (
        sharpness(thumbnail(p))
        for p in (
            picture,
            picture.filter(ImageFilter.GaussianBlur(2)),
            marked(picture.filter(ImageFilter.GaussianBlur(2))),
        )
    )
    assert crisp > 1.5 * blurred
    assert crisp > 1.5 * blurred_and_marked
    assert sharpness(thumbnail(Image.new("RGB", (3, 2)))) == 0


def test_black_corners_are_what_turning_leaves(picture):
    brighter = picture.point(lambda v: 40 + v * 0.8)
    assert black_corners(miniature(brighter)) == 0
    assert 0.2 < black_corners(miniature(brighter.rotate(30, expand=True))) < 0.6
    inside = brighter.copy()
    ImageDraw.Draw(inside).rectangle((100, 100, 300, 200), fill="black")
    assert black_corners(miniature(inside)) == 0
