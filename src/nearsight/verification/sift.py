"""Local features by OpenCV: SIFT, and the similarity transform that matched features agree on."""

import importlib.util
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import MissingExtraError

# Numbers in one descriptor: 4 × 4 cells of 8 directions.
SIFT_DIM = 128

# OpenCV 4.14 and 5.0 give the same keypoints to the last bit, so its version is no part of a fingerprint.
# Its detectors keep buffers between calls, so two threads must not share one.
_of_this_thread = threading.local()


@dataclass(frozen=True, slots=True)
class Keypoints:
    """Where an image has corners and blobs, and what they look like.

    Attributes
    ----------
    xy : ndarray of shape (n, 2), float32
        Positions in pixels of the image they were found in: to the right, and down.
    descriptors : ndarray of shape (n, 128), uint8
        SIFT's histograms, as OpenCV rounds them.
    """

    xy: NDArray[np.float32]
    descriptors: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.descriptors)


def is_installed() -> bool:
    """Whether OpenCV is there; imports nothing."""
    return importlib.util.find_spec("cv2") is not None


def require() -> None:
    """Raise `MissingExtraError`, with the command that helps, where OpenCV is not installed."""
    _opencv()


def find_keypoints(pixels: NDArray[np.uint8], max_features: int) -> Keypoints:
    """Find the strongest SIFT keypoints of a gray image.

    *Method*: Lowe 2004 (https://doi.org/10.1023/B:VISI.0000029664.99615.94), OpenCV's defaults.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W)
        Gray.
    max_features : int
        How many to keep, at least 1; a few more where contrasts are equal.

    Returns
    -------
    Keypoints
        None at all where nothing stands out. The same, in the same order, each time.

    Raises
    ------
    MissingExtraError
        OpenCV is not installed; the message holds the command.
    """
    found, descriptors = _detector(max_features).detectAndCompute(np.ascontiguousarray(pixels), None)
    if descriptors is None:
        return Keypoints(np.empty((0, 2), np.float32), np.empty((0, SIFT_DIM), np.uint8))
    xy = np.array([point.pt for point in found], np.float32)
    return Keypoints(xy, np.rint(descriptors).astype(np.uint8))


def root_sift(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn SIFT histograms into RootSIFT.

    *Method*: Arandjelović & Zisserman 2012 (https://doi.org/10.1109/CVPR.2012.6248018), section 2: divided by
    their sum, then the square root, so that Euclidean distance becomes Hellinger's.

    Parameters
    ----------
    descriptors : ndarray of uint8, shape (n, 128)
        SIFT.

    Returns
    -------
    ndarray of float32, shape (n, 128)
        Of unit length; a descriptor of zeros stays so.
    """
    sums = descriptors.sum(axis=1, dtype=np.float32, keepdims=True)
    return np.asarray(np.sqrt(descriptors / np.maximum(sums, 1)), np.float32)


def agreeing(
    here: NDArray[np.float32], there: NDArray[np.float32], tolerance_px: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None]:
    """Find the shift, turn and scale that most pairs of points agree on.

    *Method*: RANSAC (Fischler & Bolles 1981, https://doi.org/10.1145/358669.358692) over two pairs at a time,
    refined on those that agree. OpenCV draws from a fixed seed, so the answer is the same each time.

    Parameters
    ----------
    here, there : ndarray of float32, shape (n, 2)
        Paired positions in pixels.
    tolerance_px : float
        How far from its place a point of `there` may lie, greater than 0.

    Returns
    -------
    inliers : ndarray of bool, shape (n,)
        Which pairs agree.
    transform : ndarray of float64, shape (2, 3), or None
        From `here` to `there`, applied to (x, y, 1); None where there is none.
    """
    nothing = np.zeros(len(here), bool)
    if len(here) < 2:
        return nothing, None
    transform, mask = _opencv().estimateAffinePartial2D(
        here, there, method=_opencv().RANSAC, ransacReprojThreshold=tolerance_px
    )
    if transform is None or not np.isfinite(transform).all():
        return nothing, None
    return mask.ravel().astype(bool), transform


def _detector(max_features: int) -> Any:
    detectors = _of_this_thread.__dict__.setdefault("detectors", {})
    if max_features not in detectors:
        detectors[max_features] = _opencv().SIFT_create(nfeatures=max_features)
    return detectors[max_features]


def _opencv() -> Any:
    try:
        # Here, since listing models must not pay for it, and it may be missing.
        import cv2
    except ImportError as error:
        raise MissingExtraError("SIFT needs OpenCV. Run: pip install 'nearsight[sift]'") from error
    return cv2
