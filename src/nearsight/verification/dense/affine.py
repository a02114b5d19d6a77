"""Images downscaled, smoothed, and warped by affine transforms."""

from functools import cache, lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def downscale(images: Floats | NDArray[np.uint8], factor: int) -> Floats:
    """Return (n, side, side) images with each block of `factor`² pixels averaged to one."""
    n, side, _ = images.shape
    lines = images.reshape(n, side // factor, factor, side).sum(axis=2, dtype=np.float32)
    small: Floats = np.sum([lines[:, :, start::factor] for start in range(factor)], axis=0)
    small /= factor**2
    return small


def smoothed(images: Floats, spread_px: float) -> Floats:
    """Return (n, side, side) images under a Gaussian filter, with the nearest pixel beyond the edges.

    As a product of matrices, which is several times as fast as a filter of so many pixels.
    """
    weights = _gaussian_weights(images.shape[1], spread_px)
    smooth: Floats = weights @ images @ weights.T
    return smooth


@lru_cache(64)
def _gaussian_weights(side: int, spread_px: float) -> Floats:
    """Return the (side, side) weights of the pixels of a line in each of its smoothed pixels."""
    weights: Floats = scipy.ndimage.gaussian_filter1d(np.eye(side), spread_px, axis=0, mode="nearest")
    return weights.astype(np.float32)


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
    corner, fraction, inside = _sources(transforms, side)
    fx, fy = fraction[:, 0], fraction[:, 1]
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


def warp_weights(transform: Floats, side: int) -> Floats:
    """Return the (side², side²) weights of an image's pixels in those of the image warped, 0 outside.

    A product with them is what `warp` computes, for a linear function of many warped images.
    """
    [corner], [(fx, fy)], [inside] = _sources(transform[None], side)
    weights, column = np.zeros((side**2, side**2), np.float32), np.arange(side**2)
    for step, x, y in ((0, 1 - fx, 1 - fy), (1, fx, 1 - fy), (side, 1 - fx, fy), (side + 1, fx, fy)):
        weights[corner + step, column] = x * y * inside
    return weights


def _sources(transforms: Floats, side: int) -> tuple[NDArray[np.intp], Floats, NDArray[np.bool_]]:
    """Return the upper left of the four pixels that make up each warped pixel, and where it lies among them.

    Returns
    -------
    corner : ndarray of shape (n, side²), int
    fraction : ndarray of shape (n, 2, side²), float32
    inside : ndarray of shape (n, side²), bool
    """
    n = len(transforms)
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
    corner = (whole[:, 1] * np.float32(side) + whole[:, 0]).astype(np.intp)
    return corner, fraction, inside
