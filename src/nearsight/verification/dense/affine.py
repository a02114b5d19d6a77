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
    positions -= fraction
    is_near = np.abs(positions, out=positions) <= 0.001
    inside = is_near[:, 0] & is_near[:, 1]
    # Whole numbers below 2**24 are exact in float32, and need no slow conversion of every step.
    whole = np.trunc(fraction, out=positions)
    fraction -= whole
    fx, fy = fraction[:, 0], fraction[:, 1]
    corner = (whole[:, 1] * np.float32(side) + whole[:, 0]).astype(np.intp)
    corner += (np.arange(n) * side**2)[:, None]
    flat = images.ravel()
    top, right = flat.take(corner), flat[1:].take(corner)
    bottom, right_below = flat[side:].take(corner), flat[side + 1 :].take(corner)
    for left, other in ((top, right), (bottom, right_below)):
        other -= left
        other *= fx
        left += other
    bottom -= top
    bottom *= fy
    top += bottom
    return top, inside.astype(np.float32)
