"""Turns an image into the array that a network takes, by the rules of its `ModelSpec`."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.models.spec import ModelSpec

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
# The Lanczos filter reaches three output pixels.
_WIDEST_FILTER_PX = 3


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The preparation of a model whose network takes pixels; see `models.Preparation`.

    Parameters
    ----------
    spec : ModelSpec
        The rules.
    decode_px : int or None
        Minimum length of a decoded image's shorter side in pixels; None for full size.
    """

    spec: ModelSpec
    decode_px: int | None

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one upright RGB image; see `resize_and_crop`."""
        return resize_and_crop(image, self.spec)


def preprocess(image: Image.Image, spec: ModelSpec) -> NDArray[np.float32]:
    """Resize, crop and normalize one image.

    Parameters
    ----------
    image : PIL.Image.Image
        Upright RGB, of any size from 1×1.
    spec : ModelSpec
        The rules.

    Returns
    -------
    ndarray of float32, shape (3, H, W)
        H and W are `spec.input_px`; values are ``(v / 255 - mean) / std``.
    """
    return normalize(resize_and_crop(image, spec), spec)


def resize_and_crop(image: Image.Image, spec: ModelSpec) -> NDArray[np.uint8]:
    """Resize and crop an image to the network's input size.

    *Method*: torchvision's ``Resize`` and ``CenterCrop`` on a Pillow image, or those of transformers where
    `spec.crop_rounding` is ``down``. Only the cropped region is computed; the result is the same to one level
    of 255. Columns are always resized before rows: Pillow 13 chooses the order by the image's shape, which
    moves sharp edges by up to 30 levels, so that vectors would depend on the version of Pillow.

    Parameters
    ----------
    image : PIL.Image.Image
        Upright RGB or gray, of any size from 1×1.
    spec : ModelSpec
        The rules.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3), or (H, W) for gray
        H and W are `spec.input_px`, or at most those for ``shrink``. May be read-only.
    """
    if spec.resize_mode == "shrink":
        return _shrink(image, spec)
    height, width = spec.input_px
    (left, right), (top, bottom) = crop_region(image.size, spec)
    x0, x1 = source_span(left, right, width, image.width)
    y0, y1 = source_span(top, bottom, height, image.height)
    if (x1 - x0, y1 - y0) != image.size:
        image = image.crop((x0, y0, x1, y1))
    resample = _FILTERS[spec.interpolation]
    image = image.resize((width, image.height), resample, (left - x0, 0, right - x0, image.height))
    image = image.resize((width, height), resample, (0, top - y0, width, bottom - y0))
    return np.asarray(image)


def normalize(
    pixels: NDArray[np.uint8], spec: ModelSpec, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Scale pixels to what the network was trained on, channels first.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W, 3)
        RGB.
    spec : ModelSpec
        Gives mean and standard deviation per channel.
    out : ndarray of float32, shape (3, H, W), optional
        Array to write to. New memory costs twice the time of the arithmetic, so loops reuse one array.

    Returns
    -------
    ndarray of float32, shape (3, H, W)
        `out`, or a new array.
    """
    scale, offset = _scale_and_offset(tuple(spec.mean), tuple(spec.std))
    if out is None:
        out = np.empty((3, *pixels.shape[:2]), np.float32)
    np.multiply(pixels.transpose(2, 0, 1), scale, out=out)
    out -= offset
    return out


@lru_cache(maxsize=16)
def _scale_and_offset(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    means, deviations = (np.asarray(values, np.float64).reshape(3, 1, 1) for values in (mean, std))
    return (1 / (255 * deviations)).astype(np.float32), (means / deviations).astype(np.float32)


def _shrink(image: Image.Image, spec: ModelSpec) -> NDArray[np.uint8]:
    factor = min(1, spec.input_px[0] / image.height, spec.input_px[1] / image.width)
    width, height = (max(1, round(factor * side)) for side in image.size)
    resample = _FILTERS[spec.interpolation]
    # Columns first, for the reason given in `resize_and_crop`.
    return np.asarray(image.resize((width, image.height), resample).resize((width, height), resample))


def crop_region(size: tuple[int, int], spec: ModelSpec) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the columns and rows of the source that the crop keeps."""
    width, height = size
    if spec.resize_mode == "squash":
        return (0, width), (0, height)
    # Order of operations and truncation are those of torchvision and transformers.
    long_px = int(spec.resize_px * max(size) / min(size))
    if spec.resize_mode == "squash-crop":
        long_px = spec.resize_px
    resized = (spec.resize_px, long_px) if width <= height else (long_px, spec.resize_px)
    crop_height, crop_width = spec.input_px
    down = spec.crop_rounding == "down"
    return _span(width, resized[0], crop_width, down), _span(height, resized[1], crop_height, down)


def _span(source_px: int, resized_px: int, crop_px: int, down: bool) -> tuple[float, float]:
    start = (resized_px - crop_px) // 2 if down else round((resized_px - crop_px) / 2)
    # Multiply first, so that the edge of the last pixel never lies beyond the image.
    return start * source_px / resized_px, (start + crop_px) * source_px / resized_px


def source_span(start: float, stop: float, out_px: int, source_px: int) -> tuple[int, int]:
    """Return the range of source pixels that the filter needs to resize `start`..`stop` to `out_px`."""
    reach = _WIDEST_FILTER_PX * max((stop - start) / out_px, 1) + 1
    return max(math.floor(start - reach), 0), min(math.ceil(stop + reach), source_px)
