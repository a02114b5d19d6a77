"""JPEG XL: the first frame.

imagecodecs (libjxl) decodes them; it is imported here only. Its license fits, unlike that of Pillow's plugin.
The decoder does not return the color profile: colors of a wide gamut look paler than they are.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.images.gray_levels import deep_color_white, scaled_to
from nearsight.images.limits import Limits
from nearsight.images.optional_formats import missing
from nearsight.images.strict_decoding import DamagedError, check_pixels

CODESTREAM, CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
# Width by height, for the numbers of ISO/IEC 18181-1, annex A.
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_SIZE_BITS = (9, 13, 18, 30)
_MAX_BOXES = 1000


@dataclass(frozen=True, slots=True)
class JpegXl:
    """The first frame of a JPEG XL, upright, and the facts beside it."""

    image: Image.Image
    exif: bytes | None
    is_animated: bool


def read_jpeg_xl(data: bytes, limits: Limits) -> JpegXl:
    """Decode the first frame."""
    codestream, exif = _boxes(data)
    bits = _Bits(codestream)
    width, height = _size(bits)
    check_pixels(width, height, width * height, limits)
    try:
        from imagecodecs import JpegxlError, jpegxl_decode
    except ImportError:
        raise missing("a JPEG XL") from None
    try:
        pixels = jpegxl_decode(data, index=0, numthreads=1)
    except JpegxlError as error:
        raise DamagedError(f"the JPEG XL is cut off or damaged ({error})") from None
    return JpegXl(Image.fromarray(_pixels(pixels)), exif, _is_animated(bits))


def _pixels(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype.kind == "f":
        return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8) if pixels.ndim == 3 else pixels
    if pixels.dtype == np.uint8 or pixels.ndim == 2:
        return pixels
    n_colors = pixels.shape[2] - (pixels.shape[2] % 2 == 0)
    channels = scaled_to(pixels, 65535)
    channels[..., :n_colors] = scaled_to(
        pixels[..., :n_colors], deep_color_white(np.ascontiguousarray(pixels[..., :n_colors]))
    )
    return channels


def _boxes(data: bytes) -> tuple[bytes, bytes | None]:
    """Return the start of the codestream, and the EXIF block."""
    if data.startswith(CODESTREAM):
        return data[:64], None
    codestream, exif, at = b"", None, 0
    for _ in range(_MAX_BOXES):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        start = at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        end = at + size if size else len(data)
        if len(kind) < 4 or end <= at:
            break
        if kind == b"jxlc" and not codestream:
            codestream = data[start : start + 64]
        elif kind == b"jxlp" and not codestream:
            codestream = data[start + 4 : start + 68]
        elif kind == b"Exif":
            offset = int.from_bytes(data[start : start + 4], "big")
            exif = data[start + 4 + offset : end]
        at = end
    return codestream, exif


class _Bits:
    """Bits of a codestream, the lowest of each byte first."""

    def __init__(self, codestream: bytes) -> None:
        if not codestream.startswith(CODESTREAM):
            raise DamagedError("the JPEG XL is cut off or damaged: it has no image")
        self._bits = int.from_bytes(codestream[2:], "little")

    def read(self, n_bits: int) -> int:
        value = self._bits & ((1 << n_bits) - 1)
        self._bits >>= n_bits
        return value


def _size(bits: _Bits) -> tuple[int, int]:
    is_small = bits.read(1)
    height = _side(bits, is_small=bool(is_small))
    ratio = bits.read(3)
    if ratio:
        across, down = _RATIOS[ratio]
        return height * across // down, height
    return _side(bits, is_small=bool(is_small)), height


def _side(bits: _Bits, *, is_small: bool) -> int:
    return (bits.read(5) + 1) * 8 if is_small else bits.read(_SIZE_BITS[bits.read(2)]) + 1


def _is_animated(bits: _Bits) -> bool:
    if bits.read(1) or not bits.read(1):  # all values are the usual ones; no rarer fields
        return False
    bits.read(3)  # orientation
    if bits.read(1):  # a size to show it at
        _size(bits)
    return not bits.read(1) and bool(bits.read(1))  # a preview, of whatever size, would lie in between
