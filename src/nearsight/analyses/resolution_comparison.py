"""Compares the effective resolution of two duplicates: blur, enlargement, detail of their own."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nearsight.analyses.image_difference import SIZE_RATIO, Candidate, Framing, ImageDifference, sign_of
from nearsight.images.enlargement import AddedDetail
from nearsight.images.quality import ImageQuality
from nearsight.images.sharpness import N_RINGS

Floats = NDArray[np.float64]
#: Returns what the larger of two images adds to the smaller one.
AddedDetailOf = Callable[[], AddedDetail]

# Loss of detail by blur, in dB: one image lost more than the first, and the other less than the second.
_BLUR_DB, _NO_BLUR_DB = 4.0, 2.5
# Loss of detail in an enlarged image, in dB, and the most that a larger original lacks.
_ENLARGED_DB, _OWN_DETAIL_DB = 1.3, 0.2
# Frequencies below the highest of an image, and the power from which on there is detail.
_UPPER, _DETAIL_POWER = slice(20, 30), 1.0
# The power of photographs falls with the second to fourth power of the frequency; of soft ones, faster.
_SOFT_EXPONENT = 4.5
# A sharpened image has this much more of all details, in dB.
_SHARPENED_DB = 2.5
# Detail of a larger image that no filter makes from the smaller one, as a share of all; its ratio to
# what only the smaller one has (clipped tones, another frame); and the most of that.
_ADDED_SHARE, _ADDED_RATIO, _LACKING_SHARE = 0.1, 8.0, 0.05
# Compression whose blocks show.
_COARSE_COMPRESSION = 0.8
_FREQUENCIES = (np.arange(N_RINGS) + 0.5) / (2 * N_RINGS)
# Rings that are compared: the lowest hold what is larger than a tile, the highest what decoders invent.
_COMPARED = slice(2, N_RINGS - 2)
_LEAST_POWER = 0.05


def has_own_detail(framing: Framing, added_detail: AddedDetailOf | None) -> bool:
    """Whether the larger image has detail that no enlargement of the smaller one has."""
    if added_detail is None or not framing.is_same:
        return False
    added = added_detail()
    least = max(_ADDED_SHARE, _ADDED_RATIO * added.in_small)
    return added.in_small < _LACKING_SHARE and added.in_large >= least


def by_detail(
    first: Candidate, second: Candidate, framing: Framing, added_detail: AddedDetailOf | None = None
) -> list[ImageDifference]:
    """Compare the detail of two images that were measured; see `differences`."""
    a, b = first.quality, second.quality
    if a is None or b is None:
        return []
    # Pixels along one side of the part that both show.
    sides = np.sqrt(a.width * a.height), np.sqrt(b.width * b.height * framing.area)
    if sides[0] > sides[1]:
        swapped = by_detail(second, first, framing.swapped(), added_detail)
        return [ImageDifference(-one.sign, one.advantage, one.doubt) for one in swapped]
    have_one_size = sides[1] < SIZE_RATIO * sides[0]
    if not framing.is_same:
        # A border, or what only one shows, has details of its own.
        return [] if have_one_size else _by_enlargement(a, b, sides)
    if not have_one_size:
        has_own = partial(has_own_detail, framing, added_detail)
        return _by_enlargement(a, b, sides, has_own, says_camera=bool(second.item.camera))
    doubt = (
        "one of the images is turned or mirrored"
        if framing.is_turned
        else "the pixels differ by more than compression explains"
    )
    return [*_by_blur(a, b), ImageDifference(0, "", doubt)]


def _by_blur(a: ImageQuality, b: ImageQuality) -> list[ImageDifference]:
    """Compare two images of about one size.

    *Method*: detail that falls off toward high frequencies, relative to the other image, was blurred, however
    much it was sharpened afterwards.
    """
    has_detail = np.maximum(a.spectrum, b.spectrum)[_COMPARED] >= _DETAIL_POWER
    if has_detail.sum() < 8:
        return []
    ratio = _ratio_db(a, b, (1.0, 1.0))[has_detail]
    lost_a = float(np.quantile(-ratio, 0.8) + ratio[-6:].mean())
    lost_b = float(np.quantile(ratio, 0.8) - ratio[-6:].mean())
    if max(lost_a, lost_b) < _BLUR_DB or min(lost_a, lost_b) > _NO_BLUR_DB:
        return []
    kept, blurred = (a, b) if lost_b > lost_a else (b, a)
    if kept.compression > max(_COARSE_COMPRESSION, 2 * blurred.compression) or not kept.has_known_loss:
        return []  # the borders of its blocks look like details
    words = f"higher effective resolution: {kept.width} × {kept.height}, the next is blurred"
    return [ImageDifference(sign_of(kept is a), words, "the other image has more detail")]


def _by_enlargement(
    small: ImageQuality,
    large: ImageQuality,
    sides: tuple[float, float],
    has_own: Callable[[], bool] = lambda: False,
    *,
    says_camera: bool = False,
) -> list[ImageDifference]:
    """Tell whether the larger image has detail of its own, or was enlarged.

    A soft image falls off like an enlarged one. Only its pixels tell them apart: `has_own` looks at them.
    """
    lost = enlargement_db(small, large, sides)
    if large.has_repeated_pixels and not small.has_repeated_pixels:
        lost = np.inf
    is_own = not lost <= _OWN_DETAIL_DB and has_own()  # NaN, too, is a doubt
    if lost > _ENLARGED_DB and not is_own:
        words = f"higher effective resolution: {small.width} × {small.height}, the next seems enlarged"
        return [
            ImageDifference(1, words, "the other image has more detail"),
            ImageDifference(0, "", "the other image has more pixels"),
        ]
    times = f"{(sides[1] / sides[0]) ** 2:.3g} times the pixels of the next"
    words = f"higher effective resolution: {large.width} × {large.height}, {times}"
    found = [ImageDifference(-1, words, "the other image has more detail")]
    # Two measures that disagree leave a doubt, unless it is the file of a camera.
    if lost > (_ENLARGED_DB if is_own else _OWN_DETAIL_DB) and not (is_own and says_camera):
        found.append(ImageDifference(0, "", "the larger image may be enlarged"))
    ratio = _ratio_db(small, large, sides)
    if abs(np.median(ratio[4:]) - np.median(ratio[:2])) > _SHARPENED_DB:
        found.append(ImageDifference(0, "", "one of the images may be sharpened"))
    return found


def enlargement_db(small: ImageQuality, large: ImageQuality, sides: tuple[float, float]) -> float:
    """Return by how many dB the larger image lacks the detail for which the smaller one has no pixels.

    *Method*: the spectrum of the smaller image, over cycles a scene, is continued by a power law from its
    upper frequencies. A larger original goes on like this; an enlarged image falls off, by as much in
    relation to its lower frequencies however much it was sharpened. NaN where the smaller image has no detail
    at its own upper frequencies: then nothing follows.
    """
    if np.median(small.spectrum[_UPPER]) < _DETAIL_POWER:
        return np.nan
    small_at, large_at = (_FREQUENCIES * side for side in sides)
    small_db, large_db = _decibels(small, sides[0]), _decibels(large, sides[1])
    slope, level = np.polyfit(np.log(small_at[_UPPER]), small_db[_UPPER], 1)
    beyond = np.linspace(1.05 * small_at[-1], min(large_at[-2], 1.3 * small_at[-1]), 12)
    extension = _interpolated(beyond, large_at, large_db) - (slope * np.log(beyond) + level)
    return float(np.quantile(_ratio_db(small, large, sides), 0.8) - extension[2:].mean())


def _ratio_db(small: ImageQuality, large: ImageQuality, sides: tuple[float, float]) -> Floats:
    """Return the power of the larger image over that of the smaller one, where both have pixels."""
    small_at, large_at = (_FREQUENCIES * side for side in sides)
    ratio = _interpolated(small_at, large_at, _decibels(large, sides[1])) - _decibels(small, sides[0])
    return ratio[_COMPARED]


def _decibels(image: ImageQuality, side: float) -> Floats:
    decibels: Floats = 10 * np.log10(np.maximum(image.spectrum, _LEAST_POWER) / side**2)
    return decibels


def _interpolated(at: Floats, known_at: Floats, values: Floats) -> Floats:
    interpolated: Floats = np.interp(np.log(at), np.log(known_at), values)
    return interpolated


def is_soft(image: ImageQuality) -> bool:
    """Whether an image lacks detail at its own upper frequencies, as soft and enlarged images do.

    Then nobody can tell whether a larger version was made from it.
    """
    power = image.spectrum[_UPPER]
    if np.median(power) < _DETAIL_POWER:
        return True
    slope, _ = np.polyfit(np.log(_FREQUENCIES[_UPPER]), np.log(np.maximum(power, _LEAST_POWER)), 1)
    return bool(slope < -_SOFT_EXPONENT)
