"""How images look from far, and how edits of them would."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

from nearsight.verification.dense.affine import Floats, shrunk, warped
from nearsight.verification.dense.thumbnails import SIDE_PX, Pixels

#: Of the ways that `looks` returns, the first so many are no crops and turns: as it is, and mirrored.
N_PLAIN = 2

# Waves along each side that a look consists of, and gray levels below which a wave is none.
_WAVES, _NO_WAVE = 8, 1e-2
# By how much a miniature is shrunk first: such waves need no more pixels.
_FACTOR = 3
# Of both sides, what a crop leaves; from where, between the one edge and the other.
_CROPS, _PLACES = (0.9, 0.8), (-1.0, 0.0, 1.0)
# Degrees. A look bears a turn by one or two.
_TURNS, _QUARTERS = (-7.5, -5.5, -3.5, 3.5, 5.5, 7.5), (90.0, 180.0, 270.0)
_AT_ONCE = 1024

Signs = NDArray[np.int8]


def looks(small: Pixels) -> Signs:
    """Return how miniatures look from far, and how edits of them would: 63 signs each.

    *Method*: the signs of the lowest waves of a discrete cosine transform, a perceptual hash (Zauner 2010,
    "Implementation and benchmarking of perceptual image hash functions", section 3.2.1; signs stand in place
    of more or less than the median). Other colors, sizes, a re-encoding or a mark change few of them. What
    changes many is done to the miniature beforehand, so that an edit looks like one of the ways: mirrored,
    cropped to .9 or .8 of its sides at nine places, turned by quarters, or by 3.5, 5.5 or 7.5 degrees either
    way, black where that leaves nothing or cropped so that it does not. All of it is one product of matrices.

    Parameters
    ----------
    small : ndarray of shape (n, 96, 96), uint8

    Returns
    -------
    ndarray of shape (35, n, 63), int8
        -1, 1, or 0 where there is no such wave; nothing but 0 for a plain color. The first is the image as
        it is.
    """
    waves = _waves()
    found = np.empty((waves.shape[1], len(small), waves.shape[2]), np.int8)
    for at in range(0, len(small), _AT_ONCE):
        pixels = shrunk(small[at : at + _AT_ONCE], _FACTOR).reshape(-1, len(waves))
        heights = np.tensordot(pixels, waves, axes=1)
        signs = np.sign(heights) * (np.abs(heights) > _NO_WAVE)
        # A plain color would look like all others that are turned.
        signs[~signs[:, 0].any(axis=1)] = 0
        found[:, at : at + _AT_ONCE] = signs.swapaxes(0, 1)
    return found


@cache
def _waves() -> Floats:
    """Return a (pixels, ways, 63) matrix: the waves that a pixel is part of, once it is moved in each way."""
    side = SIDE_PX // _FACTOR
    dots = np.eye(side**2, dtype=np.float32).reshape(-1, side, side)
    found = []
    for way in _ways():
        values, inside = warped(dots, way[None].repeat(len(dots), 0))
        moved = (values * inside).reshape(dots.shape)
        found.append(
            dctn(moved, axes=(1, 2), norm="ortho")[:, :_WAVES, :_WAVES].reshape(len(dots), -1)[:, 1:]
        )
    return np.stack(found, axis=1)


def _ways() -> Floats:
    """Return the (n_ways, 2, 3) transforms: where a place of what is seen lies in the image."""
    whole = [np.diag([1.0, 1.0]), np.diag([-1.0, 1.0]), *map(_turn, (*_TURNS, *_QUARTERS))]
    # A square of side 1 / (cos + sin) lies within one of side 1 that is turned.
    inside = [turn / np.abs(turn[0]).sum() for turn in map(_turn, _TURNS)]
    still = [np.column_stack([way, [0, 0]]) for way in (*whole, *inside)]
    crops = [
        np.array([[left, 0, x * (1 - left)], [0, left, y * (1 - left)]])
        for left in _CROPS
        for x in _PLACES
        for y in _PLACES
    ]
    return np.array([*still, *crops], np.float32)


def _turn(degrees: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
