"""Stricter comparison of images on a plain ground, where outlines and lines of text agree by themselves.

Two products of one shape on white, two pages of one layout, or two forms that were filled in differently
agree in most of their details. What tells them apart is the place that agrees least.
"""

import io

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy import ndimage

from nearsight.verification.dense.affine import Floats, downscale, warp
from nearsight.verification.dense.refinement import NOISE, align, details, normalized
from nearsight.verification.dense.registration import MATCH_AGREEMENT
from nearsight.verification.dense.thumbnails import SIDE_PX, Pixels, black_corners

#: Pixels of a fine thumbnail's side: twice as many as for the first comparison, so that words are seen.
FINE_SIDE_PX = 192

#: Share of an image from which on its ground is plain: a page or a product on white has a third or more.
PLAIN_GROUND_SHARE = 0.28
#: Share from which on it is partly plain: screenshots with tiles of several grays, and a few photographs.
PARTLY_PLAIN_GROUND_SHARE = 0.15

# The ground is the most frequent gray level and so many levels around it; so much of the border shows it.
_GROUND_LEVELS, _LEAST_BORDER_SHARE = 3, 0.25
# Noise is smoothed away over the longest side by so much.
_SMOOTHED_SIDES = 128
# How far an image with fewer pixels than a fine thumbnail is blurred, in pixels that it lacks; and by how
# much more a blurred one must agree, for each pixel.
_BLUR, _UNSEEN = 0.6, 0.15

# The quietest places, so wide, show the noise of the ground; so many times their power is no detail.
_NOISE_WINDOW_PX, _NOISE_QUANTILE, _NOISE_POWER = 2.0, 0.05, 15.0
# Width of a detail, and by how many pixels a cell is wide in which details are compared.
_DETAIL_PX, _CELL_PX = 3.0, 4
# Spread of the window around a cell, in cells.
_WINDOW_CELLS = 1.25
# The image disagrees where the least agreeing part of its details does, so much of them.
_LEAST_SHARE = 0.03
# Cells with so little detail, relative to the local contrast squared, are noise.
_NOISE_ENERGY = 1e-4
# A common area of less than this share of a cell is no cell.
_LEAST_CELL = 0.3

# Share of cells with details below which an outline may be all that there is.
_OUTLINE_SHARE, _DETAIL_ENERGY = 0.5, 0.05
# What lies so many pixels from the ground is inside. Something with an inside, of this share of the image or
# more, is seen as an outline if the inside has less than this share of the details.
_INSIDE_PX, _LEAST_INSIDE, _INSIDE_DETAILS = 7, 0.1, 0.2
# Levels by which the ground may vary where it is plain.
_GROUND_RANGE = 8
# Color levels by which two images without further details may differ, and the agreement that remains.
_SAME_COLOR, _SAME_COLOR_SHARE, _OUTLINE_AGREEMENT = 12.0, 0.9, 0.75
# Black corners: the share of a pixel that they may cover, the width of their edge, and the gray level of a
# ground that they would not differ from.
_COVERED, _CORNER_EDGE_PX, _BLACK_GROUND = 0.1, 3, 48

# Slope and offset that bring other measures to the scale of `register`, where 0.65 is a match: the least
# local agreement, the correlation of all fine details, and the correlation of gray levels.
_LOCAL_SCALE, _FINE_SCALE, _TONE_SCALE = (1.5, -0.3), (2.0, -0.95), (3.0, -2.05)
_TONE_DOWNSCALING = 4
# How much faster the agreement falls below the match threshold.
_FALL = 4.0

Colors = NDArray[np.uint8]
Ints = NDArray[np.int64]


def ground_share(gray: Pixels) -> float:
    """Return the share of a gray image, of any shape, that is a plain ground; 0 if it misses the border."""
    smooth = ndimage.gaussian_filter(gray.astype(np.float32), max(gray.shape) / _SMOOTHED_SIDES)
    # Smoothing takes away the noise of a scan, and the ground between lines of text.
    return max(_ground_share(gray), _ground_share(np.rint(smooth).astype(np.uint8)))


def _ground_share(gray: Pixels) -> float:
    counts = np.bincount(gray.ravel(), minlength=256)
    near = np.convolve(counts, np.ones(2 * _GROUND_LEVELS + 1, np.int64), "same")
    border = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]]).astype(np.int64)
    is_ground = np.abs(border - near.argmax()) <= 2 * _GROUND_LEVELS
    return float(near.max() / gray.size) if is_ground.mean() >= _LEAST_BORDER_SHARE else 0.0


def thumbnail_ground_share(thumbnail: bytes) -> float:
    """Return the share of a thumbnail (JPEG) that is a plain ground, as `ground_share`."""
    source = Image.open(io.BytesIO(thumbnail))
    source.draft("L", (2 * SIDE_PX, 2 * SIDE_PX))
    return ground_share(np.asarray(source.convert("L")))


