"""SIFT features, and the similarity transform that matched features agree on, by OpenCV."""

import importlib.util
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import MissingExtraError

#: The command that makes SIFT available.
INSTALL = "pip install 'nearsight[sift]'"
# Numbers in one descriptor: 4 × 4 cells of 8 directions.
SIFT_DIM = 128

# OpenCV 4.14 and 5.0 give the same keypoints to the last bit, so its version is not part of a fingerprint.
# Its detectors keep buffers between calls, so two threads must not share one.
_of_this_thread = threading.local()


@dataclass(frozen=True, slots=True)
class Keypoints:
    """Positions of an image's corners and blobs, and their descriptors.

    Attributes
    ----------
    xy : ndarray of shape (n, 2), float32
        x (to the right) and y (down) in pixels of the image that was searched.
    descriptors : ndarray of shape (n, 128), uint8
        SIFT's histograms, as OpenCV rounds them.
    """

    xy: NDArray[np.float32]
    descriptors: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.descriptors)


def is_installed() -> bool:
    """Return whether OpenCV is installed; imports nothing."""
    return importlib.util.find_spec("cv2") is not None


def require() -> None:
    """Raise `MissingExtraError`, with the command that installs it, if OpenCV is not installed."""
    _opencv()


def find_keypoints(pixels: NDArray[np.uint8], max_features: int) -> Keypoints:
    """Find the strongest SIFT keypoints of a gray image.

    *Method*: Lowe 2004 (https://doi.org/10.1023/B:VISI.0000029664.99615.94), OpenCV's defaults.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W)
        Gray.
    max_features : int
        Keypoints to return, at least 1; a few more where contrasts are equal.

    Returns
    -------
    Keypoints
        Empty for an image without contrast. The order is the same each time.

    Raises
    ------
    MissingExtraError
        OpenCV is not installed; the message holds the command that installs it.
    """
    points, descriptors = _detector(max_features).detectAndCompute(np.ascontiguousarray(pixels), None)
    if descriptors is None:
        return Keypoints(np.empty((0, 2), np.float32), np.empty((0, SIFT_DIM), np.uint8))
    xy = np.array([point.pt for point in points], np.float32)
    return Keypoints(xy, np.rint(descriptors).astype(np.uint8))


def root_sift(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert SIFT histograms to RootSIFT.

    *Method*: Arandjelović & Zisserman 2012 (https://doi.org/10.1109/CVPR.2012.6248018), section 2: the square
    root of each histogram divided by its sum, so that Euclidean distance becomes the Hellinger distance.

    Parameters
    ----------
    descriptors : ndarray of uint8, shape (n, 128)
        SIFT.

    Returns
    -------
    ndarray of float32, shape (n, 128)
        Unit length; a descriptor of zeros stays zero.
    """
    sums = descriptors.sum(axis=1, dtype=np.float32, keepdims=True)
    return np.asarray(np.sqrt(descriptors / np.maximum(sums, 1)), np.float32)


def fit_similarity_transform(
    here: NDArray[np.float32], there: NDArray[np.float32], tolerance_px: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None]:
    """Fit the translation, rotation and scale that most pairs of points agree on.

    *Method*: RANSAC (Fischler & Bolles 1981, https://doi.org/10.1145/358669.358692) over two pairs at a time,
    refined on the inliers. OpenCV draws from a fixed seed, so the result is the same each time.

    Parameters
    ----------
    here, there : ndarray of float32, shape (n, 2)
        Paired positions in pixels.
    tolerance_px : float
        Largest distance of a point of `there` from its predicted position, greater than 0.

    Returns
    -------
    inliers : ndarray of bool, shape (n,)
        Which pairs agree.
    transform : ndarray of float64, shape (2, 3), or None
        Maps (x, y, 1) of `here` to `there`; None if no transform fits.
    """
    no_inliers = np.zeros(len(here), bool)
    if len(here) < 2:
        return no_inliers, None
    transform, mask = _opencv().estimateAffinePartial2D(
        here, there, method=_opencv().RANSAC, ransacReprojThreshold=tolerance_px
    )
    if transform is None or not np.isfinite(transform).all():
        return no_inliers, None
    return mask.ravel().astype(bool), transform


def _detector(max_features: int) -> Any:
    detectors = _of_this_thread.__dict__.setdefault("detectors", {})
    if max_features not in detectors:
        detectors[max_features] = _opencv().SIFT_create(nfeatures=max_features)
    return detectors[max_features]


def _opencv() -> Any:
    try:
        # Imported here, because it may be missing, and listing models must not wait for it.
        import cv2
    except ImportError as error:
        raise MissingExtraError(f"SIFT needs OpenCV. Run: {INSTALL}") from error
    return cv2
