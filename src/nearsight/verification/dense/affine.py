"""Images downscaled, and warped by affine transforms."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def downscale(images: Floats | NDArray[np.uint8], factor: int) -> Floats:
    """Return (n, side, side) images with each block of `factor`² pixels averaged to one."""
    n, side, _ = images.shape
    lines = images.reshape(n, side // factor, factor, side).sum(axis=2, dtype=np.float32)
    small: Floats = np.sum([lines[:, :, start::factor] for start in range(factor)], axis=0)
    small /= factor**2
    return small


@cache
def pixel_grid(side: int) -> Floats:
    """Return the (3, side²) positions (x, y, 1) of the pixels, from -1 to 1."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.ones(side * side, np.float32)])


def warp(images: Floats, transforms: Floats) -> tuple[Floats, Floats]:
    """Warp images, bilinear.

    Parameters
    ----------
    images : ndarray of shape (n, side, side), float32
    transforms : ndarray of shape (n, 2, 3), float32
        Where a position (x, y, 1) of the result lies in the image; both run from -1 to 1.

    Returns
    -------
    values : ndarray of shape (n, side²), float32
    weights : ndarray of shape (n, side²), float32
        1 where the position lies in the image, else 0.
    """
    n, side, _ = images.shape
    # From -1..1 to pixels.
    in_pixels = transforms * np.float32(side / 2)
    in_pixels[:, :, 2] += side / 2 - 0.5
    positions = (in_pixels.reshape(2 * n, 3) @ pixel_grid(side)).reshape(n, 2, -1)
    fraction = np.clip(positions, 0, side - 1.001)
    inside = (np.abs(positions - fraction) <= 0.001).all(axis=1)
    whole = fraction.astype(np.intp)
    fraction -= whole
    fx, fy = fraction[:, 0], fraction[:, 1]
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
