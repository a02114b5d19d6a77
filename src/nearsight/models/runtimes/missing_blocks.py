"""What a decoder shows where the blocks of a JPEG are missing, by which a damaged file is suspected."""

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.images.jpeg_header import PlainJpeg

# Small and large: a GPU decodes them in different ways.
_SIZES: Final = ((128, 96), (1280, 960))
_COLORS: Final = ("navy", "orange", "olive")
_SHARE_LEFT = 0.6
# Levels between the colors that are shown in several images.
_TOLERANCE = 4

Color = tuple[int, int, int]


def cut_files() -> list[bytes]:
    """Return JPEGs that end early, each with an end marker: a decoder takes them for whole."""
    rng = np.random.default_rng(5)
    files = []
    for size in _SIZES:
        for color in _COLORS:
            base = np.asarray(Image.new("RGB", size, color), np.int16)
            noise = rng.integers(-60, 60, (size[1] // 4, size[0] // 4)).repeat(4, 0).repeat(4, 1)
            pixels = np.clip(base + noise[..., None], 0, 255).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=85)
            data = file.getvalue()
            files.append(data[: int(_SHARE_LEFT * len(data))] + b"\xff\xd9")
    return files


def fill_color(corners: Sequence[NDArray[np.uint8] | None]) -> Color | None:
    """Return the color that a decoder shows for missing blocks, in all files alike; None if there is none.

    Parameters
    ----------
    corners : sequence of ndarray of uint8, shape (rows, columns, 3), or None
        The last pixels of `cut_files`; None for a file that the decoder has refused.
    """
    colors = [corner[-1, -1].astype(np.int16) for corner in corners if corner is not None]
    is_flat = all(not np.ptp(c.reshape(-1, 3), axis=0).any() for c in corners if c is not None)
    if not is_flat or len(colors) < len(corners) or np.ptp(colors, axis=0).max() > _TOLERANCE:
        return None
    red, green, blue = (int(level) for level in np.median(colors, axis=0))
    return red, green, blue


def shows_last_block(corner: NDArray[np.uint8], header: PlainJpeg, fill: Color | None) -> bool:
    """Whether the last block of a JPEG is certainly there.

    Parameters
    ----------
    corner : ndarray of uint8, shape (rows, columns, 3)
        The last pixels of the image as stored.
    header : PlainJpeg
    fill : tuple of int or None
        What the decoder shows for missing blocks; None if that is not known: then any one color is suspect.
    """
    if header.corner_px is None:
        return header.is_progressive
    rows, columns = header.corner_px
    pixels = corner[-rows:, -columns:].reshape(-1, 3)
    if np.ptp(pixels, axis=0).any():
        return True
    return fill is not None and bool(np.abs(pixels[0].astype(np.int16) - fill).max() > 2 * _TOLERANCE)
