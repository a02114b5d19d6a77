"""Search for the pose (turn, mirror image, scale) in which a coarse image agrees best with another."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from nearsight.verification.dense.affine import Floats, downscale, pixel_grid, warp
from nearsight.verification.dense.thumbnails import SIDE_PX, Pixels

# 240 poses: turned in steps of 15 degrees, mirrored or not, at five scales.
_N_ANGLES, _SCALES = 24, (0.64, 0.8, 1.0, 1.25, 1.56)
# An image lies on a square canvas of so many pixels, so that turns keep its shape; a wider one is squeezed.
_CANVAS_PX, _WIDEST = 12, 1.78
# Images that are brought into all poses at a time: each takes 400 kB.
_BATCH = 16

Ints = NDArray[np.int64]


def best_poses(images: Pixels, aspects: Floats, pairs: Ints, n_best: int) -> tuple[Floats, Floats]:
    """Return the (m, n_best, 2, 3) transforms of the best poses, and the (m,) agreement of the best.

    The agreement of a pose is the correlation over the common area. It follows from sums of products of the
    first image, in that pose, with the second. An image is brought into all poses once for all pairs in
    which it is the first.
    """
    shapes = np.sqrt(np.clip(aspects, 1 / _WIDEST, _WIDEST)).astype(np.float32)
    rows, places = np.unique(pairs, return_inverse=True)
    here, there = places.reshape(-1, 2).T
    canvases = _on_canvas(images[rows], shapes[rows])
    score = _correlations(_pose_sums(canvases, here, there), canvases[there, 0].sum(axis=1))
    best = np.argsort(-score, axis=1, kind="stable")[:, :n_best]
    starts = np.zeros((*best.shape, 2, 3), np.float32)
    starts[..., :2] = _pose_matrices()[1][best]
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
def _pose_matrices() -> tuple[Floats, Floats]:
    """Return the matrix that brings a canvas into all poses, (pixels, poses * pixels), and the poses.

    A pose, (2, 2), maps a position of the first canvas to the second.
    """
    angles = 2 * np.pi * np.arange(_N_ANGLES) / _N_ANGLES
    turn = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
    poses = np.concatenate([s * t for s in _SCALES for t in (turn, turn @ np.diag([-1, 1]))])
    inverse = np.concatenate([np.linalg.inv(poses), np.zeros((len(poses), 2, 1))], axis=2).astype(np.float32)
    n_pixels = _CANVAS_PX**2
    matrix = np.empty((n_pixels, len(poses), n_pixels), np.float32)
    dots = np.eye(n_pixels, dtype=np.float32).reshape(n_pixels, _CANVAS_PX, _CANVAS_PX)
    for i, transform in enumerate(inverse):
        values, inside = warp(dots, transform[None].repeat(n_pixels, 0))
        matrix[:, i] = values * inside
    return matrix.reshape(n_pixels, -1), poses.astype(np.float32)


def _pose_sums(canvases: Floats, here: Ints, there: Ints) -> Floats:
    """Return the (m, 3, poses, 3) sums of products of the first canvas, in each pose, with the second."""
    matrix, poses = _pose_matrices()
    sums = np.empty((len(here), 3, len(poses), 3), np.float32)
    firsts, first_of_pair = np.unique(here, return_inverse=True)
    for start in range(0, len(firsts), _BATCH):
        batch = firsts[start : start + _BATCH]
        posed = (canvases[batch].reshape(-1, len(matrix)) @ matrix).reshape(len(batch), 3 * len(poses), -1)
        for i, first in enumerate(posed, start):
            [pairs] = np.nonzero(first_of_pair == i)
            products = first @ canvases[there[pairs]].reshape(-1, len(matrix)).T
            sums[pairs] = products.reshape(3, len(poses), len(pairs), 3).transpose(2, 0, 1, 3)
    return sums


def _correlations(sums: Floats, area_there: Floats) -> Floats:
    """Return the (m, poses) correlations, lowered where the common area is small."""
    area = np.maximum(sums[:, 0, :, 0], 1e-3)
    here, there = sums[:, 1, :, 0], sums[:, 0, :, 1]
    covariance = sums[:, 1, :, 1] - here * there / area
    variance_here = np.maximum(sums[:, 2, :, 0] - here**2 / area, 1e-3)
    variance_there = np.maximum(sums[:, 0, :, 2] - there**2 / area, 1e-3)
    # A small common area agrees by chance.
    share = np.minimum(area / (0.5 * area_there[:, None]), 1)
    correlations: Floats = covariance / np.sqrt(variance_here * variance_there) * np.sqrt(share)
    return correlations
