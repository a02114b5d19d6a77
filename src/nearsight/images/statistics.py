"""Figures of one image: brightness, contrast, sharpness."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

Floats = NDArray[np.float32]

# Ends of the range of an image: so large a share of its pixels may lie beyond, as noise and glints do.
_END, _CHANNEL_END = 0.01, 0.005
# A gray image that was compressed in color has hardly more chroma than this, in 1/255.
_GRAY_CHROMA = 4
# Edges are the steepest of this share of the pixels, if they are steeper than noise and compression.
_EDGE_SHARE = 0.01
_MIN_SLOPE = 1.5
_MIN_EDGE_PIXELS = 20
# The sharp end of the edges: a background may be out of focus.
_SHARP_SHARE = 25
# Variances, in square pixels, of the two smoothed images, with the derivative's own.
_FINE, _COARSE = 0.5 + 1 / 3, 2.5 + 1 / 3
_WIDEST = 10.0
_SIDE = 256


@dataclass(frozen=True, slots=True)
class ImageStatistics:
    """Figures of one image.

    Attributes
    ----------
    darkest, brightest : float
        Luminance, 0 black to 1 white, that 1 % and 99 % of the pixels do not exceed.
    span : float
        In 0..1: the widest range of a channel, without its lowest and highest 0.5 %.
    edge_width : float
        Blur of the sharpest edges across or upright, whichever are wider: standard deviation of a Gaussian,
        in 1/256 of the longer side, or in pixels where that has fewer than 256. NaN where there is no edge.
    is_gray : bool
        Whether the channels hardly differ.
    """

    darkest: float
    brightest: float
    span: float
    edge_width: float
    is_gray: bool

    @property
    def contrast(self) -> float:
        """Range of the luminance as a share of what is possible at this brightness, in 0..1."""
        spread = self.brightest - self.darkest
        return min(1.0, max(spread / max(self.brightest, 1e-6), spread / max(1 - self.darkest, 1e-6)))


def statistics(image: Image.Image) -> ImageStatistics:
    """Measure an image; meant for thumbnails of about 256 pixels.

    *Method* for edges: the slope of an edge of width b falls with smoothing by s as 1 / sqrt(b² + s²); so the
    ratio of the slopes after two smoothings gives b (Zhuo and Sim 2011, "Defocus map estimation from a single
    image", section 3), and so does the ratio of the slopes along one axis. Along each axis, the result is the
    lower quartile over the steepest 1 % of the pixels, so that one sharp thing is enough, whatever is behind
    it; the wider of the two counts, since motion blurs along one axis only.

    Parameters
    ----------
    image : PIL.Image.Image
        Decoded; converted to RGB here.

    Examples
    --------
    >>> black = statistics(Image.new("RGB", (256, 192), "black"))
    >>> black.brightest, black.span, bool(np.isnan(black.edge_width))
    (0.0, 0.0, True)
    """
    image = image.convert("RGB")
    luminance = image.convert("L")
    darkest, brightest = _ends(luminance.histogram(), _END)
    channels = np.reshape(image.histogram(), (3, 256))
    span = max(high - low for low, high in (_ends(channel, _CHANNEL_END) for channel in channels))
    chroma = np.reshape(image.convert("YCbCr").histogram(), (3, 256))[1:]
    is_gray = all(
        128 - _GRAY_CHROMA <= 255 * end <= 128 + _GRAY_CHROMA for part in chroma for end in _ends(part, _END)
    )
    # In a small image even a sharp edge is a large share of the side.
    width = _edge_width(np.asarray(luminance, np.float32)) * min(1.0, _SIDE / max(image.size))
    return ImageStatistics(darkest, brightest, span, width, is_gray)


def _ends(histogram: ArrayLike, share: float) -> tuple[float, float]:
    """Return the levels that a share of the pixels falls short of, and that it exceeds, in 0..1."""
    below = np.cumsum(histogram)
    low, high = np.searchsorted(below, [share * below[-1], (1 - share) * below[-1]], side="left")
    return float(low / 255), float(high / 255)


def _edge_width(luminance: Floats) -> float:
    """Return the blur of the sharpest edges in pixels; NaN without edges."""
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
