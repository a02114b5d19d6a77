"""Search for the pose (turn, mirror image, scale) in which a coarse image agrees best with another."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from nearsight.verification.dense.affine import Floats, downscale, pixel_grid, warp, warp_weights
from nearsight.verification.dense.thumbnails import SIDE_PX, Pixels

# 240 poses: turned in steps of 15 degrees, mirrored or not, at five scales. The first image is turned by less
# than a quarter only, and scaled; quarter turns and mirror images only move the second one's pixels.
_N_ANGLES, _SCALES = 6, (0.64, 0.8, 1.0, 1.25, 1.56)
# An image lies on a square canvas of so many pixels, so that turns keep its shape; a wider one is squeezed.
_CANVAS_PX, _WIDEST = 12, 1.78
# Images that are turned and scaled at a time: each takes 50 kB.
_BATCH = 16

Ints = NDArray[np.int64]


def best_poses(images: Pixels, aspects: Floats, pairs: Ints, n_best: int) -> tuple[Floats, Floats]:
    """Return the (m, n_best, 2, 3) transforms of the best poses, and the (m,) agreement of the best.

    The agreement of a pose is the correlation over the common area. It follows from sums of products of the
    first image, turned and scaled, with the second, mirrored and turned by quarters. An image is turned and
    scaled once for all pairs in which it is the first.
    """
    shapes = np.sqrt(np.clip(aspects, 1 / _WIDEST, _WIDEST)).astype(np.float32)
    rows, places = np.unique(pairs, return_inverse=True)
    here, there = places.reshape(-1, 2).T
    canvases = _on_canvas(images[rows], shapes[rows])
    score = _correlations(_pose_sums(canvases, here, there), canvases[there, 0].sum(axis=1))
    best = np.argsort(-score, axis=1, kind="stable")[:, :n_best]
    starts = np.zeros((*best.shape, 2, 3), np.float32)
    starts[..., :2] = _poses()[best]
    # From the canvas back to square images.
    first, second = shapes[pairs.T]
    starts[..., :2] *= np.stack([first, 1 / first], axis=1)[:, None, None, :]
    starts[..., :2] *= np.stack([1 / second, second], axis=1)[:, None, :, None]
    return starts, score.max(axis=1)


def _on_canvas(images: Pixels, shapes: Floats) -> Floats:
    """Return (n, 3, pixels) canvases: the image's area, its values less their mean, and those squared."""
    small = downscale(images, SIDE_PX // _CANVAS_PX)
    small -= small.mean(axis=(1, 2), keepdims=True)
    reach = _WIDEST**0.5
    transforms = np.zeros((len(images), 2, 3), np.float32)
    transforms[:, 0, 0], transforms[:, 1, 1] = reach / shapes, reach * shapes
    positions = np.abs(transforms[:, :, :2] @ pixel_grid(_CANVAS_PX)[:2])
    inside = (positions <= 1).all(axis=1).astype(np.float32)
    values = warp(small, transforms)[0] * inside
    return np.stack([inside, values, values**2], axis=1)


@cache
def _symmetries() -> tuple[Ints, Floats]:
    """Return the (8, pixels) pixels of a canvas as mirror images and quarter turns show them, and (8, 2, 2).

    The matrices map a position of the result to the canvas.
    """
    x, y = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    matrices = np.array(
        [[right, down] for a, b in ((x, y), (y, x)) for right in (a, -a) for down in (b, -b)], np.float32
    )
    positions = matrices @ pixel_grid(_CANVAS_PX)[:2]
    columns, lines = np.rint((positions + 1) * (_CANVAS_PX / 2) - 0.5).astype(np.int64).swapaxes(0, 1)
    return lines * _CANVAS_PX + columns, matrices


@cache
def _turns() -> tuple[Floats, Floats]:
    """Return the matrix that turns and scales a canvas, (pixels, turns * pixels), and the (turns, 2, 2)."""
    angles = np.pi / 2 * np.arange(_N_ANGLES) / _N_ANGLES
    turn = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
    turns = np.concatenate([scale * turn for scale in _SCALES])
    inverse = np.concatenate([np.linalg.inv(turns), np.zeros((len(turns), 2, 1))], axis=2).astype(np.float32)
    matrix = np.stack([warp_weights(transform, _CANVAS_PX) for transform in inverse], axis=1)
    return matrix.reshape(_CANVAS_PX**2, -1), turns.astype(np.float32)


@cache
def _poses() -> Floats:
    """Return the (turns * 8, 2, 2) poses: each maps a position of the first canvas to the second."""
    return (_symmetries()[1] @ _turns()[1][:, None]).reshape(-1, 2, 2)


def _pose_sums(canvases: Floats, here: Ints, there: Ints) -> Floats:
    """Return the (3, 3, m, poses) sums of products of the first canvas, in each pose, with the second."""
    (matrix, turns), (pixels, _) = _turns(), _symmetries()
    sums = np.empty((3, 3, len(here), len(turns), len(pixels)), np.float32)
    firsts, first_of_pair = np.unique(here, return_inverse=True)
    order = np.argsort(first_of_pair, kind="stable")
    bounds = np.searchsorted(first_of_pair[order], np.arange(len(firsts) + 1))
    for start in range(0, len(firsts), _BATCH):
        batch = firsts[start : start + _BATCH]
        turned = (canvases[batch].reshape(-1, len(matrix)) @ matrix).reshape(len(batch), 3 * len(turns), -1)
        for i, first in enumerate(turned, start):
            pairs = order[bounds[i] : bounds[i + 1]]
            seconds = canvases[there[pairs]][:, :, pixels].reshape(-1, len(matrix))
            products = (first @ seconds.T).reshape(3, len(turns), len(pairs), 3, len(pixels))
            sums[:, :, pairs] = products.transpose(0, 3, 2, 1, 4)
    return sums.reshape(3, 3, len(here), -1)


def _correlations(sums: Floats, area_there: Floats) -> Floats:
    """Return the (m, poses) correlations, lowered where the common area is small."""
    area = np.maximum(sums[0, 0], 1e-3)
    here, there = sums[1, 0], sums[0, 1]
    covariance = sums[1, 1] - here * there / area
    variance_here = np.maximum(sums[2, 0] - here**2 / area, 1e-3)
    variance_there = np.maximum(sums[0, 2] - there**2 / area, 1e-3)
    # A small common area agrees by chance.
    share = np.minimum(area / (0.5 * area_there[:, None]), 1)
    correlations: Floats = covariance / np.sqrt(variance_here * variance_there) * np.sqrt(share)
    return correlations
