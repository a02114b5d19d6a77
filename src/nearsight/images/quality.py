"""What an image lost: measured on its decoded pixels and on its file's header, whatever its size in bytes."""

import hashlib
import io
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from nearsight.images.decode import decode
from nearsight.images.formats import identify
from nearsight.images.limits import Limits

Floats = NDArray[np.float32]

_LIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
# Tiles whose spectra are averaged, and their side in pixels.
_MAX_TILES, _TILE_PX = 256, 64
#: Rings of a spectrum, from 0 to half a cycle a pixel.
N_RINGS: Final = _TILE_PX // 2
# Of the tiles, the share that is taken for free of detail: what they hold is noise.
_FLAT_SHARE = 0.1

# The luminance table of ITU-T T.81, annex K, which encoders scale; and its coefficients in zigzag order.
_BASE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
_DEEP_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
# Coefficients whose steps are measured: low frequencies, without the mean.
_MEASURED = [(v, u) for v in range(8) for u in range(8) if 1 <= u + v <= 6]
_STEPS = np.arange(2, 121, dtype=np.float32)
# A step is believed if the coefficients lie this close to its multiples (1: all of them), in so many blocks.
_MIN_COMB, _MIN_VALUES, _MAX_BLOCKS = 0.5, 40, 1024
_MIN_COEFFICIENTS = 5

# Blocks that are kept of an image, to compare with another one's.
_SAMPLED_BLOCKS = 256
# How far compression moves a coefficient, in steps and in gray levels of rounding; what share may exceed it.
_LARGEST_MOVE, _ROUNDING_MOVE, _MOVED_SHARE = 0.55, 1.4, 0.03

_cosines = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(8) + 1) / 16)
_DCT = (_cosines * np.where(np.arange(8) == 0, np.sqrt(1 / 8), 0.5)[:, None]).astype(np.float32)


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
    decoded = decode(data, limits=limits or Limits())
    image_format, has_more = _format(data)
    pixels = np.asarray(decoded.image)
    # By channels, since a product of matrices would hold all of them as floats.
    red, green, blue = _LIGHTNESS
    gray = pixels[..., 0] * red
    gray += pixels[..., 1] * green
    gray += pixels[..., 2] * blue
    spectrum, noise, coarse_noise = _spectrum(gray)
    header = _header_compression(data) if image_format == "JPEG" else 0.0
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
        max(header, _pixel_compression(gray)),
        header,
        is_lossy,
        not is_lossy or header > 0,
        _n_colors(pixels),
        hashlib.sha256(pixels.data).hexdigest(),
        _sampled_blocks(gray),
        _has_repeated_columns(gray) and _has_repeated_columns(gray.T),
        has_more,
    )


def _format(data: bytes) -> tuple[str, bool]:
    """Return the format, and whether the file holds transparency or more than 8 bits."""
    known = identify(data)
    if known is None:
        return "", False
    name, opener = known
    image = opener(data, time.monotonic() + Limits().max_seconds, None, Limits()).image
    has_16_bits = name == "PNG" and data[24:25] == b"\x10"
    return name, has_16_bits or image.mode in _DEEP_MODES or image.has_transparency_data


def _spectrum(gray: Floats) -> tuple[Floats, float, float]:
    """Return the power of details in each ring of frequencies, and the noise at high and at low ones."""
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


def _sampled_blocks(gray: Floats) -> NDArray[np.uint8]:
    """Return blocks of JPEG's grid; of two images of one size, at the same places."""
    n_rows, n_columns = gray.shape[0] // 8, gray.shape[1] // 8
    n = n_rows * n_columns
    at = np.unique(np.linspace(0, n - 1, min(n, _SAMPLED_BLOCKS)).astype(int)) if n else np.empty(0, int)
    y, x = np.divmod(at, max(1, n_columns))
    inside = np.arange(8)
    blocks = gray[(8 * y)[:, None, None] + inside[:, None], (8 * x)[:, None, None] + inside]
    return np.rint(blocks).astype(np.uint8)


