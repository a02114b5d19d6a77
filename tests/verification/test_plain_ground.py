"""Images on a plain ground: outlines and lines of text are no evidence."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nearsight.images import thumbnail
from nearsight.verification.dense import (
    MATCH_AGREEMENT,
    PARTLY_PLAIN_GROUND_SHARE,
    PLAIN_GROUND_SHARE,
    REVIEW_AGREEMENT,
    FineThumbnail,
    fine_thumbnail,
    gray_thumbnail,
    plain_ground_agreements,
    register,
    thumbnail_ground_share,
    toned_agreement,
)

from sample_images import page, product, rescanned, scene, texture


def ground_share(image: Image.Image) -> float:
    return thumbnail_ground_share(thumbnail(image))


def agreements(here: Image.Image, there: Image.Image) -> tuple[float, float]:
    """Return the agreement of two images before and after the stricter comparison."""
    files = [thumbnail(image) for image in (here, there)]
    aspects = [image.width / image.height for image in (here, there)]
    found = register(np.stack([gray_thumbnail(file) for file in files]), [(0, 1)], aspects)
    first, second = map(fine_thumbnail, files)
    [agreement] = plain_ground_agreements(first, [second], found.transforms)
    return float(found.agreement[0]), agreement


def test_pages_and_products_have_a_plain_ground_and_photographs_have_none():
    assert min(map(ground_share, (page(0), rescanned(page(0)), product()))) > PLAIN_GROUND_SHARE
    assert max(map(ground_share, (texture(400, 300, 1), scene(400, 300, 1)))) < PARTLY_PLAIN_GROUND_SHARE
    # A plain shape in the middle is no ground.
    inside = texture(400, 300, 1).copy()
    ImageDraw.Draw(inside).rectangle((50, 30, 350, 270), fill="white")
    assert ground_share(inside) == 0


def test_pages_of_different_text_are_not_the_same():
    before, after = zip(*(agreements(page(0), page(seed)) for seed in range(1, 5)), strict=True)
    # The lines agree, and the words do not.
    assert max(before) > 0.6
    assert max(after) < MATCH_AGREEMENT - 0.03


@pytest.mark.parametrize(
    "copy",
    [
        rescanned,
        lambda image: rescanned(image, -1.8),
        lambda image: image.resize((155, 219), Image.Resampling.LANCZOS),
        lambda image: image.transpose(Image.Transpose.ROTATE_90),
        lambda image: image.crop((6, 6, 614, 870)),
    ],
)
def test_a_copy_of_a_page_is_the_same(copy):
    _, after = agreements(page(0), copy(page(0)))
    assert after > MATCH_AGREEMENT + 0.05


def test_grain_is_no_difference():
    """Two shots of an image, each with grain of its own: fine details hardly correlate, larger ones do."""
    rng = np.random.default_rng(0)

    def grainy(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image.convert("RGB").resize((192, 192), Image.Resampling.LANCZOS), np.int16)
        return Image.fromarray(np.clip(pixels + rng.integers(-16, 17, pixels.shape), 0, 255).astype(np.uint8))

    _, after = agreements(grainy(product("tan")), grainy(product("tan")))
    assert after > MATCH_AGREEMENT


LABELS = ["strong tea from far away", "instant coffee, finely ground", "8 pairs of warm socks"]


def test_products_of_one_outline_are_not_the_same():
    before, after = agreements(product("tan", LABELS[0]), product("tan", LABELS[1]))
    assert after < MATCH_AGREEMENT < before
    # What only one of the two shows is a difference, too.
    before, after = agreements(product("tan", LABELS[0]), product("tan"))
    assert after < MATCH_AGREEMENT < before


def test_an_outline_is_evidence_only_where_colors_are_equal():
    before, after = agreements(product("teal"), product("firebrick"))
    assert after < MATCH_AGREEMENT < before
    before, after = agreements(product("teal"), product("teal").resize((300, 300)))
    assert MATCH_AGREEMENT < after < REVIEW_AGREEMENT < before


@pytest.mark.parametrize("label", LABELS)
def test_a_smaller_product_is_the_same(label):
    _, after = agreements(
        product("tan", label), product("tan", label).resize((150, 150), Image.Resampling.LANCZOS)
    )
    assert after > MATCH_AGREEMENT


def test_black_corners_are_no_difference():
    image = product("tan", "".join(LABELS))
    _, after = agreements(image, image.rotate(6, Image.Resampling.BICUBIC))
    assert after > MATCH_AGREEMENT


def test_a_plain_color_agrees_with_nothing():
    plain = FineThumbnail(np.full((192, 192, 3), 200, np.uint8), 0.0)
    assert plain_ground_agreements(plain, [plain], np.eye(2, 3, dtype=np.float32)[None]) == [0]


def test_one_image_is_compared_with_many_as_with_each_alone():
    small = page(0).resize((60, 80), Image.Resampling.LANCZOS)
    first, *others = (
        fine_thumbnail(thumbnail(image)) for image in (page(0), rescanned(page(0)), small, page(1))
    )
    transforms = np.eye(2, 3, dtype=np.float32)[None].repeat(3, 0)
    together = plain_ground_agreements(first, others, transforms)
    assert len(set(together)) > 1
    each = zip(others, transforms, strict=True)
    assert together == [plain_ground_agreements(first, [one], at[None])[0] for one, at in each]


def tiles(seed: int) -> np.ndarray:
    """Return tiles in two grays on white: which is which differs."""
    image = Image.new("L", (300, 300), 255)
    draw = ImageDraw.Draw(image)
    for gray, (x, y) in zip(
        np.random.default_rng(seed).permutation(np.repeat([90, 190], 8)), np.ndindex(4, 4), strict=True
    ):
        draw.rectangle((10 + 70 * x, 10 + 70 * y, 70 + 70 * x, 70 + 70 * y), fill=int(gray))
    file = io.BytesIO()
    image.save(file, "JPEG")
    return gray_thumbnail(file.getvalue())


def test_tiles_of_other_grays_are_not_the_same():
    thumbnails = np.stack([tiles(0), tiles(1), tiles(0) // 2 + 40])
    pairs = np.array([(0, 1), (0, 2)])
    found = register(thumbnails, pairs)
    assert found.agreement.min() > MATCH_AGREEMENT
    other, darker = toned_agreement(thumbnails, pairs, found.transforms, found.agreement)
    assert other < MATCH_AGREEMENT < REVIEW_AGREEMENT < darker
    nothing = np.empty((0, 2), np.int64)
    assert not len(toned_agreement(thumbnails, nothing, found.transforms[:0], found.agreement[:0]))
