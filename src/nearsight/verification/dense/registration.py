"""Laying images over each other, pair by pair."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import InvalidParameterError
from nearsight.verification.dense.affine import Floats
from nearsight.verification.dense.pose_search import poses
from nearsight.verification.dense.refinement import align, details
from nearsight.verification.dense.thumbnails import SIDE_PX, Pixels

#: Agreement above which two photographs are one; benchmarks/duplicates.py measures it.
SAME = 0.65
#: Agreement that images which are not the same never reached there.
SURE = 0.7

# Of the ways in which two images look alike from far, the best are tried.
_N_TRIED = 3
# Pairs that are looked at from far together, and pixels that are aligned together: a processor's cache.
_PAIRS_AT_ONCE, _PIXELS_AT_ONCE = 256, 100_000

Ints = NDArray[np.int64]


class _Leg(NamedTuple):
    """A part of the way: what agreed less before it is left; copies agree more by then."""

    hopeless: float
    detail_px: float  # width of what is taken for a detail, in pixels of the miniature
    factor: int  # by how much the miniature is shrunk
    n_steps: int


# At first coarse, which finds the way from far, then fine, which tells like from same.
_LEGS = (
    _Leg(0.3, 6.0, 4, 6),
    _Leg(0.3, 6.0, 4, 6),
    _Leg(0.32, 4.0, 2, 2),
    _Leg(0.35, 4.0, 2, 4),
    _Leg(0.45, 1.5, 1, 1),
    _Leg(0.3, 1.5, 1, 4),
)


@dataclass(frozen=True, slots=True)
class Registration:
    """How well pairs of images coincide, once laid over each other.

    Attributes
    ----------
    agreement : ndarray of shape (m,), float32
        In -1..1, higher is surer: the correlation of details. Not to be had, and 0, where one of the two has
        none (a plain color), and 0 or less where they already differ from far.
    transforms : ndarray of shape (m, 2, 3), float32
        Where a place (x, y, 1) of the first lies in the second; both run from -1 to 1.
    """

    agreement: Floats
    transforms: Floats

    @property
    def mirrored(self) -> NDArray[np.bool_]:
        """Which of the second images are mirror images."""
        mirrored: NDArray[np.bool_] = np.linalg.det(self.transforms[:, :, :2]) < 0
        return mirrored


def register(images: Pixels, pairs: ArrayLike, aspects: ArrayLike | None = None) -> Registration:
    """Lay images over each other, pair by pair, and tell how well their details coincide.

    *Method*: inverse compositional alignment (Baker and Matthews 2004,
    https://doi.org/10.1023/B:VISI.0000011205.11775.fd, section 3.2) for an affine transform, from coarse to
    fine, on details: pixels less their surroundings, over the local contrast. What is made smallest is the
    difference of images of zero mean and unit length, whose correlation over the common area is the agreement
    (compare Evangelidis and Psarakis 2008, https://doi.org/10.1109/TPAMI.2008.113). It starts from the best
    two of 240 ways to turn, mirror and scale an image of 12 pixels, and gives up where that agrees too
    little.

    Parameters
    ----------
    images : ndarray of shape (n, 96, 96), uint8
        From `miniature`.
    pairs : array of shape (m, 2), int
        Numbers of the two images of each pair. Sorted ones are quicker: what many pairs in a row begin with
        is looked at once.
    aspects : array of shape (n,), float, optional
        Width over height of each image, so that any turn is found; default 1.

    Returns
    -------
    Registration
        Found are re-encoding, other sizes, crops down to some 80 % of a side, turns by any angle, mirror
        images, other colors, and marks laid over.

    Raises
    ------
    InvalidParameterError
        The shapes are others, or a pair names an image that is not there.

    Notes
    -----
    A pair costs about half a millisecond, or four where it is promising.
    """
    if images.shape[1:] != (SIDE_PX, SIDE_PX):
        raise InvalidParameterError(
            f"images has shape {images.shape}; it must be (n, {SIDE_PX}, {SIDE_PX}), as `miniature` gives"
        )
    rows = np.asarray(pairs, np.int64).reshape(-1, 2) if np.size(pairs) == 0 else np.asarray(pairs, np.int64)
    if rows.ndim != 2 or rows.shape[1] != 2:
        raise InvalidParameterError(f"pairs has shape {rows.shape}; it must be two numbers a row, (m, 2)")
    if rows.size and not 0 <= rows.min() <= rows.max() < len(images):
        raise InvalidParameterError(
            f"pairs names the images {rows.min()} to {rows.max()}; there are 0 to {len(images) - 1}"
        )
    shapes = np.ones(len(images), np.float32) if aspects is None else np.asarray(aspects, np.float32)
    if shapes.shape != (len(images),) or not (shapes > 0).all():
        raise InvalidParameterError(
            f"aspects has shape {shapes.shape}; it must be width over height of each image, above 0,"
            f" ({len(images)},)"
        )
    agreement = np.zeros(len(rows), np.float32)
    transforms = np.zeros((len(rows), 2, 3), np.float32)
    for at in range(0, len(rows), _PAIRS_AT_ONCE):
        part = slice(at, at + _PAIRS_AT_ONCE)
        agreement[part], transforms[part] = _register(images, shapes, rows[part])
    return Registration(agreement, transforms)


def _register(images: Pixels, aspects: Floats, pairs: Ints) -> tuple[Floats, Floats]:
    starts, score = poses(images, aspects, pairs, _N_TRIED)
    alive = np.arange(len(pairs))
    for leg in _LEGS:
        # What falls out must not pass for what was looked at closely.
        lost = alive[score[alive] < leg.hopeless]
        score[lost] = np.minimum(score[lost], 0)
        alive = alive[score[alive] >= leg.hopeless]
        at_once = max(1, _PIXELS_AT_ONCE * leg.factor**2 // SIDE_PX**2)
        for at in range(0, len(alive), at_once):
            some = alive[at : at + at_once]
            shown, place = np.unique(pairs[some], return_inverse=True)
            here, there = details(images[shown], leg.detail_px, leg.factor)[place.reshape(-1, 2).T]
            ways = [align(here, there, start, leg.n_steps) for start in starts[some].swapaxes(0, 1)]
            scores, transforms = (np.stack(part) for part in zip(*ways, strict=True))
            best = scores.argmax(axis=0), np.arange(len(some))
            score[some], starts[some, 0] = scores[best], transforms[best]
        starts = starts[:, :1]
    return score, starts[:, 0]
