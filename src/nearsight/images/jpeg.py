"""JPEG: reduced decoding, and detection of files that are cut off.

libjpeg fills missing data with gray, without an error. Pillow detects that a file ends too early, but not if
other bytes follow the cut: an end marker that a tool appended, zeros of a preallocated file, another file. So
the decoder gets a single-scan image *without* its end marker. The compressed data then suffices for every
row, or the decoder asks for more and fails.

Two kinds of damage cannot be detected: changed bytes in the middle that still decode, and missing later scans
of a progressive image that has its end marker. The format has no checksum, and the standard does not require
all scans.
"""

import struct

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from nearsight.images.limits import DRAFT_FACTOR
from nearsight.images.strict_decoding import DamagedError, TimedReader

_BASELINE = (0xC0, 0xC1)
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SCAN = 0xDA
_END = b"\xff\xd9"
# The Huffman decoder prefetches up to 64 bits, so as many must follow a complete image. These are ones (FF is
# followed by 00 in the data). No code consists of ones alone, so each missing code takes 17 of them, and 64
# cannot complete a missing row of blocks.
_PREFETCH = b"\xff\0" * 8
_BLOCK_BYTES = 1 << 20


class Jpeg(JpegImageFile):
    """Pillow's JPEG reader without EXIF parsing, and without replacing a missing end."""

    def load_read(self, read_bytes: int) -> bytes:
        """Return the file's bytes; Pillow's version may append an end marker."""
        if self.fp is None:
            return b""
        return self.fp.read(read_bytes)

    def _read_dpi_from_exif(self) -> None:
        # The resolution is not needed, and Pillow warns of damaged EXIF.
        return


def open_jpeg(data: bytes, deadline: float, min_side_px: int | None) -> tuple[Jpeg, tuple[int, int], int]:
    """Open a JPEG, reduced if that leaves enough pixels.

    Returns
    -------
    image : Jpeg
        Not loaded.
    full_size : tuple of int
        Width and height before the reduction.
    n_pixels : int
        Pixels that decoding keeps in memory. A multi-scan image is kept at full size even if it is reduced.
    """
    reader = TimedReader(data, deadline)
    image = Jpeg(reader)
    start = reader.tell()
    if not image.tile:
        raise DamagedError("the JPEG holds no image data: it is cut off or damaged")
    frame, n_scan_components = _frame_and_scan(data, start)
    end = end_of_scan(data, start)
    if end is None:
        raise DamagedError("the JPEG is cut off: it ends without its end marker")
    if image.mode == "CMYK" and "adobe" not in image.info:
        # Only Adobe inverts CMYK; Pillow assumes it for every file.
        image.tile = [image.tile[0]._replace(args=("CMYK", ""))]

    full_size = image.size
    factor_px = DRAFT_FACTOR * max(1, min_side_px) if min_side_px is not None else 0
    if factor_px and min(image.size) >= 2 * factor_px:
        image.draft(None, (factor_px, factor_px))
    drafted_px = image.size[0] * image.size[1]

    if frame in _BASELINE and n_scan_components == image.layers:
        image.fp = TimedReader(b"".join((memoryview(data)[:end], _PREFETCH)), deadline)
        return image, full_size, drafted_px
    if _END not in data[end:]:
        raise DamagedError("the JPEG is cut off: it ends without its end marker")
    return image, full_size, full_size[0] * full_size[1]


def _frame_and_scan(data: bytes, start: int) -> tuple[int, int]:
    """Return the frame type and the number of components of the first scan; zeros if there are none."""
    position, frame = 2, 0
    while (position := data.find(b"\xff", position)) != -1 and position + 4 <= start:
        marker = data[position + 1]
        if marker == 0xFF or marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == _SCAN:
            return frame, data[position + 4]
        if marker in _FRAMES:
            frame = marker
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return 0, 0


def end_of_scan(data: bytes, start: int) -> int | None:
    """Return the end of the compressed data from `start` on: the offset of the next marker."""
    for offset in range(start, len(data) - 1, _BLOCK_BYTES):
        block = np.frombuffer(data, np.uint8, min(_BLOCK_BYTES + 1, len(data) - offset), offset)
        at = np.flatnonzero(block[:-1] == 0xFF)
        following = block[at + 1]
        # FF 00 is a data byte, FF FF is padding, and FF D0 to D7 are restart points within the data.
        real = at[(following != 0) & (following != 0xFF) & ((following & 0xF8) != 0xD0)]
        if real.size:
            return offset + int(real[0])
    return None
