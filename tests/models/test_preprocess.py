"""Resizing only what the crop keeps against resizing everything and cropping then."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from nearsight.models.preprocess import normalize, preprocess, resize_and_crop
from nearsight.models.spec import ModelSpec

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def spec(**facts: object) -> ModelSpec:
    return ModelSpec(id="m", dim=1, weights_sha256="", **facts)


def random_image(width: int, height: int, seed: int) -> Image.Image:
    """Noise of several scales, like a photograph's spectrum."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cell in (1, 4, 16, 64):
        cells = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), np.uint8)
        total += np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)) / 4
    return Image.fromarray(total.astype(np.uint8))


def plainly(image: Image.Image, spec: ModelSpec) -> np.ndarray:
    """Resize all, columns first, then crop."""
    resample = FILTERS[spec.interpolation]
    width, height = image.size
    if width <= height:
        size = spec.resize_px, int(spec.resize_px * height / width)
    else:
        size = int(spec.resize_px * width / height), spec.resize_px
    if spec.resize_mode == "squash-crop":
        size = spec.resize_px, spec.resize_px
    resized = image.resize((size[0], height), resample).resize(size, resample)
    crop_height, crop_width = spec.input_px
    left, top = (size[0] - crop_width) / 2, (size[1] - crop_height) / 2
    left, top = (int(left), int(top)) if spec.crop_rounding == "down" else (round(left), round(top))
    return np.asarray(resized.crop((left, top, left + crop_width, top + crop_height)))


USUAL = {"resize_mode": "short-side", "crop_rounding": "nearest"}
sides = st.one_of(st.integers(1, 40), st.integers(41, 900))


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(
    width=sides,
    height=sides,
    crop=st.sampled_from([(224, 224), (32, 48), (61, 60)]),
    more=st.integers(0, 40),
    interpolation=st.sampled_from(["bicubic", "bilinear", "lanczos"]),
    resize_mode=st.sampled_from(["short-side", "squash-crop"]),
    crop_rounding=st.sampled_from(["nearest", "down"]),
)
@example(width=640, height=480, crop=(224, 224), more=32, interpolation="bicubic", **USUAL)
@example(width=1, height=1, crop=(224, 224), more=32, interpolation="bicubic", **USUAL)
@example(width=3, height=900, crop=(224, 224), more=32, interpolation="bicubic", **USUAL)
@example(width=400, height=257, crop=(224, 224), more=32, interpolation="bicubic", **USUAL)
@example(width=20, height=20, crop=(61, 60), more=14, interpolation="bilinear", **USUAL)
@example(width=6, height=6, crop=(32, 48), more=12, interpolation="bilinear", **USUAL)
def test_equals_resizing_everything(
    width: int, height: int, crop: tuple[int, int], more: int, **words: str
) -> None:
    rules = spec(input_px=crop, resize_px=max(crop) + more, **words)
    image = random_image(width, height, seed=width * 1000 + height)
    found, wanted = resize_and_crop(image, rules), plainly(image, rules)
    assert found.shape == wanted.shape == (*crop, 3)
    difference = np.abs(found.astype(int) - wanted)
    # Pillow reads its box as float32, which tips a rounding now and then (more often where small sizes make
    # exact halves); one that is tipped in the first pass can count double in the second.
    assert difference.max() <= 2
    assert (difference > 1).mean() < 2e-3
    # Few pixels enlarged by simple ratios put most values on exact halves.
    assert difference.mean() < (0.05 if min(width, height) > 64 else 0.3)


def test_where_an_odd_margin_goes() -> None:
    # 7 wide, a crop of 4: 1.5 pixels on the left are 2 to torchvision and 1 to transformers.
    image = Image.fromarray(np.arange(7, dtype=np.uint8)[None, :, None].repeat(7, 0).repeat(3, 2))
    for rounding, first in (("nearest", 2), ("down", 1)):
        rules = spec(input_px=(4, 4), resize_px=7, crop_rounding=rounding)
        assert resize_and_crop(image, rules)[0, :, 0].tolist() == [first, first + 1, first + 2, first + 3]


def test_nearest() -> None:
    # Levels equal columns, so a neighbor taken instead would differ by one.
    image = Image.fromarray(np.arange(200, dtype=np.uint8)[None, :, None].repeat(150, 0).repeat(3, 2))
    rules = spec(input_px=(50, 50), resize_px=60, interpolation="nearest")
    assert np.abs(resize_and_crop(image, rules).astype(int) - plainly(image, rules)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 30_000)])
def test_extreme_shapes_of_one_color_stay_it(size: tuple[int, int]) -> None:
    found = resize_and_crop(Image.new("RGB", size, (7, 100, 250)), spec())
    assert found.shape == (224, 224, 3)
    assert (found == (7, 100, 250)).all()


def test_the_middle_of_a_long_image_is_kept() -> None:
    image = Image.new("RGB", (1, 5000), (255, 0, 0))
    image.putpixel((0, 2499), (0, 255, 0))
    image.putpixel((0, 2500), (0, 255, 0))
    assert (resize_and_crop(image, spec())[:, :, 1] > 100).all()


def test_squash_shows_all_of_the_image() -> None:
    image = random_image(300, 100, seed=1)
    rules = spec(input_px=(64, 32), resize_mode="squash", interpolation="bilinear")
    wanted = image.resize((32, 100), FILTERS["bilinear"]).resize((32, 64), FILTERS["bilinear"])
    np.testing.assert_array_equal(resize_and_crop(image, rules), np.asarray(wanted))


def test_normalizing() -> None:
    rules = spec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    wanted = ((pixels / 255 - rules.mean) / rules.std).transpose(2, 0, 1)
    found = normalize(pixels, rules)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    room = np.empty((3, 20, 30), np.float32)
    assert normalize(pixels, rules, room) is room
    np.testing.assert_array_equal(room, found)


def test_both_together() -> None:
    image, rules = random_image(90, 60, seed=2), spec()
    array = preprocess(image, rules)
    assert array.shape == (3, 224, 224)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, normalize(resize_and_crop(image, rules), rules))


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((640, 480), (48, 64)),
        ((480, 640), (64, 48)),
        ((64, 64), (64, 64)),
        ((30, 20), (20, 30)),
        ((1, 1), (1, 1)),
        ((5000, 3), (1, 64)),
    ],
)
def test_shrinking_keeps_the_shape_and_never_enlarges(size: tuple[int, int], shape: tuple[int, int]) -> None:
    facts = spec(input_px=(64, 64), resize_mode="shrink")
    image = random_image(*size, seed=1)
    assert resize_and_crop(image, facts).shape == (*shape, 3)
    assert resize_and_crop(image.convert("L"), facts).shape == shape
    if size == shape[::-1]:
        np.testing.assert_array_equal(resize_and_crop(image, facts), np.asarray(image))
