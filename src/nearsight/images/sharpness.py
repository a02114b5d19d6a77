"""How sharp an image is: the width of its edges, and its detail by frequency."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Edges are the steepest of this share of the pixels, if they are steeper than noise and compression.
_EDGE_SHARE = 0.01
_MIN_SLOPE = 1.5
_MIN_EDGE_PIXELS = 20
# The sharp end of the edges: a background may be out of focus.
_SHARP_SHARE = 25
# Variances, in square pixels, of the two smoothed images, with the derivative's own.
_FINE, _COARSE = 0.5 + 1 / 3, 2.5 + 1 / 3
_WIDEST = 10.0

# Tiles whose spectra are averaged, and their side in pixels.
_MAX_TILES, _TILE_PX = 256, 64
#: Rings of a spectrum, from 0 to half a cycle a pixel.
N_RINGS: Final = _TILE_PX // 2
# Of the tiles, the share that is taken for free of detail: what they hold is noise.
_FLAT_SHARE = 0.1


def edge_width(luminance: Floats) -> float:
    """Return the blur of the sharpest edges across or upright, whichever are wider; NaN without edges.

    *Method*: the slope of an edge of width b falls with smoothing by s as 1 / sqrt(b² + s²); so the ratio of
    the slopes after two smoothings gives b (Zhuo and Sim 2011, "Defocus map estimation from a single image",
    section 3), and so does the ratio of the slopes along one axis. Along each axis, the result is the lower
    quartile over the steepest 1 % of the pixels, so that one sharp thing is enough, whatever is behind it.
    The wider of the two counts, since motion blurs along one axis only.

    Parameters
    ----------
    luminance : ndarray of shape (height, width), float32
        In 0 to 255.

    Returns
    -------
    float
        Standard deviation of a Gaussian, in pixels.
    """
    if min(luminance.shape) < 16:
        return float("nan")
    fine = _smoothed(luminance)
    coarse = fine
    for _ in range(4):
        coarse = _smoothed(coarse)
    fine = fine[4:-4, 4:-4]
    widths = [
        _width(np.abs(fine[:, 2:] - fine[:, :-2]) / 2, np.abs(coarse[:, 2:] - coarse[:, :-2]) / 2),
        _width(np.abs(fine[2:] - fine[:-2]) / 2, np.abs(coarse[2:] - coarse[:-2]) / 2),
    ]
    return max((width for width in widths if not np.isnan(width)), default=float("nan"))


def _width(slopes: Floats, coarse_slopes: Floats) -> float:
    """Return the width of edges from their slopes along one axis, after the two smoothings."""
    limit = max(float(np.quantile(slopes, 1 - _EDGE_SHARE)), _MIN_SLOPE)
    is_edge = slopes >= limit
    if is_edge.sum() < _MIN_EDGE_PIXELS:
        return float("nan")
    ratios = (slopes[is_edge] / np.maximum(coarse_slopes[is_edge], 1e-3)) ** 2
    squares = (_COARSE - ratios * _FINE) / np.maximum(ratios - 1, 1e-3)
    return float(np.percentile(np.sqrt(np.clip(squares, 0, _WIDEST**2)), _SHARP_SHARE))


def _smoothed(values: Floats) -> Floats:
    """Smooth by the binomial filter of three: variance 0.5; the border of one pixel is lost."""
    rows = (values[:-2] + 2 * values[1:-1] + values[2:]) / 4
    smoothed: Floats = np.asarray((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4, np.float32)
    return smoothed


def detail_spectrum(gray: Floats) -> tuple[Floats, float, float]:
    """Return the power of details in each ring of frequencies, and the noise at high and at low ones.

    *Method*: the mean power spectrum of tiles, less the noise, which is what the flattest tenth of them hold.

    Parameters
    ----------
    gray : ndarray of shape (height, width), float32
        In 0 to 255.

    Returns
    -------
    power : ndarray of shape (32,), float32
        At 0 to 0.5 cycles a pixel, in gray levels squared.
    noise, coarse_noise : float
        Standard deviation in gray levels, at high frequencies and at those that compression keeps longest.
    """
    tiles = _tiles(gray)
    window = np.hanning(tiles.shape[1] + 2)[1:-1, None] * np.hanning(tiles.shape[2] + 2)[None, 1:-1]
    tiles = (tiles - tiles.mean(axis=(1, 2), keepdims=True)) * (window / np.sqrt((window**2).mean()))
    power = np.abs(np.fft.rfft2(tiles.astype(np.float32), s=(_TILE_PX, _TILE_PX))) ** 2
    power /= tiles.shape[1] * tiles.shape[2]
    frequency = np.hypot(np.fft.fftfreq(_TILE_PX)[:, None], np.fft.rfftfreq(_TILE_PX)[None])
    ring = np.minimum((frequency * 2 * N_RINGS).astype(int), N_RINGS)
    n_ring = np.bincount(ring.ravel(), minlength=N_RINGS + 1)
    rings = np.stack([np.bincount(ring.ravel(), p.ravel(), N_RINGS + 1) / n_ring for p in power])[:, :N_RINGS]
    flat = np.argsort(rings[:, N_RINGS // 4 :].sum(axis=1))[: max(1, round(_FLAT_SHARE * len(rings)))]
    floor = rings[flat].mean(axis=0)
    fine, coarse = (
        float(np.median(part)) for part in (floor[N_RINGS // 2 :], floor[N_RINGS // 6 : N_RINGS // 3])
    )
    # Noise is as strong at all frequencies; what flat tiles hold beyond that at low ones is detail.
    detail = np.maximum(rings.mean(axis=0) - np.minimum(floor, fine), 0)
    return detail.astype(np.float32), float(np.sqrt(fine)), float(np.sqrt(coarse))


def _tiles(gray: Floats) -> Floats:
    """Return tiles that are spread evenly over an image; all of it if it is small."""
    starts = []
    n_side = int(np.sqrt(_MAX_TILES))
    for length in gray.shape:
        n = min(n_side, max(1, -(-length // _TILE_PX) * 2 - 1))
        starts.append(np.unique(np.linspace(0, max(0, length - _TILE_PX), n).astype(int)))
    tiles: Floats = np.stack([gray[y : y + _TILE_PX, x : x + _TILE_PX] for y in starts[0] for x in starts[1]])
    return tiles
