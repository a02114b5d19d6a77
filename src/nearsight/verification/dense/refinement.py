"""Alignment of two images on their details, by Gauss-Newton steps."""

import numpy as np
from scipy import ndimage

from nearsight.verification.dense.affine import Floats, downscale, pixel_grid, warp
from nearsight.verification.dense.thumbnails import Pixels

# Contrast, in gray levels, below which a detail counts as noise.
NOISE = 4.0
# A common area of less than this share of the image is too small to compare.
_LEAST_OVERLAP = 0.4
# A step that moves the image's corner by more than a quarter of its side comes from a singular equation.
_LONGEST_STEP = 0.5


def details(images: Pixels | Floats, width_px: float, downscaling: int) -> Floats:
    """Return the difference of each pixel from its surroundings, relative to the local contrast."""
    small, width = downscale(images, downscaling), width_px / downscaling
    differences = small - ndimage.gaussian_filter(small, (0, width, width), mode="nearest")
    power = ndimage.gaussian_filter(differences**2, (0, 2 * width, 2 * width), mode="nearest")
    relative: Floats = differences / (np.sqrt(power) + NOISE)
    return relative


def align(
    here: Floats, there: Floats, start: Floats, n_steps: int, gradients: Floats | None = None
) -> tuple[Floats, Floats]:
    """Align `there` to `here` from the transforms `start`; return the best (n,) agreement and transforms.

    `gradients` of `here` are computed if they are not given.
    """
    n = len(here)
    flat = here.reshape(n, -1)
    if gradients is None:
        gradients = gradients_of(here)
    transform, best, best_transform = start, np.full(n, -1.0, np.float32), start.copy()
    for step in range(n_steps + 1):
        seen, weight = warp(there, transform)
        a, b = normalized(flat, weight), normalized(seen, weight)
        score = np.einsum("nk,nk->n", a, b)
        score[weight.mean(axis=1) < _LEAST_OVERLAP] = -1
        better = score > best
        best[better], best_transform[better] = score[better], transform[better]
        if step < n_steps:
            transform = _gauss_newton_step(transform, gradients, flat, b - a, weight)
    return best, best_transform


def normalized(values: Floats, weight: Floats) -> Floats:
    """Return (n, k) values of zero mean and unit length where there is weight; zeros stay zeros."""
    values = values * weight
    values -= values.sum(1, keepdims=True) / np.maximum(weight.sum(1, keepdims=True), 1) * weight
    lengths = np.sqrt(np.einsum("nk,nk->n", values, values))
    normalized: Floats = values / np.maximum(lengths, 1e-6)[:, None]
    return normalized


def gradients_of(images: Floats) -> Floats:
    """Return the derivative of each pixel by each of the six numbers of a transform, (n, 6, side²)."""
    n, side, _ = images.shape
    x, y, _ = pixel_grid(side)
    along_y, along_x = (g.reshape(n, -1) * np.float32(side / 2) for g in np.gradient(images, axis=(1, 2)))
    return np.stack([along_x * x, along_x * y, along_x, along_y * x, along_y * y, along_y], axis=1)


def _gauss_newton_step(
    transform: Floats, gradients: Floats, flat: Floats, residual: Floats, weight: Floats
) -> Floats:
    """Return the transform after one Gauss-Newton step, taken on the side of the first image."""
    area = np.maximum(weight.sum(axis=1), 1)
    mean = np.einsum("nk,nk->n", flat, weight) / area
    length = np.sqrt(np.einsum("nk,nk->n", (flat - mean[:, None]) ** 2, weight))
    # Outside the common area the residual is 0, and within it sums to 0: only the matrix needs the weight.
    projection = np.matmul(gradients, (residual * length[:, None])[:, :, None])
    weighted = gradients * weight[:, None, :]
    center = weighted.sum(axis=2)
    matrix = np.matmul(weighted, gradients.transpose(0, 2, 1))
    matrix -= center[:, :, None] * center[:, None, :] / area[:, None, None]
    damping = 1e-3 * np.trace(matrix, axis1=1, axis2=2) / 6 + 1e-6
    matrix += damping[:, None, None] * np.eye(6, dtype=np.float32)
    delta = np.linalg.solve(matrix, projection)[:, :, 0]
    delta[np.abs(delta).max(axis=1) > _LONGEST_STEP] = 0
    step = np.tile(np.eye(3, dtype=np.float32), (len(delta), 1, 1))
    step[:, :2] += delta.reshape(-1, 2, 3)
    updated: Floats = transform @ np.linalg.inv(step)
    return updated
