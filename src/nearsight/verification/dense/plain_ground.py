"""Stricter comparison of images on a plain ground, where outlines and lines of text agree by themselves.

Two products of one shape on white, two pages of one layout, or two forms that were filled in differently
agree in most of their details. What tells them apart is the place that agrees least.
"""

import io
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image

from nearsight.verification.dense.affine import Floats, downscale, smoothed, warp
from nearsight.verification.dense.refinement import NOISE, align, details, gradients_of, normalized
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
# What is confirmed by no more agrees by 0, such as the best of two images with too few pixels.
_LEAST_CONFIRMED = MATCH_AGREEMENT * (1 - 1 / _FALL)

Colors = NDArray[np.uint8]
Ints = NDArray[np.int64]


class FineThumbnail(NamedTuple):
    """A thumbnail as `plain_ground_agreements` compares it.

    Attributes
    ----------
    colors : ndarray of shape (192, 192, 3), uint8
    blur_px : float
        By how many pixels it is blurred, if it is enlarged.
    """

    colors: Colors
    blur_px: float


def ground_share(gray: Pixels) -> float:
    """Return the share of a gray image, of any shape, that is a plain ground; 0 if it misses the border."""
    smooth = scipy.ndimage.gaussian_filter(gray.astype(np.float32), max(gray.shape) / _SMOOTHED_SIDES)
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


def fine_thumbnail(thumbnail: bytes) -> FineThumbnail:
    """Return a thumbnail (JPEG) in 192 pixels a side, whatever its shape."""
    source = Image.open(io.BytesIO(thumbnail)).convert("RGB")
    # Both axes are resolved as well as the worse one, so that a turned image loses the same details.
    side = min(FINE_SIDE_PX, *source.size)
    reduced = source.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    colors = np.asarray(reduced.resize((FINE_SIDE_PX, FINE_SIDE_PX), Image.Resampling.BICUBIC))
    return FineThumbnail(colors, _BLUR * ((FINE_SIDE_PX / side) ** 2 - 1) ** 0.5)


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


def plain_ground_agreements(
    here: FineThumbnail, others: Sequence[FineThumbnail], transforms: Floats
) -> list[float]:
    """Return the agreement of an image on a plain ground with others: that of the part that agrees least.

    *Method*: the transform is refined by one step at twice the resolution. Then details are compared in
    windows of about 10 pixels: twice their covariance over the sum of their energies, so that what only one
    of the two shows disagrees, too. The local agreement is the one that 3 % of all details, weighted by
    energy, fall below. The agreement is what corresponds to it on the scale of `register`, and at most what
    corresponds to the correlation of all fine details. If there is little more than an outline, colors must
    be equal, and the agreement is at most 0.75.

    Parameters
    ----------
    here : FineThumbnail
    others : sequence of FineThumbnail, length n
    transforms : ndarray of shape (n, 2, 3), float32
        From `register`, of pairs of which `here` is the first image.

    Returns
    -------
    list of float, length n
        In 0..1.

    Notes
    -----
    A pair costs about 10 milliseconds, and some less where one image is compared with many.
    """
    views: dict[float, _View] = {}
    agreements = []
    for other, transform in zip(others, transforms, strict=True):
        # The sharper one is blurred, too: details that only one of them can show are no disagreement.
        blur_px = max(here.blur_px, other.blur_px)
        if _confirmed(1.0, 1.0, blur_px) <= _LEAST_CONFIRMED:
            agreements.append(0.0)
            continue
        if blur_px not in views:
            views[blur_px] = _View(here, blur_px)
        agreements.append(_agreement(views[blur_px], _View(other, blur_px), transform[None], blur_px))
    return agreements


class _Contrast(NamedTuple):
    """How each pixel differs from its surroundings, how much they vary, and that of the quietest places."""

    differences: Floats
    power: Floats
    noise: float


class _View:
    """An image of a pair: gray, without black corners, and as blurred as the other one."""

    def __init__(self, thumbnail: FineThumbnail, blur_px: float) -> None:
        self.colors = thumbnail.colors
        self.gray: Floats = self.colors.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        self.corners = _without_black_corners(self.gray)
        if thumbnail.blur_px < blur_px:
            [self.gray] = smoothed(self.gray[None], (blur_px**2 - thumbnail.blur_px**2) ** 0.5)
        self.details = details(self.gray[None], _DETAIL_PX, 1)

    @cached_property
    def gradients(self) -> Floats:
        return gradients_of(self.details)

    @cached_property
    def contrast(self) -> _Contrast:
        return _contrast(self.gray)


