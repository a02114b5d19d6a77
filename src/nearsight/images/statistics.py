"""Figures of one image: brightness, contrast, sharpness."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from nearsight.images.sharpness import edge_width

Floats = NDArray[np.float32]

# Ends of the range of an image: so large a share of its pixels may lie beyond, as noise and glints do.
_END, _CHANNEL_END = 0.01, 0.005
# A gray image that was compressed in color has hardly more chroma than this, in 1/255.
_GRAY_CHROMA = 4
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
    width = edge_width(np.asarray(luminance, np.float32)) * min(1.0, _SIDE / max(image.size))
    return ImageStatistics(darkest, brightest, span, width, is_gray)


def _ends(histogram: ArrayLike, share: float) -> tuple[float, float]:
    """Return the levels that a share of the pixels falls short of, and that it exceeds, in 0..1."""
    below = np.cumsum(histogram)
    low, high = np.searchsorted(below, [share * below[-1], (1 - share) * below[-1]], side="left")
    return float(low / 255), float(high / 255)
