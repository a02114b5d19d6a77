"""Perceptual hashes of images, and of edits of them."""

from functools import cache

import numpy as np
import scipy
from numpy.typing import NDArray

from nearsight.verification.dense.affine import Floats, downscale, warp_weights
from nearsight.verification.dense.thumbnails import SIDE_PX, Pixels

#: The first hashes of `edit_hashes` that are of neither crops nor turns: the image, and its mirror image.
N_PLAIN_HASHES = 2
#: All hashes of `edit_hashes`, and the signs of each.
N_HASHES, HASH_SIGNS = 38, 63

# Frequencies along each side that a hash consists of, and the amplitude, in gray levels, that counts as 0.
_N_FREQUENCIES, _LEAST_AMPLITUDE = 8, 1e-2
# By how much a thumbnail is downscaled first: such low frequencies need no more pixels.
_DOWNSCALING = 3
# Share of each side that a crop leaves; where the crop lies, between one edge and the other.
_CROPS, _CROP_POSITIONS = (0.9, 0.8), (-1.0, 0.0, 1.0)
# Degrees. A hash survives a turn by one or two.
_TURNS, _QUARTER_TURNS = (-7.5, -5.5, -3.5, 3.5, 5.5, 7.5), (90.0, 180.0, 270.0)
_BATCH = 1024

Signs = NDArray[np.int8]


def edit_hashes(thumbnails: Pixels) -> Signs:
    """Return the perceptual hashes of images, and of 37 edits of each: 63 signs a hash.

    *Method*: the signs of the lowest frequencies of a discrete cosine transform, a perceptual hash (Zauner
    2010, "Implementation and benchmarking of perceptual image hash functions", section 3.2.1; we use signs
    instead of a comparison with the median). Other colors, sizes, a re-encoding or a watermark change few of
    them. Edits that change many are applied to the thumbnail first, so that an edited image has the hash of
    one of them: mirrored; turned by quarters, mirrored or not; cropped to 0.9 or 0.8 of its sides at nine
    positions; turned by 3.5, 5.5 or 7.5 degrees either way, with black corners or cropped to avoid them. The
    edits and the cosine transform together are one product of matrices.

    Parameters
    ----------
    thumbnails : ndarray of shape (n, 96, 96), uint8
        From `gray_thumbnail`.

    Returns
    -------
    ndarray of shape (38, n, 63), int8
        -1, 1, or 0 for a frequency without amplitude; all 0 for a plain color. The first hash is that of the
        image itself.
    """
    waves = _edited_waves()
    hashes = np.empty((waves.shape[1], len(thumbnails), waves.shape[2]), np.int8)
    for start in range(0, len(thumbnails), _BATCH):
        pixels = downscale(thumbnails[start : start + _BATCH], _DOWNSCALING).reshape(-1, len(waves))
        amplitudes = np.tensordot(pixels, waves, axes=1)
        signs = (amplitudes > _LEAST_AMPLITUDE).view(np.int8) - (amplitudes < -_LEAST_AMPLITUDE).view(np.int8)
        # Black corners would make all turned plain colors alike.
        signs[~signs[:, 0].any(axis=1)] = 0
        hashes[:, start : start + _BATCH] = signs.swapaxes(0, 1)
    return hashes


@cache
def _edited_waves() -> Floats:
    """Return the (pixels, edits, 63) amplitudes that a pixel adds to each frequency, after each edit."""
    side = SIDE_PX // _DOWNSCALING
    dots = np.eye(side**2, dtype=np.float32).reshape(-1, side, side)
    low = scipy.fft.dctn(dots, axes=(1, 2), norm="ortho")[:, :_N_FREQUENCIES, :_N_FREQUENCIES]
    waves = low.reshape(len(dots), -1)[:, 1:]
    return np.stack([warp_weights(transform, side) @ waves for transform in _edit_transforms()], axis=1)


def _edit_transforms() -> Floats:
    """Return the (n_edits, 2, 3) transforms: where a position of the edited image lies in the image."""
    mirror = np.diag([-1.0, 1.0])
    quarters = [_rotation(degrees) for degrees in _QUARTER_TURNS]
    whole = [np.eye(2), mirror, *quarters, *(turn @ mirror for turn in quarters), *map(_rotation, _TURNS)]
    # A square of side 1 / (cos + sin) fits into a turned square of side 1.
    inner = [rotation / np.abs(rotation[0]).sum() for rotation in map(_rotation, _TURNS)]
    centered = [np.column_stack([matrix, [0, 0]]) for matrix in (*whole, *inner)]
    crops = [
        np.array([[share, 0, x * (1 - share)], [0, share, y * (1 - share)]])
        for share in _CROPS
        for x in _CROP_POSITIONS
        for y in _CROP_POSITIONS
    ]
    return np.array([*centered, *crops], np.float32)


def _rotation(degrees: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
