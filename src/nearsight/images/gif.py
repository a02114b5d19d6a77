"""GIF: the first frame, without warnings and without memory for the animation."""

import struct

from PIL.GifImagePlugin import GifImageFile

from nearsight.images.strict_decoding import DamagedError, TimedReader

# A first frame that takes more is not passed over to look for a second one: blocks can be of one byte.
_MAX_FRAME_BYTES = 16 << 20
_CUT_OFF = "the GIF is cut off: it ends before its first image"


def open_gif(data: bytes, deadline: float) -> tuple[GifImageFile, bool]:
    """Open the first frame of a GIF without loading it; return it, and whether more frames follow."""
    width, height, control_at, frame_at = _first_frame(data)
    clean = bytearray(data)
    # A frame larger than the screen enlarges the screen, as in Pillow, but without Pillow's size warning.
    struct.pack_into("<HH", clean, 6, min(width, 65535), min(height, 65535))
    if control_at is not None:
        # The disposal method does not change the first frame, but Pillow would allocate memory for it.
        clean[control_at] &= 0b11100011
    return GifImageFile(TimedReader(bytes(clean), deadline)), _has_more_frames(data, frame_at)


def _has_more_frames(data: bytes, frame_at: int) -> bool:
    data = data[frame_at : frame_at + _MAX_FRAME_BYTES]
    try:
        flags = data[9]
        at = _after_blocks(data, 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0))
        while data[at] == 0x21:
            at = _after_blocks(data, at + 2)
        return data[at] == 0x2C
    except IndexError:
        return False


def _after_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += 1 + data[at]
    return at + 1


def _first_frame(data: bytes) -> tuple[int, int, int | None, int]:
    """Return the needed width and height, and the offsets of the control block's flags and of the frame."""
    control_at = None
    try:
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        while data[at] != 0x2C:
            if data[at] == 0x3B:
                raise DamagedError("the GIF holds no image")
            if data[at] != 0x21:  # junk between blocks
                at += 1
                continue
            if data[at + 1] == 0xF9 and data[at + 2]:
                control_at = at + 3
            at = _after_blocks(data, at + 2)
        left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, at + 1)
    except (IndexError, struct.error):
        raise DamagedError(_CUT_OFF) from None
    return max(width, left + frame_width), max(height, top + frame_height), control_at, at
