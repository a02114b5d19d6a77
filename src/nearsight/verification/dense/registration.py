"""Registration of pairs of images: how well their details coincide once they are aligned."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import InvalidParameterError
from nearsight.verification.dense.affine import Floats
from nearsight.verification.dense.pose_search import best_poses
from nearsight.verification.dense.refinement import align, details, gradients_of
from nearsight.verification.dense.thumbnails import SIDE_PX, Pixels

#: Match threshold: agreement above which two images are the same; benchmarks/duplicates.py measures it.
MATCH_AGREEMENT = 0.65
#: Agreement that two different images never reached there.
CERTAIN_AGREEMENT = 0.7
#: Agreement below which somebody should look at a pair: on web photographs, about half of such pairs were one
#: image, and all above.
REVIEW_AGREEMENT = 0.80

# Poses from which each pair is aligned.
_N_POSES = 3
# Pairs whose poses are searched together, and pixels that are aligned together: a processor's cache.
_BATCH_PAIRS, _BATCH_PIXELS = 256, 100_000

Ints = NDArray[np.int64]


class _Stage(NamedTuple):
    """A stage of the alignment. Pairs that agree less than `min_agreement` before it are given up."""

    min_agreement: float
    n_steps: int
    n_poses: int = 1


class _Resolution(NamedTuple):
    """Stages that compare the same details."""

    detail_px: float  # width of a detail, in pixels of the thumbnail
    downscaling: int
    stages: tuple[_Stage, ...]


# Coarse levels find the alignment; fine ones tell the same image from a similar one.
_RESOLUTIONS = (
    _Resolution(6.0, 4, (_Stage(0.3, 6, _N_POSES), _Stage(0.3, 6))),
    _Resolution(4.0, 2, (_Stage(0.32, 2), _Stage(0.35, 4))),
    _Resolution(1.5, 1, (_Stage(0.45, 1), _Stage(0.3, 4))),
)


@dataclass(frozen=True, slots=True)
class Registration:
    """How well pairs of images coincide once they are aligned.

    Attributes
    ----------
    agreement : ndarray of shape (m,), float32
        The correlation of details, in -1..1; higher is more certain. 0 where one of the two has no details
        (a plain color), and 0 or less where they already differ at low resolution.
    transforms : ndarray of shape (m, 2, 3), float32
        Where a position (x, y, 1) of the first lies in the second; both run from -1 to 1.
    """

    agreement: Floats
    transforms: Floats

    @property
    def mirrored(self) -> NDArray[np.bool_]:
        """Which of the second images are mirror images."""
        mirrored: NDArray[np.bool_] = np.linalg.det(self.transforms[:, :, :2]) < 0
        return mirrored


def register(thumbnails: Pixels, pairs: ArrayLike, aspects: ArrayLike | None = None) -> Registration:
    """Align images pair by pair, and measure how well their details coincide.

    *Method*: inverse compositional alignment (Baker and Matthews 2004,
    https://doi.org/10.1023/B:VISI.0000011205.11775.fd, section 3.2) with an affine transform, from coarse to
    fine, on details: pixels less their surroundings, over the local contrast. It minimizes the difference of
    images of zero mean and unit length, whose correlation over the common area is the agreement (compare
    Evangelidis and Psarakis 2008, https://doi.org/10.1109/TPAMI.2008.113). It starts from the best three of
    240 poses of an image of 12 pixels, and gives a pair up where the agreement stays low.

    Parameters
    ----------
    thumbnails : ndarray of shape (n, 96, 96), uint8
        From `gray_thumbnail`.
    pairs : array of shape (m, 2), int
        Rows of the two images of each pair. Sorted pairs are faster: the poses of an image are computed once
        for consecutive pairs in which it is the first.
    aspects : array of shape (n,), float, optional
        Width over height of each image, above 0, so that any turn is found; default 1.

    Returns
    -------
    Registration
        It finds re-encoded and resized images, crops down to some 80 % of a side, turns by any angle, mirror
        images, other colors and watermarks.

    Raises
    ------
    InvalidParameterError
        A shape is wrong, or a pair names an image that does not exist.

    Notes
    -----
    A pair costs about half a millisecond, or two where the agreement is high.
    """
    if thumbnails.shape[1:] != (SIDE_PX, SIDE_PX):
        raise InvalidParameterError(
            f"thumbnails has shape {thumbnails.shape}; it must be (n, {SIDE_PX}, {SIDE_PX}), as"
            " `gray_thumbnail` returns"
        )
    rows = np.asarray(pairs, np.int64).reshape(-1, 2) if np.size(pairs) == 0 else np.asarray(pairs, np.int64)
    if rows.ndim != 2 or rows.shape[1] != 2:
        raise InvalidParameterError(f"pairs has shape {rows.shape}; it must be two numbers a row, (m, 2)")
    if rows.size and not 0 <= rows.min() <= rows.max() < len(thumbnails):
        raise InvalidParameterError(
            f"pairs names the images {rows.min()} to {rows.max()}; there are 0 to {len(thumbnails) - 1}"
        )
    shapes = np.ones(len(thumbnails), np.float32) if aspects is None else np.asarray(aspects, np.float32)
    if shapes.shape != (len(thumbnails),) or not (shapes > 0).all():
        raise InvalidParameterError(
            f"aspects has shape {shapes.shape}; it must be width over height of each image, above 0,"
            f" ({len(thumbnails)},)"
        )
    agreement = np.zeros(len(rows), np.float32)
    transforms = np.zeros((len(rows), 2, 3), np.float32)
    for start in range(0, len(rows), _BATCH_PAIRS):
        batch = slice(start, start + _BATCH_PAIRS)
        agreement[batch], transforms[batch] = _register_batch(thumbnails, shapes, rows[batch])
    return Registration(agreement, transforms)


def register_part(part: tuple[Pixels, Ints, Floats]) -> Registration:
    """Return the registration of pairs, as `register` does; its arguments are one item of work."""
    thumbnails, pairs, aspects = part
    return register(thumbnails, pairs, aspects)


def _register_batch(thumbnails: Pixels, aspects: Floats, pairs: Ints) -> tuple[Floats, Floats]:
    starts, score = best_poses(thumbnails, aspects, pairs, _N_POSES)
    for resolution in _RESOLUTIONS:
        remaining = _promising(score, np.arange(len(pairs)), resolution.stages[0])
        n_pairs = max(1, _BATCH_PIXELS * resolution.downscaling**2 // SIDE_PX**2)
        for first in range(0, len(remaining), n_pairs):
            batch = remaining[first : first + n_pairs]
            rows, places = np.unique(pairs[batch], return_inverse=True)
            here, there = details(thumbnails[rows], resolution.detail_px, resolution.downscaling)[
                places.reshape(-1, 2).T
            ]
            gradients = gradients_of(here)
            for stage in resolution.stages:
                left = _promising(score, batch, stage)
                if not len(left):
                    break
                if len(left) < len(batch):
                    is_left = np.isin(batch, left)
                    batch, here, there, gradients = left, here[is_left], there[is_left], gradients[is_left]
                poses = starts[batch, : stage.n_poses].swapaxes(0, 1)
                aligned = [align(here, there, pose, stage.n_steps, gradients) for pose in poses]
                scores, transforms = (np.stack(part) for part in zip(*aligned, strict=True))
                best = scores.argmax(axis=0), np.arange(len(batch))
                score[batch], starts[batch, 0] = scores[best], transforms[best]
    return score, starts[:, 0]


def _promising(score: Floats, pairs: Ints, stage: _Stage) -> Ints:
    """Return the pairs that agree enough for a stage; those given up keep no agreement above 0."""
    is_promising = score[pairs] >= stage.min_agreement
    given_up = pairs[~is_promising]
    score[given_up] = np.minimum(score[given_up], 0)
    promising: Ints = pairs[is_promising]
    return promising