def _has_repeated_columns(gray: Floats) -> bool:
    change = np.abs(np.diff(gray[:: max(1, gray.shape[0] // 512)], axis=1)).mean(axis=0)
    beside = np.maximum(change[:-2], change[2:])
    is_busy = beside > 1
    return bool(is_busy.any() and (change[1:-1] < 0.2 * beside)[is_busy].mean() > 0.3)


def is_compression_of(result: ImageQuality, source: ImageQuality) -> bool:
    """Return whether an image can be the JPEG compression of another one of the same size.

    *Method*: compression moves each coefficient by half a step at most. Noise, sharpening, blur, other tones
    and other formats move many by more, so an image that was edited is not the source of its original.
    """
    if (result.width, result.height) != (source.width, source.height) or not len(source.blocks):
        return False
    before, after = (_DCT @ image.blocks.astype(np.float32) @ _DCT.T for image in (source, result))
    largest = _LARGEST_MOVE * result.compression * _BASE + _ROUNDING_MOVE
    is_low = np.add.outer(np.arange(8), np.arange(8)) <= 5
    is_tested = (np.maximum(np.abs(before), np.abs(after)) > largest) & is_low
    is_tested[:, 0, 0] = False  # means agree where both are plain
    moved = np.abs(before - after) > largest
    n_moved, n_tested = int((moved & is_low).sum()), int(is_tested.sum())
    return n_moved <= _MOVED_SHARE * n_tested


def _header_compression(data: bytes) -> float:
    """Return how coarse the luminance table of a JPEG is."""
    tables = JpegImageFile(io.BytesIO(data)).quantization
    if not tables:
        return 0.0
    # Pillow orders a table as the block's rows.
    table = np.array(tables[min(tables)], np.float32).reshape(8, 8)
    return float(np.median([table[at] / _BASE[at] for at in _MEASURED]))


def _pixel_compression(gray: Floats) -> float:
    """Return how coarse the JPEG was that the pixels come from; 0 if there is no trace of one.

    *Method*: coefficients of the 8 × 8 cosine transform lie near the multiples of the step that they were
    rounded to (Fan and de Queiroz 2003, https://doi.org/10.1109/TIP.2002.807361), however often the pixels
    were stored again. The blocks begin where differences between neighboring pixels are largest.
    """
    height, width = gray.shape
    if height < 32 or width < 32:
        return 0.0
    offsets = {(0, 0), (_first_boundary(gray), _first_boundary(gray.T))}
    return max(_comb_scale(gray[dy:, dx:]) for dy, dx in offsets)


def _first_boundary(gray: Floats) -> int:
    """Return the row at which blocks begin, 0 to 7."""
    step = max(1, gray.shape[1] // 1024)
    rows = gray[:4096, ::step]
    # How much a difference exceeds those beside it.
    difference = np.abs(np.diff(rows, axis=0))
    excess = np.maximum(2 * difference[1:-1] - difference[:-2] - difference[2:], 0).mean(axis=1)
    n = len(excess) // 8 * 8
    # excess[i] lies between the rows i + 1 and i + 2.
    return int((excess[:n].reshape(-1, 8).mean(axis=0).argmax() + 2) % 8)


def _comb_scale(gray: Floats) -> float:
    height, width = (length // 8 * 8 for length in gray.shape)
    blocks = gray[:height, :width].reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    spread = blocks.max(axis=(1, 2)) - blocks.min(axis=(1, 2))
    blocks = blocks[spread > 4]
    if len(blocks) > _MAX_BLOCKS:
        blocks = blocks[np.linspace(0, len(blocks) - 1, _MAX_BLOCKS).astype(int)]
    if len(blocks) < _MIN_VALUES:
        return 0.0
    coefficients = _DCT @ (blocks - 128) @ _DCT.T
    scales = []
    for at in _MEASURED:
        step = _step(np.abs(coefficients[:, at[0], at[1]]))
        if step:
            scales.append(step / _BASE[at])
    return float(np.median(scales)) if len(scales) >= _MIN_COEFFICIENTS else 0.0


def _step(values: Floats) -> float:
    """Return the step that values were rounded to; 0 if they were not."""
    large = values > _STEPS[:, None] / 2
    n = large.sum(axis=1)
    waves = np.where(large, np.cos(2 * np.pi * values / _STEPS[:, None]), 0).sum(axis=1) / np.maximum(n, 1)
    combs = np.where(n >= _MIN_VALUES, waves, 0)
    best = combs.max()
    # The divisors of a step fit, too, so the largest one counts.
    return float(_STEPS[np.flatnonzero(combs >= 0.85 * best)[-1]]) if best >= _MIN_COMB else 0.0
