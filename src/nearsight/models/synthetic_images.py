"""Images computed from a seed, on which backends are compared; no files are needed.

They have smooth shades, textures at several scales, edges and flat backgrounds, as photographs have. Flat,
bright backgrounds matter most: there, all rounding errors of a network have the same sign.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter


def synthetic_images(n: int, *, seed: int) -> list[Image.Image]:
    """Return `n` RGB images of several sizes; the same arguments give the same images on every machine."""
    return list(_drawn(n, seed))


def _drawn(n: int, seed: int) -> tuple[Image.Image, ...]:
    rng = np.random.default_rng(seed)
    return tuple(_image(rng, i) for i in range(n))


def _image(rng: np.random.Generator, i: int) -> Image.Image:
    width, height = (int(side) for side in rng.integers(240, 640, 2))
    if i % 3 == 0:
        # An object on a plain background, as in a catalog.
        shade = tuple(int(v) for v in rng.integers(200, 256, 3))
        image = Image.new("RGB", (width, height), shade)
    else:
        image = _clouds(rng, width, height)
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    for _ in range(int(rng.integers(1, 6))):
        x, y = rng.integers(0, width), rng.integers(0, height)
        w, h = rng.integers(20, width), rng.integers(20, height)
        box = [int(v) for v in (x - w // 2, y - h // 2, x + w // 2, y + h // 2)]
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(box, fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(float(rng.choice([0.5, 1, 4]))))
    return Image.composite(_clouds(rng, width, height), image, mask)


def _clouds(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return random colors, enlarged smoothly and added at four scales."""
    total: NDArray[np.float64] = np.zeros((height, width, 3))
    part = np.empty_like(total)
    for cells in (2, 7, 30, 110):
        noise = rng.integers(0, 256, (cells, cells, 3), np.uint8)
        smooth = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        # In place, in this order: the same images to the last bit.
        np.multiply(np.asarray(smooth), rng.random(), out=part, dtype=np.float64)
        part /= cells**0.5
        total += part
    low, high = total.min(), total.max()
    total -= low
    total /= high - low
    total *= 255 * rng.uniform(0.4, 1)
    return Image.fromarray(total.astype(np.uint8))
