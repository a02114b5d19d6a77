"""Whether two images are one, seen from their pixels."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from nearsight.errors import InvalidParameterError
from nearsight.images import thumbnail
from nearsight.verification.dense import (
    CERTAIN_AGREEMENT,
    MATCH_AGREEMENT,
    black_corner_share,
    edge_strengths,
    edit_hashes,
    gray_thumbnail,
    register,
)
from nearsight.verification.dense.affine import pixel_grid, smoothed, warp, warp_weights
from nearsight.verification.dense.pose_search import _poses, _symmetries, _turns
from nearsight.verification.dense.refinement import _gauss_newton_step, _inverse_matrix, gradients_of

from sample_images import scene, texture


def agreement(here: Image.Image, there: Image.Image) -> float:
    thumbnails = np.stack([gray_thumbnail(thumbnail(p)) for p in (here, there)])
    [value] = register(thumbnails, [(0, 1)]).agreement
    return float(value)


@pytest.fixture(scope="module")
def image():
    return texture(400, 300, 7)


def turned(image, degrees):
    return image.rotate(degrees, Image.Resampling.BICUBIC)


def marked(image):
    copy = image.copy()
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
def test_an_edited_image_is_still_the_same(image, edit):
    assert agreement(image, edit(image)) > MATCH_AGREEMENT
    assert agreement(edit(image), image) > MATCH_AGREEMENT


def test_other_images_are_not_the_same():
    thumbnails = np.stack([gray_thumbnail(texture(400, 300, seed)) for seed in range(16)])
    pairs = np.stack(np.triu_indices(16, 1), axis=1)
    assert register(thumbnails, pairs).agreement.max() < MATCH_AGREEMENT < CERTAIN_AGREEMENT


def test_alike_from_far_is_not_the_same():
    # One large shape in common, other details.
    a, b = (Image.blend(scene(400, 300, 3), texture(400, 300, seed), 0.5) for seed in (1, 2))
    assert agreement(a, b) < MATCH_AGREEMENT


def test_a_mirror_image_is_told(image):
    thumbnails = [gray_thumbnail(p) for p in (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    found = register(np.stack(thumbnails), [(0, 0), (0, 1)])
    assert found.mirrored.tolist() == [False, True]
    np.testing.assert_allclose(found.transforms[1], [[-1, 0, 0], [0, 1, 0]], atol=0.02)


def test_the_transform_says_where_things_lie(image):
    there = image.crop((0, 0, 360, 276))
    thumbnails = np.stack([gray_thumbnail(image), gray_thumbnail(there)])
    [transform] = register(thumbnails, [(0, 1)]).transforms
    np.testing.assert_allclose(transform, [[400 / 360, 0, 40 / 360], [0, 300 / 276, 24 / 276]], atol=0.03)


@pytest.mark.slow
def test_each_pair_is_compared_for_itself(image):
    edits = [image, turned(image, 5), marked(image), texture(400, 300, 9)]
    thumbnails = np.stack([gray_thumbnail(edit) for edit in edits])
    aspects = np.array([4 / 3, 4 / 3, 4 / 3, 1])
    pairs = [(i, j) for i in range(4) for j in range(4)]
    alone = [register(thumbnails[[i, j]], [(0, 1)], aspects[[i, j]]).agreement[0] for i, j in pairs]
    # Many at once, in no order.
    order = np.random.default_rng(0).permutation(np.tile(np.arange(16), 40))
    together = register(thumbnails, np.array(pairs)[order], aspects).agreement
    np.testing.assert_allclose(together, np.array(alone)[order], atol=2e-3)


@pytest.mark.parametrize("degrees", [40, 90, 155, 250])
def test_any_turn_is_found_where_the_shape_is_known(image, degrees):
    there = image.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    thumbnails = np.stack([gray_thumbnail(thumbnail(p)) for p in (image, there)])
    aspects = [p.width / p.height for p in (image, there)]
    assert register(thumbnails, [(0, 1), (1, 0)], aspects).agreement.min() > MATCH_AGREEMENT


def test_a_plain_color_agrees_with_nothing(image):
    plain = Image.new("RGB", (400, 300), "teal")
    assert agreement(plain, plain) == 0
    assert agreement(plain, image) <= 0.3


def test_no_pairs_at_all():
    nothing = np.empty((0, 96, 96), np.uint8)
    assert register(nothing, []).agreement.shape == (0,)
    assert register(nothing, np.empty((0, 2), np.int64)).transforms.shape == (0, 2, 3)


@pytest.mark.parametrize(
    ("shape", "pairs", "aspects", "message"),
    [
        ((1, 64, 64), [], None, "as `gray_thumbnail` returns"),
        ((96, 96), [], None, "as `gray_thumbnail` returns"),
        ((2, 96, 96), [(0, 2)], None, "names the images 0 to 2; there are 0 to 1"),
        ((2, 96, 96), [(-1, 1)], None, "names the images -1 to 1"),
        ((2, 96, 96), [(0, 1, 1)], None, "two numbers a row"),
        ((2, 96, 96), [(0, 1)], [1.0], "width over height of each image"),
        ((2, 96, 96), [(0, 1)], [1.0, 0.0], "width over height of each image"),
    ],
)
def test_what_does_not_fit_is_refused(shape, pairs, aspects, message):
    with pytest.raises(InvalidParameterError, match=message):
        register(np.zeros(shape, np.uint8), pairs, aspects)


def test_edges_are_told_place_by_place(image):
    whole, blurred, some = (
        edge_strengths(thumbnail(p))
        for p in (image, image.filter(ImageFilter.GaussianBlur(2)), marked(image))
    )
    assert whole.shape == (16, 16)
    assert (whole > 1.5 * blurred).mean() > 0.95
    # The bar lies in the rows 13 to 15 of 16, plain inside.
    np.testing.assert_allclose(some[:12], whole[:12], rtol=0.15)
    assert (some[14, 2:9] < 0.5 * whole[14, 2:9]).all()
    assert not edge_strengths(thumbnail(Image.new("RGB", (3, 2)))).any()


def test_black_corners_are_what_turning_leaves(image):
    brighter = image.point(lambda v: 40 + v * 0.8)
    assert black_corner_share(gray_thumbnail(brighter)) == 0
    assert 0.2 < black_corner_share(gray_thumbnail(brighter.rotate(30, expand=True))) < 0.6
    inside = brighter.copy()
    ImageDraw.Draw(inside).rectangle((100, 100, 300, 200), fill="black")
    assert black_corner_share(gray_thumbnail(inside)) == 0


def test_a_look_survives_edits_and_knows_its_mirror_image(image):
    edits = [
        image,
        image.resize((200, 150)),
        image.point(lambda v: v * 0.6 + 30),
        marked(image),
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        texture(400, 300, 8),
    ]
    plain, mirrored, *_ = edit_hashes(np.stack([gray_thumbnail(thumbnail(edit)) for edit in edits]))
    assert set(np.unique(plain)) == {-1, 1}
    same = (plain == plain[0]).mean(axis=1)
    assert same[:3].min() > 0.95
    assert same[3] > 0.6 > same[4:].max()
    assert (mirrored[4] == plain[0]).mean() > 0.95


@pytest.mark.parametrize(
    "edit",
    [
        lambda p: p.rotate(-5),
        lambda p: p.rotate(7).crop((40, 30, 360, 270)),
        *(lambda p, turn=turn: p.transpose(turn) for turn in Image.Transpose),
        lambda p: p.crop((40, 0, 400, 270)),
        lambda p: p.crop((11, 15, 371, 285)),
        lambda p: p.crop((0, 60, 320, 300)),
    ],
)
def test_an_image_looks_in_some_way_as_its_edits_do(image, edit):
    ways = edit_hashes(
        np.stack([gray_thumbnail(thumbnail(p)) for p in (image, edit(image), texture(400, 300, 8))])
    )
    of_edit, of_other = ((ways[:, 0] == ways[0, there]).mean(axis=1).max() for there in (1, 2))
    assert of_edit > 0.75 > of_other


def test_a_plain_color_looks_like_nothing():
    assert not edit_hashes(np.full((2, 96, 96), 77, np.uint8)).any()
    assert edit_hashes(np.empty((0, 96, 96), np.uint8)).shape == (38, 0, 63)


def test_a_step_solves_the_damped_equations_of_the_six_numbers():
    rng, side = np.random.default_rng(1), 12
    images = rng.normal(size=(3, side, side)).astype(np.float32)
    weight = (rng.random((3, side * side)) > 0.2).astype(np.float32)
    residual = weight * rng.normal(size=weight.shape).astype(np.float32)
    gradients = gradients_of(images)
    steps = _gauss_newton_step(_inverse_matrix(gradients, weight, weight.sum(axis=1)), gradients, residual)
    for image, seen, difference, step in zip(images, weight, residual, steps, strict=True):
        along_y, along_x = (g.ravel() * side / 2 for g in np.gradient(image.astype(np.float64)))
        jacobian = np.concatenate([along_x * pixel_grid(side), along_y * pixel_grid(side)])
        centered = (jacobian - (jacobian @ seen / seen.sum())[:, None]) * seen
        matrix = centered @ centered.T
        matrix += (1e-3 * np.trace(matrix) / 6 + 1e-6) * np.eye(6)
        assert np.allclose(step, np.linalg.solve(matrix, jacobian @ difference), atol=1e-4)


def test_each_pose_moves_pixels_as_its_matrix_says():
    rng = np.random.default_rng(2)
    image, other = rng.normal(size=(2, 144)).astype(np.float32)
    [seconds, _], [matrix, turns] = _symmetries(), _turns()
    products = (image @ matrix).reshape(len(turns), -1) @ other[seconds].T
    inverse = np.linalg.inv(_poses().astype(np.float64))
    transforms = np.concatenate([inverse, np.zeros((len(inverse), 2, 1))], axis=2).astype(np.float32)
    values, inside = warp(image.reshape(1, 12, 12).repeat(len(transforms), 0), transforms)
    assert np.allclose(products.ravel(), (values * inside) @ other, atol=1e-3)


def test_a_product_with_weights_warps_as_pixels_do():
    rng = np.random.default_rng(3)
    images = rng.uniform(0, 255, (4, 16, 16)).astype(np.float32)
    transform = np.array([[0.9, -0.5, 0.2], [0.6, 1.1, -0.3]], np.float32)
    values, inside = warp(images, transform[None].repeat(4, 0))
    assert 0 < inside.mean() < 1
    warped = images.reshape(4, -1) @ warp_weights(transform, 16)
    np.testing.assert_allclose(warped, values * inside, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("spread_px", [0.7, 3.0, 6.0, 12.5])
def test_images_are_smoothed_as_by_a_gaussian_filter(spread_px):
    images = np.random.default_rng(0).uniform(0, 255, (3, 48, 48)).astype(np.float32)
    expected = ndimage.gaussian_filter(images.astype(np.float64), (0, spread_px, spread_px), mode="nearest")
    np.testing.assert_allclose(smoothed(images, spread_px), expected, rtol=1e-5)