def fine_thumbnail(thumbnail: bytes) -> tuple[Colors, float]:
    """Return a thumbnail (JPEG) of (192, 192, 3) pixels, and by how many pixels it is blurred if enlarged."""
    source = Image.open(io.BytesIO(thumbnail)).convert("RGB")
    # Both axes are resolved as well as the worse one, so that a turned image loses the same details.
    side = min(FINE_SIDE_PX, *source.size)
    reduced = source.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    colors = np.asarray(reduced.resize((FINE_SIDE_PX, FINE_SIDE_PX), Image.Resampling.BICUBIC))
    return colors, _BLUR * ((FINE_SIDE_PX / side) ** 2 - 1) ** 0.5


def toned_agreement(thumbnails: Pixels, pairs: Ints, transforms: Floats, agreement: Floats) -> Floats:
    """Return the agreement of pairs on a partly plain ground, lowered where their gray levels disagree.

    *Method*: details are relative to the local contrast, so that tiles agree whatever their gray. So the
    agreement is at most what corresponds to the correlation of gray levels at 24 pixels a side.

    Parameters
    ----------
    thumbnails : ndarray of shape (n, 96, 96), uint8
        From `gray_thumbnail`.
    pairs : ndarray of shape (m, 2), int64
    transforms : ndarray of shape (m, 2, 3), float32
    agreement : ndarray of shape (m,), float32
        From `register`.

    Returns
    -------
    ndarray of shape (m,), float32
        At most `agreement`.
    """
    if not len(pairs):
        return agreement
    rows, places = np.unique(pairs, return_inverse=True)
    here, there = downscale(thumbnails[rows], _TONE_DOWNSCALING)[places.reshape(-1, 2).T]
    seen, weight = warp(there, transforms.copy())
    # Black corners, as turning leaves them, are no tones of the image.
    corners = np.stack([black_corners(image) for image in thumbnails[rows]]).astype(np.float32)
    corners_here, corners_there = downscale(corners, _TONE_DOWNSCALING)[places.reshape(-1, 2).T]
    covered, _ = warp(corners_there, transforms.copy())
    weight *= (covered < _COVERED) * (corners_here.reshape(covered.shape) < _COVERED)
    tones = np.einsum("nk,nk->n", normalized(here.reshape(seen.shape), weight), normalized(seen, weight))
    lowered: Floats = np.minimum(agreement, np.polyval(_TONE_SCALE, tones).astype(np.float32))
    return lowered


def plain_ground_agreement(thumbnails: Colors, blurs_px: ArrayLike, transform: Floats) -> float:
    """Return the agreement of two images on a plain ground: that of the part that agrees least.

    *Method*: the transform is refined by one step at twice the resolution. Then details are compared in
    windows of about 10 pixels: twice their covariance over the sum of their energies, so that what only one
    of the two shows disagrees, too. The local agreement is the one that 3 % of all details, weighted by
    energy, fall below. The agreement is what corresponds to it on the scale of `register`, and at most what
    corresponds to the correlation of all fine details. If there is little more than an outline, colors must
    be equal, and the agreement is at most 0.75.

    Parameters
    ----------
    thumbnails : ndarray of shape (2, 192, 192, 3), uint8
        From `fine_thumbnail`.
    blurs_px : array of shape (2,), float
        By how much each is blurred.
    transform : ndarray of shape (2, 3), float32
        From `register`.

    Returns
    -------
    float
        In 0..1.

    Notes
    -----
    A pair costs about 20 milliseconds.
    """
    side = FINE_SIDE_PX
    gray: Floats = thumbnails.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    corner_here, corner_there = map(_without_black_corners, gray)
    blurs = np.asarray(blurs_px, np.float64)
    # The sharper one is blurred, too: details that only one of them can show are no disagreement.
    for image, own in zip(gray, blurs, strict=True):
        ndimage.gaussian_filter(image, (blurs.max() ** 2 - own**2) ** 0.5, output=image)
    here, there = details(gray, _DETAIL_PX, 1)
    _, refined = align(here[None], there[None], transform[None], 1)
    [seen], [inside] = warp(gray[1:], refined.copy())
    [covered], _ = warp(corner_there[None].astype(np.float32), refined.copy())
    area = (inside * (covered < _COVERED)).reshape(side, side) * ~corner_here
    area = ndimage.minimum_filter(area, int(2 * _DETAIL_PX) + 1)
    pair = _details_above_noise(np.stack([gray[0], seen.reshape(side, side)])) * area
    local, fine, detail_share = _agreements(pair[0], pair[1], area)
    # Where less can be seen, more of it must agree.
    unseen = _UNSEEN * float(blurs.max())
    confirmed = min(_scaled(local - unseen, _LOCAL_SCALE), _scaled(fine, _FINE_SCALE))
    if detail_share < _OUTLINE_SHARE and _is_outline(gray[0], pair[0], pair[1]):
        colors: Floats = thumbnails.transpose(0, 3, 1, 2).astype(np.float32)
        colors_here, colors_there = colors
        channels, _ = warp(colors_there, refined.repeat(3, 0))
        difference = np.abs(colors_here.reshape(3, -1) - channels).max(axis=0)
        is_same = np.quantile(difference[area.ravel() > 0], _SAME_COLOR_SHARE) <= _SAME_COLOR
        confirmed = min(confirmed, _OUTLINE_AGREEMENT if is_same else 0.0)
    # Different pages of one layout come close to the threshold, and must not seem to be near-duplicates.
    below = MATCH_AGREEMENT - _FALL * (MATCH_AGREEMENT - confirmed)
    return min(max(below, 0.0), confirmed, 1.0) if confirmed > 0 else 0.0


