"""Gray images of more than 8 bits to 8 bits: which value is black, and which is white.

Containers are deeper than what is in them. A camera's 12 bits come in 16; a microscope uses 500 of 65,535
levels; a tomograph's values are negative; an elevation model is in meters. Scaled by the container, most of
them are black. Photographs of 16 bits are scaled by 65,535, whatever is in them.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.images.strict_decoding import DecodingError

SCALED: Final = (
    "brightness is scaled to the values in the image, since their own range is unknown or too wide"
)

_16_TO_8_BITS = ((np.arange(65536) + 128) // 257).astype(np.uint8)
# White of content of 8, 10 and 12 bits. An image of 16 bits that stays below a sixteenth of its range is one
# of those: a photograph that dark shows nothing.
_SMALLER_WHITES = (255, 1023, 4095)
# Of 256 levels, fewer between the darkest and the brightest thousandth are too few to see what is there. More
# are asked of a white that is a guess: a smaller one may be right.
_MIN_LEVELS, _MIN_LEVELS_OF_GUESS = 16, 32
_PERCENTILES = (0.1, 99.9)
_SAMPLE = 1_000_000

Window = tuple[float, float]


@dataclass(frozen=True, slots=True)
class GrayScale:
    """What a file says about the values of a gray image of more than 8 bits.

    Attributes
    ----------
    white : int or None
        White of the container. None takes values up to 255 as 8 bits and values up to 65,535 as 16 bits.
    inverted : bool
        Whether 0 is white.
    window : tuple of float or None
        The values of black and white that the file states for its content.
    no_data : float or None
        The value of missing pixels, which become transparent.
    dtype : str or None
        Type of the stored values, where Pillow's mode has another sign: "int8" or "uint32".
    """

    white: int | None = None
    inverted: bool = False
    window: Window | None = None
    no_data: float | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Gray8:
    """A gray image of 8 bits; `alpha` is 0 where there is no value, `note` says what was decided."""

    image: Image.Image
    alpha: Image.Image | None
    note: str | None


def to_8_bits(image: Image.Image | NDArray[Any], scale: GrayScale) -> Gray8:
    """Convert a gray image of integers or floating-point numbers, or an array of them, in color or not.

    *Method*: the values of black and white are the first of these that leave something to see: the window
    that the file states; 0 and the smallest usual white (8, 10, 12 or 16 bits; 1 or 255 for floating-point
    numbers) that holds all values but a thousandth; the darkest and the brightest thousandth.

    Raises
    ------
    DecodingError
        No value is finite, or all values are the same and outside the known scales.
    """
    values = np.asarray(image)
    if scale.dtype is not None:
        values = values.view(scale.dtype)
    info = image.info.get("transparency") if isinstance(image, Image.Image) else None
    transparent = info if isinstance(info, int) else None
    valid = _valid(values, [v for v in (scale.no_data, transparent) if v is not None])
    present = values if valid is None else values[valid]
    if not present.size:
        raise DecodingError("no pixel holds a finite value, so nothing is left to see")
    window, note = _window(present, scale)
    eight = _scaled(values if valid is None else np.where(valid, values, present[0]), window)
    alpha = None
    if valid is not None:
        seen = valid if valid.ndim == 2 else valid.all(axis=2)
        alpha = Image.fromarray(np.where(seen, 255, 0).astype(np.uint8))
    return Gray8(Image.fromarray(255 - eight if scale.inverted else eight), alpha, note)


def deep_color_white(values: NDArray[np.uint16]) -> int:
    """Return the white of a color image of 16 bits: 65,535, or a smaller one that holds its content."""
    return _smaller_white(_sample(values)) if values.min() < values.max() else 65535


def scaled_to(values: NDArray[Any], white: int) -> NDArray[np.uint8]:
    """Return integers of 0 to `white` as 8 bits; larger ones become white."""
    return _scaled(values, (0, white))


def _valid(values: NDArray[Any], missing: list[float]) -> NDArray[np.bool_] | None:
    """Return where there are values; None if there are everywhere."""
    is_float = values.dtype.kind == "f"
    if not missing and not is_float:
        return None
    valid = np.isfinite(values) if is_float else np.ones(values.shape, bool)
    for value in missing:
        valid &= values != value
    return None if valid.all() else valid


def _window(values: NDArray[Any], scale: GrayScale) -> tuple[Window, str | None]:
    low, high = float(values.min()), float(values.max())
    usual = _usual_window(values, scale.white, low, high)
    if low == high:
        if usual is None:
            raise DecodingError(
                f"gray values from {low:g} to {high:g} have no known scale; convert the image to 8 or 16 bits"
            )
        return usual, None
    sample = _sample(values)
    dark, bright = (float(v) for v in np.percentile(sample, _PERCENTILES))
    if dark == bright:  # something small on a uniform ground
        dark, bright = low, high
    for window in (scale.window, usual):
        is_guess = window is usual and window is not None and window[1] in _SMALLER_WHITES
        if window is not None and _shows(
            window, dark, bright, _MIN_LEVELS_OF_GUESS if is_guess else _MIN_LEVELS
        ):
            return window, None
    # 8 bits in a deeper container are as dark as in 8 bits; of a blank page, only noise would be seen.
    is_blank = values.dtype.kind != "f" and bright - dark < _MIN_LEVELS
    is_8_bits = values.dtype.kind != "f" and usual is not None and usual[1] <= 255
    if usual is not None and (is_8_bits or is_blank):
        return usual, None
    return (dark, bright), SCALED


def _usual_window(values: NDArray[Any], white: int | None, low: float, high: float) -> Window | None:
    if values.dtype.kind == "f":
        return None if low < 0 or high > 255 else (0, 1 if high <= 1 else 255)
    if values.dtype == np.int8:
        return (-128, 127) if low < 0 else (0, 127)
    if low < 0 or high > 65535:
        return None
    if white is None:
        white = 255 if high <= 255 else 65535
    if white == 65535 and low < high:
        white = _smaller_white(_sample(values))
    return 0, white


def _smaller_white(sample: NDArray[Any]) -> int:
    bright = np.percentile(sample, _PERCENTILES[1])
    return next((white for white in _SMALLER_WHITES if bright <= white), 65535)


def _shows(window: Window, dark: float, bright: float, min_levels: int) -> bool:
    """Whether content is neither cut off by a window nor reduced to a few of its levels."""
    if not np.isfinite(window).all() or window[0] >= window[1]:
        return False
    seen = np.clip([dark, bright], *window)
    return bool((seen[1] - seen[0]) * 255 >= min_levels * (window[1] - window[0]))


def _sample(values: NDArray[Any]) -> NDArray[Any]:
    # An odd step meets every column of an image whose width is a power of two.
    return values.reshape(-1)[:: values.size // _SAMPLE | 1]


def _scaled(values: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    low, high = window
    eight: NDArray[Any]
    if values.dtype.kind == "f":
        eight = np.rint((np.clip(values, low, high) - low) * (255 / (high - low)))
    elif (low, high) == (0, 65535):
        eight = _16_TO_8_BITS[np.minimum(values, 65535)]
    elif (low, high) == (0, 255):
        eight = np.minimum(values, 255)
    elif low == 0 and float(high).is_integer() and high < 65535:
        white = int(high)
        eight = np.clip(values, 0, white).astype(np.uint32) * 510 // white + 1 >> 1
    else:
        eight = np.rint((np.clip(values.astype(np.float64), low, high) - low) * (255 / (high - low)))
    return eight.astype(np.uint8)