def _agreement(here: _View, there: _View, transform: Floats, blur_px: float) -> float:
    side = FINE_SIDE_PX
    _, refined = align(here.details, there.details, transform, 1, here.gradients)
    [seen], [inside] = warp(there.gray[None], refined.copy())
    [covered], _ = warp(there.corners[None].astype(np.float32), refined.copy())
    area = (inside * (covered < _COVERED)).reshape(side, side) * ~here.corners
    area = scipy.ndimage.minimum_filter(area, int(2 * _DETAIL_PX) + 1)
    details_here, details_there = _details_above_noise(here.contrast, _contrast(seen.reshape(side, side)))
    details_here *= area
    details_there *= area
    local, fine, detail_share = _agreements(details_here, details_there, area)
    confirmed = _confirmed(local, fine, blur_px)
    if detail_share < _OUTLINE_SHARE and _is_outline(here.gray, details_here, details_there):
        colors_here, colors_there = (
            view.colors.transpose(2, 0, 1).astype(np.float32) for view in (here, there)
        )
        channels, _ = warp(colors_there, refined.repeat(3, 0))
        difference = np.abs(colors_here.reshape(3, -1) - channels).max(axis=0)
        is_same = np.quantile(difference[area.ravel() > 0], _SAME_COLOR_SHARE) <= _SAME_COLOR
        confirmed = min(confirmed, _OUTLINE_AGREEMENT if is_same else 0.0)
    # Different pages of one layout come close to the threshold, and must not seem to be near-duplicates.
    below = MATCH_AGREEMENT - _FALL * (MATCH_AGREEMENT - confirmed)
    return min(max(below, 0.0), confirmed, 1.0) if confirmed > 0 else 0.0


def _confirmed(local: float, fine: float, blur_px: float) -> float:
    """Return the agreement by details, on the scale of `register`."""
    # Where less can be seen, more of it must agree.
    return min(_scaled(local - _UNSEEN * blur_px, _LOCAL_SCALE), _scaled(fine, _FINE_SCALE))


def _without_black_corners(gray: Floats) -> NDArray[np.bool_]:
    """Give black corners, as turning leaves them, the gray of the ground in place; return where they are."""
    levels: Pixels = gray.astype(np.uint8)
    ground = _ground_level(gray)
    if ground < _BLACK_GROUND:
        return np.zeros(gray.shape, bool)
    corners = black_corners(levels)
    if corners.any():
        # Their edges are gray.
        corners = scipy.ndimage.binary_dilation(corners, iterations=_CORNER_EDGE_PX)
        gray[corners] = ground
    return corners


def _scaled(value: float, scale: tuple[float, float]) -> float:
    slope, offset = scale
    return slope * value + offset


def _agreements(here: Floats, there: Floats, area: Floats) -> tuple[float, float, float]:
    """Return the least local agreement of details, their correlation, and the share of cells with any."""
    products = np.stack([here**2, there**2, here * there, area])
    cells = smoothed(downscale(products, _CELL_PX), _WINDOW_CELLS)
    energy_here, energy_there, covariance, weight = cells
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
    patches, _ = scipy.ndimage.label(is_ground)
    border = np.concatenate([patches[0], patches[-1], patches[:, 0], patches[:, -1]])
    is_ground = np.isin(patches, border[border > 0])
    inside = ~scipy.ndimage.maximum_filter(is_ground, 2 * _INSIDE_PX + 1)
    energy = np.minimum(here**2, there**2)
    share = float(energy[inside].sum() / max(1e-6, energy.sum()))
    return float(inside.mean()) >= _LEAST_INSIDE and share < _INSIDE_DETAILS


def _ground_level(gray: Floats) -> int:
    """Return the gray level with the most pixels around it."""
    counts = np.bincount(np.clip(gray, 0, 255).astype(np.uint8).ravel(), minlength=256)
    near = np.convolve(counts, np.ones(2 * _GROUND_LEVELS + 1, np.int64), "same")
    return int(near.argmax())


def _contrast(gray: Floats) -> _Contrast:
    differences = gray[None] - smoothed(gray[None], _DETAIL_PX)
    [power], [local] = (smoothed(differences**2, spread) for spread in (2 * _DETAIL_PX, _NOISE_WINDOW_PX))
    return _Contrast(differences[0], power, float(np.quantile(local, _NOISE_QUANTILE)))


def _details_above_noise(here: _Contrast, there: _Contrast) -> tuple[Floats, Floats]:
    """Return details relative to the local contrast, near 0 where there is only the noise of the ground."""
    # The noisier one decides for both: noise that only one has is no disagreement.
    noise = np.float32(_NOISE_POWER * max(here.noise, there.noise))

    def above_noise(of: _Contrast) -> Floats:
        above = np.maximum(1 - noise / np.maximum(of.power, 1e-6), 0)
        relative: Floats = of.differences * above / (np.sqrt(of.power) + NOISE)
        return relative

    return above_noise(here), above_noise(there)
