"""PNG: every checksum is verified, and only the chunks of the image are decoded.

Pillow verifies the checksums of the image data only in `verify()`, after which the file cannot be decoded,
and a flipped bit often decodes to a wrong image. Chunks of text, animation and metadata can make Pillow warn
or fail. So the chunks are walked here, all checksums are verified, and Pillow gets a file of the chunks of
the image alone.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from nearsight.images.metadata import Exif, read_exif
from nearsight.images.strict_decoding import DamagedError, TimedReader

_IMAGE = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_MAX_METADATA_BYTES = 16 << 20
_GRAY = 0
_GRAY_ALPHA = 4
# How the low bytes of a color type are read: those that are the high ones in the other byte order.
_LOW_BYTES = {2: ("RGB", "RGB;16L"), _GRAY_ALPHA: ("RGBA", "RGBA"), 6: ("RGBA", "RGBA;16L")}


@dataclass(slots=True)
class PngFacts:
    """What a PNG says beside its pixels."""

    exif: Exif
    icc: bytes | None
    has_more_frames: bool
    # Decodes the low bytes of a color image of 16 bits, of which Pillow keeps the high ones.
    low_bytes: Callable[[], Image.Image] | None


@dataclass(slots=True)
class _Chunks:
    image: list[memoryview]
    n_frames: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None


def open_png(data: bytes, deadline: float) -> tuple[PngImageFile, PngFacts]:
    """Open a PNG; return the image, not loaded, and the facts beside it."""
    chunks = _walk(data)
    image = PngImageFile(TimedReader(b"".join(chunks.image), deadline))
    bit_depth, color_type, interlace = data[24], data[25], data[28]
    _scale_transparent_value(image, bit_depth=bit_depth, color_type=color_type)
    low_bytes = None
    if bit_depth == 16 and color_type in _LOW_BYTES:
        low_bytes = partial(_low_bytes, chunks.image, color_type, image.size, interlace)
    return image, PngFacts(read_exif(chunks.exif, chunks.xmp), chunks.icc, chunks.n_frames > 1, low_bytes)


def _low_bytes(
    chunks: list[memoryview], color_type: int, size: tuple[int, int], interlace: int
) -> Image.Image:
    packed = b"".join(chunk[8:-4] for chunk in chunks if bytes(chunk[4:8]) == b"IDAT")
    mode, raw_mode = _LOW_BYTES[color_type]
    low = Image.frombytes(mode, size, packed, "zip", raw_mode, interlace)
    if color_type != _GRAY_ALPHA:
        return low
    # Gray with transparency was read as four channels: the high and the low byte of each.
    gray, alpha = low.getchannel("G"), low.getchannel("A")
    return Image.merge("RGBA", (gray, gray, gray, alpha))


def _walk(data: bytes) -> _Chunks:
    view = memoryview(data)
    chunks = _Chunks([view[:8]])
    position, kind = 8, b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise DamagedError("the PNG is cut off: it ends without its end chunk")
        length, kind = struct.unpack_from(">L4s", data, position)
        end = position + 12 + length
        name = kind.decode("ascii", "replace")
        if end > len(data):
            raise DamagedError(f"the PNG is cut off inside its chunk {name!r}")
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise DamagedError(f"the PNG is damaged: wrong checksum of its chunk {name!r}")
        if kind in _IMAGE:
            chunks.image.append(view[position:end])
        elif length <= _MAX_METADATA_BYTES:
            _note(chunks, kind, view[position + 8 : end - 4])
        position = end
    return chunks


def _note(chunks: _Chunks, kind: bytes, content: memoryview) -> None:
    """Store color profile and orientation of a metadata chunk; damaged ones are ignored."""
    if kind == b"acTL" and len(content) >= 4:
        chunks.n_frames = int.from_bytes(content[:4], "big")
    elif kind == b"iCCP":
        name, _, profile = content.tobytes().partition(b"\0")
        if name and profile[:1] == b"\0":
            chunks.icc = _inflate(profile[1:])
    elif kind == b"eXIf":
        chunks.exif = content.tobytes()
    elif kind in _TEXT:
        keyword, _, text = content.tobytes().partition(b"\0")
        if keyword == b"XML:com.adobe.xmp":
            chunks.xmp = text
        elif keyword == b"Raw profile type exif" and chunks.exif is None:
            # ImageMagick's format, older than the eXIf chunk: a name, a length, then lines of hex digits.
            plain = _inflate(text[1:]) if kind == b"zTXt" else text
            chunks.exif = _unhex(b"".join((plain or b"").split(b"\n")[3:]))


def _inflate(packed: bytes) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(packed, _MAX_METADATA_BYTES)
    except zlib.error:
        return None


def _unhex(digits: bytes) -> bytes | None:
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return None


def _scale_transparent_value(image: PngImageFile, *, bit_depth: int, color_type: int) -> None:
    # The transparent color has the file's depth, while Pillow returns 8 bits (except for gray of 16 bits).
    value = image.info.get("transparency")
    if isinstance(value, tuple) and bit_depth == 16:
        image.info["transparency"] = tuple(v >> 8 for v in value)
    elif isinstance(value, int) and color_type == _GRAY and bit_depth in (2, 4):
        image.info["transparency"] = min(255, value * (255 // (2**bit_depth - 1)))
