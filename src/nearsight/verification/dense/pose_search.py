"""How far turned, mirrored, shrunk or enlarged two images look alike from far."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from nearsight.verification.dense.affine import Floats, grid, shrunk, warped
from nearsight.verification.dense.thumbnails import SIDE_PX, Pixels

# Ways to lay one image over the other: turned by every 15 degrees, mirrored, shrunk and enlarged.
_ANGLES, _SCALES = 24, (0.64, 0.8, 1.0, 1.25, 1.56)
# An image lies in a canvas of so many pixels, so that turns keep its shape; wide ones shrink.
_CANVAS_PX, _WIDEST = 12, 1.78
# Images that are laid in every way at a time: each takes 400 kB.
_TURNED_AT_ONCE = 16

Ints = NDArray[np.int64]


def poses(images: Pixels, aspects: Floats, pairs: Ints, n_best: int) -> tuple[Floats, Floats]:
    """Return the (m, n_best, 2, 3) transforms that look best, and the (m,) agreement of the best.

    The correlation over the common area for each way of turning, mirroring and scaling: sums of products of
    what `_turns` makes of the first image with the second. The first is turned once for all the pairs that
    it begins.
    """
    shapes = np.sqrt(np.clip(aspects, 1 / _WIDEST, _WIDEST)).astype(np.float32)
    shown, place = np.unique(pairs, return_inverse=True)
    here, there = place.reshape(-1, 2).T
    canvases = _on_canvas(images[shown], shapes[shown])
    score = _correlation(_sums(canvases, here, there), canvases[there, 0].sum(axis=1))
    best = np.argsort(-score, axis=1, kind="stable")[:, :n_best]
    starts = np.zeros((*best.shape, 2, 3), np.float32)
    starts[..., :2] = _turns()[1][best]
    # Back from the canvas to the squares that the images are.
    one, other = shapes[pairs.T]
    starts[..., :2] *= np.stack([one, 1 / one], axis=1)[:, None, None, :]
    starts[..., :2] *= np.stack([1 / other, other], axis=1)[:, None, :, None]
    return starts, score.max(axis=1)


def _on_canvas(images: Pixels, shapes: Floats) -> Floats:
    """Return (n, 3, pixels): where an image lies on its canvas; it, less its mean; and that squared."""
    small = shrunk(images, SIDE_PX // _CANVAS_PX)
    small -= small.mean(axis=(1, 2), keepdims=True)
    reach = _WIDEST**0.5
    transforms = np.zeros((len(images), 2, 3), np.float32)
    transforms[:, 0, 0], transforms[:, 1, 1] = reach / shapes, reach * shapes
    places = np.abs(transforms[:, :, :2] @ grid(_CANVAS_PX)[:2])
    inside = (places <= 1).all(axis=1).astype(np.float32)
    values = warped(small, transforms)[0] * inside
    return np.stack([inside, values, values**2], axis=1)


@cache
def _turns() -> tuple[Floats, Floats]:
    """Return a (pixels, ways * pixels) matrix, and the (ways, 2, 2) ways.

    The matrix lays a first canvas over a second; a way says where a place of the first then lies.
    """
    angles = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    turn = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
    ways = np.concatenate([s * t for s in _SCALES for t in (turn, turn @ np.diag([-1, 1]))])
    back = np.concatenate([np.linalg.inv(ways), np.zeros((len(ways), 2, 1))], axis=2).astype(np.float32)
    pixels = _CANVAS_PX**2
    matrix = np.empty((pixels, len(ways), pixels), np.float32)
    dots = np.eye(pixels, dtype=np.float32).reshape(pixels, _CANVAS_PX, _CANVAS_PX)
    for at, transform in enumerate(back):
        values, inside = warped(dots, transform[None].repeat(pixels, 0))
        matrix[:, at] = values * inside
    return matrix.reshape(pixels, -1), ways.astype(np.float32)


def _sums(canvases: Floats, here: Ints, there: Ints) -> Floats:
    """Return (m, 3, ways, 3): products of what the first is laid in every way, and the second, summed."""
    turns, ways = _turns()
    sums = np.empty((len(here), 3, len(ways), 3), np.float32)
    firsts, first_of = np.unique(here, return_inverse=True)
    for start in range(0, len(firsts), _TURNED_AT_ONCE):
        some = firsts[start : start + _TURNED_AT_ONCE]
        turned = (canvases[some].reshape(-1, len(turns)) @ turns).reshape(len(some), 3 * len(ways), -1)
        for at, first in enumerate(turned, start):
            [pairs] = np.nonzero(first_of == at)
            products = first @ canvases[there[pairs]].reshape(-1, len(turns)).T
            sums[pairs] = products.reshape(3, len(ways), len(pairs), 3).transpose(2, 0, 1, 3)
    return sums


def _correlation(sums: Floats, area_there: Floats) -> Floats:
    """Return the (m, ways) correlations, less where little is common."""
    area = np.maximum(sums[:, 0, :, 0], 1e-3)
    here, there = sums[:, 1, :, 0], sums[:, 0, :, 1]
    covariance = sums[:, 1, :, 1] - here * there / area
    of_here = np.maximum(sums[:, 2, :, 0] - here**2 / area, 1e-3)
    of_there = np.maximum(sums[:, 0, :, 2] - there**2 / area, 1e-3)
    # A small common area agrees by chance.
    share = np.minimum(area / (0.5 * area_there[:, None]), 1)
    score: Floats = covariance / np.sqrt(of_here * of_there) * np.sqrt(share)
    return score