def _without_black_corners(gray: Floats) -> NDArray[np.bool_]:
    """Give black corners, as turning leaves them, the gray of the ground in place; return where they are."""
    levels: Pixels = gray.astype(np.uint8)
    ground = _ground_level(gray)
    if ground < _BLACK_GROUND:
        return np.zeros(gray.shape, bool)
    # Their edges are gray.
    corners: NDArray[np.bool_] = ndimage.binary_dilation(black_corners(levels), iterations=_CORNER_EDGE_PX)
    gray[corners] = ground
    return corners


def _scaled(value: float, scale: tuple[float, float]) -> float:
    slope, offset = scale
    return slope * value + offset


def _agreements(here: Floats, there: Floats, area: Floats) -> tuple[float, float, float]:
    """Return the least local agreement of details, their correlation, and the share of cells with any."""
    products = np.stack([here**2, there**2, here * there, area])
    energy_here, energy_there, covariance, weight = ndimage.gaussian_filter(
        downscale(products, _CELL_PX), (0, _WINDOW_CELLS, _WINDOW_CELLS)
    )
    energy = np.maximum(energy_here, energy_there) * (weight > _LEAST_CELL)
    if not energy.any():
        return 0.0, 0.0, 0.0
    agreements = (2 * covariance / (energy_here + energy_there + _NOISE_ENERGY)).ravel()
    order = np.argsort(agreements)
    cumulated = np.cumsum(energy.ravel()[order])
    local = agreements[order[np.searchsorted(cumulated, _LEAST_SHARE * cumulated[-1])]]
    fine = np.vdot(here, there) / max(1e-6, np.linalg.norm(here) * np.linalg.norm(there))
    return float(local), float(fine), float((energy > _DETAIL_ENERGY).mean())


def _is_outline(gray: Floats, here: Floats, there: Floats) -> bool:
    """Return whether the details lie where something large meets the ground, and hardly any inside of it.

    Strokes, as of text, have no inside.
    """
    is_ground = np.abs(gray - _ground_level(gray)) <= _GROUND_RANGE
    patches, _ = ndimage.label(is_ground)
    border = np.concatenate([patches[0], patches[-1], patches[:, 0], patches[:, -1]])
    is_ground = np.isin(patches, border[border > 0])
    inside = ~ndimage.maximum_filter(is_ground, 2 * _INSIDE_PX + 1)
    energy = np.minimum(here**2, there**2)
    share = float(energy[inside].sum() / max(1e-6, energy.sum()))
    return float(inside.mean()) >= _LEAST_INSIDE and share < _INSIDE_DETAILS


def _ground_level(gray: Floats) -> int:
    """Return the gray level with the most pixels around it."""
    counts = np.bincount(np.clip(gray, 0, 255).astype(np.uint8).ravel(), minlength=256)
    near = np.convolve(counts, np.ones(2 * _GROUND_LEVELS + 1, np.int64), "same")
    return int(near.argmax())


def _details_above_noise(images: Floats) -> Floats:
    """Return details relative to the local contrast, near 0 where there is only the noise of the ground."""
    blurred = ndimage.gaussian_filter(images, (0, _DETAIL_PX, _DETAIL_PX), mode="nearest")
    differences = images - blurred
    power = ndimage.gaussian_filter(differences**2, (0, 2 * _DETAIL_PX, 2 * _DETAIL_PX), mode="nearest")
    local = ndimage.gaussian_filter(differences**2, (0, _NOISE_WINDOW_PX, _NOISE_WINDOW_PX), mode="nearest")
    # The noisier one decides for both: noise that only one has is no disagreement.
    noise = _NOISE_POWER * np.quantile(local, _NOISE_QUANTILE, axis=(1, 2)).max()
    above = np.maximum(1 - noise / np.maximum(power, 1e-6), 0)
    relative: Floats = (differences * above / (np.sqrt(power) + NOISE)).astype(np.float32)
    return relative
