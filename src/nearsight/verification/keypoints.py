"""Verification that two images show the same object, by matching local features."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.errors import ImageError, ImageFailure, InvalidParameterError
from nearsight.images import decode, find
from nearsight.parameters import require_whole
from nearsight.verification import sift
from nearsight.verification.sift import Keypoints

# Scales between two images of one object are above this and below its inverse. Beyond, a few chance pairs
# have collapsed into a point.
_SMALLEST_SCALE = 0.1


@dataclass(frozen=True, slots=True)
class KeypointMatch:
    """How well one candidate matches the query.

    Attributes
    ----------
    position : int
        Index of the candidate in the input.
    n_inliers : int
        Features of the query that the candidate shows in the same arrangement; more is more certain. Of 861
        pairs of unrelated product photographs, 99 % have 4 or fewer.
    mirrored : bool
        Whether the mirror image of the query matches better.
    reason : str
        Why the candidate could not be read; empty if it could.
    """

    position: int
    n_inliers: int
    mirrored: bool = False
    reason: str = ""


def local_features(image: Any, *, size_px: int = 640, max_features: int = 800) -> Keypoints:
    """Compute an image's local features; reuse them where an image is compared more than once.

    Parameters
    ----------
    image : path, PIL image, uint8 array or bytes
        One image.
    size_px : int, default 640
        Longer side that the image is reduced to, in pixels; a smaller image is not enlarged.
    max_features : int, default 800
        The strongest features to return.

    Returns
    -------
    Keypoints
        Positions in pixels of the reduced image.

    Raises
    ------
    ImageError
        The image cannot be decoded, or the input stands for no image or several.
    InvalidParameterError
        `size_px` or `max_features` is below 1.
    MissingExtraError
        OpenCV is not installed; the message holds the command that installs it.
    """
    return _features(_pixels(image, size_px), max_features)


def geometric_rerank(
    query: Any,
    candidates: Iterable[Any],
    *,
    min_inliers: int = 10,
    ratio: float = 0.8,
    tolerance_px: float = 5.0,
    mirror: bool = False,
    size_px: int = 640,
    max_features: int = 800,
) -> list[KeypointMatch]:
    """Rank the candidates that show the object of the query before all others.

    *Method*: Philbin et al. 2007 (https://doi.org/10.1109/CVPR.2007.383172), section 4: features are matched,
    RANSAC fits the transform that most matches agree on, and verified candidates go before all others,
    in the order of their inliers. We match RootSIFT descriptors that are mutual nearest neighbors and pass
    Lowe's ratio test, and allow translation, rotation and scale (4 degrees of freedom).

    Parameters
    ----------
    query : path, PIL image, uint8 array, bytes or Keypoints
        One image, or its `local_features` (then `mirror` must be False).
    candidates : iterable of the same
        The best hits of a search, best first.
    min_inliers : int, default 10
        Inliers that verify a candidate. The others follow in input order.
    ratio : float, default 0.8
        Lowe's ratio test: largest distance to the nearest descriptor, as a share of that to the second
        nearest; above 0, at most 1.
    tolerance_px : float, default 5
        Largest distance of a feature from its predicted position, above 0, in pixels of the reduced
        candidate.
    mirror : bool, default False
        Match the query's mirror image as well; SIFT descriptors change when an image is mirrored.
    size_px, max_features
        See `local_features`.

    Returns
    -------
    list of KeypointMatch
        One for each candidate, in the new order. A candidate that cannot be read has 0 inliers and a reason.

    Raises
    ------
    ImageError
        The query cannot be decoded, or stands for no image or several.
    InvalidParameterError
        A value is out of its range.
    MissingExtraError
        OpenCV is not installed; the message holds the command that installs it.

    Notes
    -----
    A candidate costs some 50 ms, most of it for its features; pass `Keypoints` to compute them once.

    Examples
    --------
    >>> import numpy as np
    >>> from nearsight.verification.keypoints import geometric_rerank
    >>> blocks = np.random.default_rng(0).integers(0, 256, (3, 15, 20, 3), np.uint8)
    >>> images = blocks.repeat(8, axis=1).repeat(8, axis=2)
    >>> turned = np.rot90(images[2])
    >>> [best.position for best in geometric_rerank(turned, images)]
    [2, 0, 1]
    """
    if not 0 < ratio <= 1 or tolerance_px <= 0 or min_inliers < 1:
        raise InvalidParameterError(
            f"ratio is {ratio}, tolerance_px is {tolerance_px}, min_inliers is {min_inliers}; the first must "
            "be greater than 0 and at most 1, the second greater than 0, the third at least 1"
        )
    queries = _queries(query, mirror, size_px, max_features)
    matches = []
    for position, candidate in enumerate(candidates):
        try:
            features = _as_features(candidate, size_px, max_features)
        except ImageError as error:
            matches.append(KeypointMatch(position, 0, reason=error.reason))
            continue
        counts = [count_inliers(q, features, ratio=ratio, tolerance_px=tolerance_px) for q in queries]
        matches.append(KeypointMatch(position, max(counts), mirrored=counts[0] < max(counts)))
    # Sorting is stable: candidates that are not verified stay in input order.
    return sorted(matches, key=lambda match: -match.n_inliers if match.n_inliers >= min_inliers else 0)


def count_inliers(here: Keypoints, there: Keypoints, *, ratio: float = 0.8, tolerance_px: float = 5.0) -> int:
    """Count the features of one image that another shows in the same arrangement.

    Parameters
    ----------
    here, there : Keypoints
        From `local_features`.
    ratio, tolerance_px
        See `geometric_rerank`.

    Returns
    -------
    int
        Distinct positions: a position with features of two directions counts once.
    """
    i, j = _mutual_matches(sift.root_sift(here.descriptors), sift.root_sift(there.descriptors), ratio)
    inliers, transform = sift.fit_similarity_transform(here.xy[i], there.xy[j], tolerance_px)
    if transform is None:
        return 0
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    if not _SMALLEST_SCALE <= scale <= 1 / _SMALLEST_SCALE:
        return 0
    return min(len(np.unique(np.rint(xy[inliers]), axis=0)) for xy in (here.xy[i], there.xy[j]))


def _mutual_matches(
    here: NDArray[np.float32], there: NDArray[np.float32], ratio: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of descriptors that are mutual nearest neighbors and pass the ratio test."""
    if len(here) < 2 or len(there) < 2:
        no_matches = np.empty(0, np.intp)
        return no_matches, no_matches
    # Descriptors have unit length, so the squared distance is 2 - 2 * similarity.
    similarities = here @ there.T
    rows = np.arange(len(here))
    nearest = similarities.argmax(axis=1)
    best = similarities[rows, nearest]
    mutual = similarities.argmax(axis=0)[nearest] == rows
    similarities[rows, nearest] = -1
    second = similarities.max(axis=1)
    matches = np.flatnonzero(mutual & (1 - best < ratio**2 * (1 - second)))
    return matches, nearest[matches]


def _queries(query: Any, mirror: bool, size_px: int, max_features: int) -> list[Keypoints]:
    if not mirror:
        return [_as_features(query, size_px, max_features)]
    if isinstance(query, Keypoints):
        raise InvalidParameterError(
            "mirror is True and the query is Keypoints, which cannot be mirrored; give the image itself"
        )
    pixels = _pixels(query, size_px)
    return [_features(pixels, max_features), _features(pixels[:, ::-1], max_features)]


def _as_features(image: Any, size_px: int, max_features: int) -> Keypoints:
    if isinstance(image, Keypoints):
        return image
    return local_features(image, size_px=size_px, max_features=max_features)


def _features(pixels: NDArray[np.uint8], max_features: int) -> Keypoints:
    require_whole("max_features", max_features)
    return sift.find_keypoints(pixels, max_features)


def _pixels(source: Any, size_px: int) -> NDArray[np.uint8]:
    require_whole("size_px", size_px)
    sources = list(find([source]))
    if len(sources) != 1:
        raise ImageError(str(source)[:200], f"stands for {len(sources)} images; give one")
    [image] = sources
    if isinstance(image, ImageFailure):
        raise ImageError(image.path, image.reason)
    gray = decode(image, min_side_px=size_px).image.convert("L")
    factor = min(1, size_px / gray.height, size_px / gray.width)
    width, height = (max(1, round(factor * side)) for side in gray.size)
    # Columns before rows, because versions of Pillow differ in the order.
    columns = gray.resize((width, gray.height), Image.Resampling.BICUBIC)
    return np.asarray(columns.resize((width, height), Image.Resampling.BICUBIC))
