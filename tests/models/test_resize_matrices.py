"""ResizeMatrices as products of matrices, against Pillow, which is the reference."""

from dataclasses import replace
from functools import cache

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nearsight.images.orientation import upright
from nearsight.models.preprocess import normalize, resize_and_crop
from nearsight.models.resize_matrices import (
    can_resize,
    normalize_graph,
    reduction_graph,
    reduction_matrices,
    resize_graph,
    resize_matrices,
)
from nearsight.models.spec import ModelSpec

SPEC = ModelSpec(id="net", dim=3, weights_sha256="", input_px=(32, 40), resize_px=44, draft=False)
sides = st.integers(4, 260)
orientations = st.integers(1, 8)


@cache
def session(graph, transposed, n_images=1):
    return onnxruntime.InferenceSession(
        graph(transposed=transposed, n_images=n_images), providers=["CPUExecutionProvider"]
    )


def inputs(*images):
    return {
        f"{name}{i}": value
        for i, (pixels, plan) in enumerate(images)
        for name, value in (("image", pixels), ("first", plan.first), ("second", plan.second))
    }


def resized(pixels, plan):
    return session(resize_graph, plan.transposed).run(["resized"], inputs((pixels, plan)))[0][0]


def image(width, height, seed):
    """Noise and edges, whose overshoot is clipped."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = rng.choice([0, 255])
    return pixels


def require_equal(found, wanted):
    difference = np.abs(found.astype(np.int16) - wanted)
    assert found.shape == wanted.shape
    # In float32, a sum that Pillow rounds up may be rounded down.
    assert difference.max(initial=0) <= 1
    return (difference > 0).mean()


@settings(max_examples=60)
@given(
    width=sides,
    height=sides,
    orientation=orientations,
    seed=st.integers(0, 9),
    mode=st.sampled_from(["short-side", "squash", "squash-crop"]),
    interpolation=st.sampled_from(["bicubic", "bilinear", "lanczos"]),
    rounding=st.sampled_from(["nearest", "down"]),
)
def test_it_is_pillows_to_a_level(width, height, orientation, seed, mode, interpolation, rounding):
    spec = replace(SPEC, resize_mode=mode, interpolation=interpolation, crop_rounding=rounding)
    pixels = image(width, height, seed)
    wanted = resize_and_crop(upright(Image.fromarray(pixels), orientation), spec)
    require_equal(resized(pixels, resize_matrices(width, height, orientation, spec)), wanted)


@pytest.mark.parametrize("size", [(640, 480), (4000, 3000), (223, 225), (224, 224), (3000, 401)])
def test_it_is_pillows_at_the_size_of_a_network(size):
    spec = replace(SPEC, input_px=(224, 224), resize_px=256)
    pixels = image(*size, seed=1)
    wanted = resize_and_crop(Image.fromarray(pixels), spec)
    assert require_equal(resized(pixels, resize_matrices(*size, 1, spec)), wanted) < 1e-4


@settings(max_examples=40)
@given(width=sides, height=sides, orientation=orientations, block_px=st.integers(1, 9))
def test_blocks_are_pillows_to_a_level(width, height, orientation, block_px):
    pixels = image(width, height, seed=2)
    wanted = np.asarray(upright(Image.fromarray(pixels), orientation).reduce(block_px))
    plan = reduction_matrices(width, height, orientation, block_px)
    [found] = session(reduction_graph, plan.transposed).run(["reduced0"], inputs((pixels, plan)))
    difference = np.abs(found.astype(np.int16) - wanted)
    assert found.shape == wanted.shape
    assert difference.max() <= 1


@pytest.mark.parametrize("half", [False, True])
def test_normalizing_is_the_same(half):
    rng = np.random.default_rng(0)
    spec = replace(SPEC, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    levels = rng.integers(0, 256, (3, 32, 40, 3), np.uint8)
    runner = onnxruntime.InferenceSession(
        normalize_graph(spec, half=half), providers=["CPUExecutionProvider"]
    )
    [pixels] = runner.run(["pixels"], {"levels": levels})
    wanted = np.stack([normalize(one, spec) for one in levels])
    assert pixels.dtype == (np.float16 if half else np.float32)
    np.testing.assert_allclose(pixels, wanted.astype(pixels.dtype), rtol=0, atol=2e-3 if half else 0)


def test_rules_that_it_does_not_know():
    assert can_resize(SPEC)
    assert not can_resize(replace(SPEC, interpolation="nearest"))
    assert not can_resize(replace(SPEC, resize_mode="shrink"))


@pytest.mark.parametrize("transposed", [False, True])
def test_images_of_several_sizes_in_one_run(transposed):
    images = [image(width, height, seed=width) for width, height in ((50, 40), (64, 90), (4, 5))]
    orientation = 6 if transposed else 3
    plans = [resize_matrices(len(one[0]), len(one), orientation, SPEC) for one in images]
    found, corners = session(resize_graph, transposed, 3).run(
        ["resized", "corners"], inputs(*zip(images, plans, strict=True))
    )
    for one, plan, row, corner in zip(images, plans, found, corners, strict=True):
        np.testing.assert_array_equal(row, resized(one, plan))
        np.testing.assert_array_equal(corner, one[-4:, -4:])
