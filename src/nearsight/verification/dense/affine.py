"""Images shrunk, and as an affine transform shows them."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def shrunk(images: Floats | NDArray[np.uint8], factor: int) -> Floats:
    """Return (n, side, side) images with each `factor`² pixels made one."""
    n, side, _ = images.shape
    lines = images.reshape(n, side // factor, factor, side).sum(axis=2, dtype=np.float32)
    small: Floats = np.sum([lines[:, :, at::factor] for at in range(factor)], axis=0)
    small /= factor**2
    return small


@cache
def grid(side: int) -> Floats:
    """Return the (3, side²) places (x, y, 1) of pixels, from -1 to 1."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.ones(side * side, np.float32)])


def warped(images: Floats, transforms: Floats) -> tuple[Floats, Floats]:
    """Return each image as its transform shows it, (n, side²), and where it shows it at all."""
    n, side, _ = images.shape
    # From -1..1 to pixels.
    in_pixels = transforms * np.float32(side / 2)
    in_pixels[:, :, 2] += side / 2 - 0.5
    places = (in_pixels.reshape(2 * n, 3) @ grid(side)).reshape(n, 2, -1)
    kept = np.clip(places, 0, side - 1.001)
    inside = (np.abs(places - kept) <= 0.001).all(axis=1)
    whole = kept.astype(np.intp)
    kept -= whole
    fx, fy = kept[:, 0], kept[:, 1]
    corner = whole[:, 1] * side
    corner += whole[:, 0]
    corner += (np.arange(n) * side**2)[:, None]
    flat = images.ravel()
    top = flat.take(corner)
    corner += 1
    top += (flat.take(corner) - top) * fx
    corner += side
    right = flat.take(corner)
    corner -= 1
    bottom = flat.take(corner)
    bottom += (right - bottom) * fx
    bottom -= top
    bottom *= fy
    top += bottom
    return top, inside.astype(np.float32)
