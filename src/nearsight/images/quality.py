"""What an image lost: measured on its decoded pixels and on its file's header, whatever its size in bytes."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.images.compression import header_compression, moves_within, pixel_compression, sampled_blocks
from nearsight.images.decode import decode, open_encoded
from nearsight.images.formats import identify
from nearsight.images.limits import Limits
from nearsight.images.sharpness import detail_spectrum

Floats = NDArray[np.float32]

_LIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
_DEEP_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})


@dataclass(frozen=True, slots=True)
class ImageQuality:
    """What an image has left of what it shows; compare images of one content only.

    Attributes
    ----------
    width, height : int
        Pixels, upright.
    image_format : str
        Such as "JPEG".
    spectrum : ndarray of shape (32,), float32
        Power of details at 0 to 0.5 cycles a pixel, in gray levels squared: what the tiles of the image hold
        beyond the noise of the flattest.
    noise, coarse_noise : float
        Standard deviation of the noise in the flattest tiles, in gray levels: at high frequencies, and at
        those that compression preserves longest.
    chroma : float
        Color that the lightness does not determine, in levels of chroma: 0 for gray and for sepia.
    tones : float
        Entropy of the lightness, in bits, at most 8.
    compression : float
        The coarsest JPEG compression that the pixels or the header show, as a factor of the standard's table:
        1 is quality 50, 0.2 is quality 90, 0 is none.
    stored_compression : float
        That of the file itself, by its header; less than `compression` if the image was stored again.
    is_lossy : bool
        Whether the file's own format is lossy.
    has_known_loss : bool
        False for a lossy format whose loss the header does not state, such as WebP.
    n_colors : int
        Distinct colors of up to half a million pixels; at most 256 after a palette.
    pixels_id : str
        Hash of the decoded pixels.
    blocks : ndarray of shape (n, 8, 8), uint8
        Gray levels of blocks that are spread evenly over the image.
    has_repeated_pixels : bool
        Whether it was enlarged by repeating rows and columns.
    has_more : bool
        Whether the file holds what the decoded pixels do not show: transparency, or more than 8 bits.
    """

    width: int
    height: int
    image_format: str
    spectrum: Floats
    noise: float
    coarse_noise: float
    chroma: float
    tones: float
    compression: float
    stored_compression: float
    is_lossy: bool
    has_known_loss: bool
    n_colors: int
    pixels_id: str
    blocks: NDArray[np.uint8]
    has_repeated_pixels: bool
    has_more: bool


def measure_quality(data: bytes, limits: Limits | None = None) -> ImageQuality:
    """Measure what an encoded image lost.

    Raises
    ------
    ImageError
        The image cannot be decoded.
    """
    limits = limits or Limits()
    decoded = decode(data, limits=limits)
    image_format, has_more = _format(data, limits)
    pixels = np.asarray(decoded.image)
    # By channels, since a product of matrices would hold all of them as floats.
    red, green, blue = _LIGHTNESS
    gray = pixels[..., 0] * red
    gray += pixels[..., 1] * green
    gray += pixels[..., 2] * blue
    spectrum, noise, coarse_noise = detail_spectrum(gray)
    header = header_compression(data) if image_format == "JPEG" else 0.0
    is_lossy = image_format in ("JPEG", "AVIF", "HEIF", "JPEG 2000") or (
        image_format == "WebP" and b"VP8L" not in data[:4096]
    )
    return ImageQuality(
        decoded.width,
        decoded.height,
        image_format,
        spectrum,
        noise,
        coarse_noise,
        _chroma(decoded.image),
        _entropy(decoded.image),
        max(header, pixel_compression(gray)),
        header,
        is_lossy,
        not is_lossy or header > 0,
        _n_colors(pixels),
        hashlib.sha256(pixels.data).hexdigest(),
        sampled_blocks(gray),
        _has_repeated_columns(gray) and _has_repeated_columns(gray.T),
        has_more,
    )


def _format(data: bytes, limits: Limits) -> tuple[str, bool]:
    """Return the format, and whether the file holds transparency or more than 8 bits."""
    known = identify(data)
    if known is not None and known[0] == "SVG":
        # A drawing has transparency; to open it would be to draw it again, in a process of its own.
        return "SVG", True
    name, opened = open_encoded(data, limits=limits)
    image = opened.image
    has_16_bits = name == "PNG" and data[24:25] == b"\x10"
    return name, has_16_bits or image.mode in _DEEP_MODES or image.has_transparency_data


def _chroma(image: Image.Image) -> float:
    """Return the spread of colors among pixels of one lightness."""
    small = image.resize((128, 128), Image.Resampling.BOX, reducing_gap=2.0)
    pixels = np.asarray(small.convert("RGB"), np.float32).reshape(-1, 3)
    light = pixels @ _LIGHTNESS
    level = (light / 8).astype(int)
    n = np.maximum(np.bincount(level, minlength=32), 1)
    residuals = []
    for channel in (0, 2):
        chroma = 0.6 * (pixels[:, channel] - light)
        # Color that grows with lightness inside a level is tinted gray, too: take the line out.
        slope = _slope(light - _means(light, level, n)[level], chroma - _means(chroma, level, n)[level])
        residual = chroma - _means(chroma, level, n)[level] - slope * (light - _means(light, level, n)[level])
        residuals.append(residual)
    return float(np.sqrt(np.mean(np.square(residuals)) * 2))


def _means(values: NDArray[Any], level: NDArray[Any], n: NDArray[Any]) -> NDArray[Any]:
    means: NDArray[Any] = np.bincount(level, values, minlength=32) / n
    return means


def _slope(x: NDArray[Any], y: NDArray[Any]) -> float:
    variance = float((x * x).sum())
    return float((x * y).sum()) / variance if variance else 0.0


def _entropy(image: Image.Image) -> float:
    n = np.array(image.convert("L").histogram(), np.float64)
    share = n[n > 0] / n.sum()
    return float(-(share * np.log2(share)).sum())


def _n_colors(pixels: NDArray[np.uint8]) -> int:
    rows = pixels.reshape(-1, 3)[:: max(1, pixels.size // 3 // 500_000)].astype(np.uint32)
    return len(np.unique(rows[:, 0] << 16 | rows[:, 1] << 8 | rows[:, 2]))


def _has_repeated_columns(gray: Floats) -> bool:
    change = np.abs(np.diff(gray[:: max(1, gray.shape[0] // 512)], axis=1)).mean(axis=0)
    beside = np.maximum(change[:-2], change[2:])
    is_busy = beside > 1
    return bool(is_busy.any() and (change[1:-1] < 0.2 * beside)[is_busy].mean() > 0.3)


def is_compression_of(result: ImageQuality, source: ImageQuality) -> bool:
    """Return whether an image can be the JPEG compression of another one of the same size."""
    if (result.width, result.height) != (source.width, source.height) or not len(source.blocks):
        return False
    return moves_within(source.blocks, result.blocks, result.compression)
