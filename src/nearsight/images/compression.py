"""How coarsely an image was compressed as JPEG: by its header, and by the traces in its pixels."""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from nearsight.images.in_memory import InMemoryImage

Floats = NDArray[np.float32]
Blocks = NDArray[np.uint8]

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
_SUM_AT_50 = float(_BASE.sum())
#: Quality of what is no JPEG.
LOSSLESS: Final = 100
# Coefficients whose steps are measured: low frequencies, without the mean.
_MEASURED = [(v, u) for v in range(8) for u in range(8) if 1 <= u + v <= 6]
_STEPS = np.arange(2, 121, dtype=np.float32)
# A step is believed if the coefficients lie this close to its multiples (1: all of them), in so many blocks.
_MIN_COMB, _MIN_VALUES, _MAX_BLOCKS = 0.5, 40, 1024
_MIN_COEFFICIENTS = 5

# How far compression moves a coefficient, in steps and in gray levels of rounding; what share may exceed it.
_LARGEST_MOVE, _ROUNDING_MOVE, _MOVED_SHARE = 0.55, 1.4, 0.03

# Blocks that are sampled of an image, to compare with another one's.
_SAMPLED_BLOCKS = 256
_cosines = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(8) + 1) / 16)
_DCT = (_cosines * np.where(np.arange(8) == 0, np.sqrt(1 / 8), 0.5)[:, None]).astype(np.float32)


def moves_within(before: Blocks, after: Blocks, compression: float) -> bool:
    """Return whether compression explains how blocks of an image changed.

    *Method*: compression moves each coefficient by half a step at most. Noise, sharpening, blur, other tones
    and other formats move many by more, so an image that was edited is not the source of its original.

    Parameters
    ----------
    before, after : ndarray of shape (n, 8, 8), uint8
        As `sampled_blocks` returns them.
    compression : float
        Of the image after, as a factor of the standard's table.
    """
    from_, to = (_DCT @ blocks.astype(np.float32) @ _DCT.T for blocks in (before, after))
    largest = _LARGEST_MOVE * compression * _BASE + _ROUNDING_MOVE
    is_low = np.add.outer(np.arange(8), np.arange(8)) <= 5
    is_tested = (np.maximum(np.abs(from_), np.abs(to)) > largest) & is_low
    is_tested[:, 0, 0] = False  # means agree where both are plain
    moved = np.abs(from_ - to) > largest
    n_moved, n_tested = int((moved & is_low).sum()), int(is_tested.sum())
    return n_moved <= _MOVED_SHARE * n_tested


def unexplained_energy(before: Floats, after: Floats, compression: float) -> tuple[Floats, Floats]:
    """Return by how much blocks differ beyond what compression explains, and their structure.

    Parameters
    ----------
    before, after : ndarray of shape (height, width), float32
        Gray levels; blocks begin in the corner, and what is no whole block is left out.
    compression : float
        Of the image after, as a factor of the standard's table.

    Returns
    -------
    difference, structure : ndarray of shape (n_blocks,), float32
        Energy a pixel, in gray levels squared: of the coefficients' differences beyond half a step and the
        rounding, and of the coefficients themselves, without the lowest.
    """
    from_, to = (_DCT @ _blocks(gray) @ _DCT.T for gray in (before, after))
    excess = np.maximum(np.abs(from_ - to) - 0.5 * compression * _BASE - _ROUNDING_MOVE, 0)
    excess[:, 0, 0] = 0
    is_detail = np.add.outer(np.arange(8), np.arange(8)) >= 2
    return (excess**2).mean(axis=(1, 2)), (from_**2 * is_detail).mean(axis=(1, 2))


def _blocks(gray: Floats) -> Floats:
    height, width = (length // 8 * 8 for length in gray.shape)
    blocks: Floats = gray[:height, :width].reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2)
    return blocks.reshape(-1, 8, 8)


def header_compression(data: bytes) -> float:
    """Return how coarse the luminance table of a JPEG is."""
    tables = JpegImageFile(io.BytesIO(data)).quantization
    if not tables:
        return 0.0
    # Pillow orders a table as the block's rows.
    table = np.array(tables[min(tables)], np.float32).reshape(8, 8)
    return float(np.median([table[at] / _BASE[at] for at in _MEASURED]))


def pixel_compression(gray: Floats) -> float:
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
    blocks = _blocks(gray)
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


def sampled_blocks(gray: Floats) -> Blocks:
    """Return blocks of JPEG's grid; of two images of one size, at the same places."""
    n_rows, n_columns = gray.shape[0] // 8, gray.shape[1] // 8
    n = n_rows * n_columns
    at = np.unique(np.linspace(0, n - 1, min(n, _SAMPLED_BLOCKS)).astype(int)) if n else np.empty(0, int)
    y, x = np.divmod(at, max(1, n_columns))
    inside = np.arange(8)
    blocks = gray[(8 * y)[:, None, None] + inside[:, None], (8 * x)[:, None, None] + inside]
    return np.rint(blocks).astype(np.uint8)


def jpeg_quality(data: bytes | InMemoryImage) -> int:
    """Estimate the quality of a JPEG by its quantization table; 100 for other formats.

    *Method*: the rule of libjpeg, backwards: the table of a quality is that of 50 times a factor. Tables of
    other encoders get the quality of the libjpeg table with the same sum.

    Parameters
    ----------
    data : bytes or InMemoryImage
        The content of a file.
    """
    if isinstance(data, InMemoryImage) or not data.startswith(b"\xff\xd8"):
        return LOSSLESS
    try:
        with Image.open(io.BytesIO(data)) as image:
            tables = getattr(image, "quantization", {})
    # The image is decoded elsewhere, and failures are reported there.
    except (OSError, SyntaxError, ValueError):
        return LOSSLESS
    if not tables:
        return LOSSLESS
    percent = 100 * float(sum(tables[min(tables)])) / _SUM_AT_50
    quality = (200 - percent) / 2 if percent <= 100 else 5000 / percent
    return int(min(max(round(quality), 1), LOSSLESS))
