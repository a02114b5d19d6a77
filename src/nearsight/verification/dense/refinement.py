"""Alignment of two images on their details, by Gauss-Newton steps."""

from functools import cache

import numpy as np

from nearsight.verification.dense.affine import Floats, downscale, pixel_grid, smoothed, warp
from nearsight.verification.dense.thumbnails import Pixels

# Contrast, in gray levels, below which a detail counts as noise.
NOISE = 4.0
# A common area of less than this share of the image is too small to compare.
_LEAST_OVERLAP = 0.4
# A step that moves the image's corner by more than a quarter of its side comes from a singular equation.
_LONGEST_STEP = 0.5
# A pair is aligned once a step moves it by less: a tenth of a thumbnail's pixel.
_LEAST_STEP = 0.002
# Images of so few pixels a side move far, so that their common area changes: each step has its own equations.
_COARSE_PX = 24


def details(images: Pixels | Floats, width_px: float, downscaling: int) -> Floats:
    """Return the difference of each pixel from its surroundings, relative to the local contrast."""
    small, width = downscale(images, downscaling), width_px / downscaling
    differences: Floats = small - smoothed(small, width)
    power = smoothed(differences**2, 2 * width)
    relative: Floats = (differences / (np.sqrt(power) + NOISE)).astype(np.float32, copy=False)
    return relative


def align(
    here: Floats, there: Floats, start: Floats, n_steps: int, gradients: Floats | None = None
) -> tuple[Floats, Floats]:
    """Align `there` to `here` from the transforms `start`; return the best (n,) agreement and transforms.

    A pair is done once a step hardly moves it. `gradients` of `here` are computed if they are not given.
    """
    n, side, _ = here.shape
    flat = here.reshape(n, -1)
    if gradients is None:
        gradients = gradients_of(here)
    best, best_transform = np.full(n, -1.0, np.float32), start.copy()
    left, transform = np.arange(n), start
    for step in range(n_steps + 1):
        seen, weight = warp(there, transform)
        area = weight.sum(axis=1)
        a, length_a = _centered(flat, weight, area)
        b, length_b = _centered(seen, weight, area)
        score = np.einsum("nk,nk->n", a, b) / (length_a * length_b)
        score[area < _LEAST_OVERLAP * side**2] = -1
        better = score > best[left]
        best[left[better]], best_transform[left[better]] = score[better], transform[better]
        if step == n_steps:
            break
        b *= (length_a / length_b)[:, None]
        b -= a
        if step == 0 or side <= _COARSE_PX:
            inverse = _inverse_matrix(gradients, weight, area)
        delta = _gauss_newton_step(inverse, gradients, b)
        transform = _composed(transform, delta)
        moves = np.abs(delta).max(axis=1) >= _LEAST_STEP
        if moves.all():
            continue
        left, transform = left[moves], transform[moves]
        if not len(left):
            break
        flat, there, gradients, inverse = flat[moves], there[moves], gradients[moves], inverse[moves]
    return best, best_transform


def normalized(values: Floats, weight: Floats) -> Floats:
    """Return (n, k) values of zero mean and unit length where there is weight; zeros stay zeros."""
    centered, length = _centered(values, weight, weight.sum(axis=1))
    centered /= length[:, None]
    return centered


def _centered(values: Floats, weight: Floats, area: Floats) -> tuple[Floats, Floats]:
    """Return (n, k) values of zero mean where there is weight, 0 elsewhere; and their (n,) lengths."""
    values = values * weight
    values -= (values.sum(axis=1) / np.maximum(area, 1))[:, None] * weight
    return values, np.maximum(np.sqrt(np.einsum("nk,nk->n", values, values)), 1e-6)


def gradients_of(images: Floats) -> Floats:
    """Return the derivatives of each pixel along x and y, squared, and their product: (n, 5, side²).

    In the order x, y, x², xy, y².
    """
    n, side, _ = images.shape
    gradients = np.empty((n, 5, side * side), np.float32)
    along_y, along_x = (g.reshape(n, -1) * np.float32(side / 2) for g in np.gradient(images, axis=(1, 2)))
    gradients[:, 0], gradients[:, 1] = along_x, along_y
    np.multiply(along_x, gradients[:, :2].swapaxes(0, 1), out=gradients[:, 2:4].swapaxes(0, 1))
    np.multiply(along_y, along_y, out=gradients[:, 4])
    return gradients


@cache
def _monomials(side: int) -> Floats:
    """Return the (side², 6) products x², xy, x, y², y, 1 of the positions of the pixels."""
    x, y, one = pixel_grid(side)
    return np.stack([x * x, x * y, x, y * y, y, one], axis=1)


# A step has six numbers, one row of a transform after the other. A pixel changes with the first three by its
# derivative along x, with the others by that along y, times x, y and 1. These are the places of the sums over
# pixels among the monomials: of x, y and 1, and of the products of each two of them.
_LINEAR = np.array([2, 4, 5])
_SQUARE = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])


def _inverse_matrix(gradients: Floats, weight: Floats, area: Floats) -> Floats:
    """Return the (n, 6, 6) inverse of the matrix of the equations of a step."""
    n = len(gradients)
    sums = _sums(gradients * weight[:, None])
    center = sums[:, :2, _LINEAR].reshape(n, 6)
    # Products of the derivatives x by x, x by y, y by y.
    xx, xy, yy = (sums[:, at][:, _SQUARE] for at in (2, 3, 4))
    matrix = np.concatenate([np.concatenate([xx, xy], axis=2), np.concatenate([xy, yy], axis=2)], axis=1)
    matrix -= center[:, :, None] * center[:, None, :] / np.maximum(area, 1)[:, None, None]
    damping = 1e-3 * np.trace(matrix, axis1=1, axis2=2) / 6 + 1e-6
    matrix += damping[:, None, None] * np.eye(6, dtype=np.float32)
    inverse: Floats = np.linalg.inv(matrix)
    return inverse


def _gauss_newton_step(inverse: Floats, gradients: Floats, residual: Floats) -> Floats:
    """Return the (n, 6) numbers of a Gauss-Newton step, taken on the side of the first image."""
    # Outside the common area the residual is 0, and within it sums to 0: it needs no weight.
    projection = _sums(gradients[:, :2] * residual[:, None])[:, :, _LINEAR].reshape(-1, 6, 1)
    delta: Floats = (inverse @ projection)[:, :, 0]
    delta[np.abs(delta).max(axis=1) > _LONGEST_STEP] = 0
    return delta


def _sums(values: Floats) -> Floats:
    """Return the (n, m, 6) sums over the pixels of (n, m, side²) values times each monomial."""
    n, m, n_pixels = values.shape
    sums: Floats = (values.reshape(-1, n_pixels) @ _monomials(round(n_pixels**0.5))).reshape(n, m, 6)
    return sums


def _composed(transform: Floats, delta: Floats) -> Floats:
    """Return the transforms after a step."""
    step = np.tile(np.eye(3, dtype=np.float32), (len(delta), 1, 1))
    step[:, :2] += delta.reshape(-1, 2, 3)
    composed: Floats = transform @ np.linalg.inv(step)
    return composed
