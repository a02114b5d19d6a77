"""Images without what they tell beside their pixels: place, time, camera, names, earlier versions."""

import io
import re
import struct
import zlib
from collections.abc import Iterator

from nearsight.images.decode import decode
from nearsight.images.limits import Limits
from nearsight.images.metadata import read_exif

# Markers that are kept: JFIF, color profiles, and how Adobe stores colors.
_ICC, _ADOBE = b"ICC_PROFILE\0", b"Adobe"
# Among the pixels of a JPEG, 0xFF is followed by 0, or by the number of a restart.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_REMOVED = {b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"caBX"}
_WEBP_KEPT = {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"}
_WEBP_FLAGS = 0b00001100  # EXIF and XMP in the extended header
_JPEG_QUALITY = 92


def without_metadata(data: bytes, *, limits: Limits | None = None) -> tuple[bytes, str]:
    """Return an image without metadata, and its media type.

    The pixels of JPEG, PNG and WebP files stay as they are stored, with their orientation and color profile.
    Every other format becomes a JPEG of the decoded image, which every browser shows.

    Parameters
    ----------
    data : bytes
        The file.
    limits : Limits, optional
        What decoding may cost.

    Raises
    ------
    ImageError
        The image cannot be decoded.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> file, exif = io.BytesIO(), Image.Exif()
    >>> exif[0x0110] = "SpyCam"
    >>> Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif)
    >>> clean, media_type = without_metadata(file.getvalue())
    >>> b"SpyCam" in file.getvalue(), b"SpyCam" in clean, media_type
    (True, False, 'image/jpeg')
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data), "image/jpeg"
        if data.startswith(_PNG):
            return _png(data), "image/png"
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data), "image/webp"
    except (struct.error, IndexError, ValueError):
        pass  # damaged, but perhaps decodable
    file = io.BytesIO()
    image = decode(data, limits=limits or Limits()).image
    image.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue(), "image/jpeg"


def _jpeg(data: bytes) -> bytes:
    parts, orientation = [b"\xff\xd8"], 1
    position = 2
    while True:
        if data[position] != 0xFF:
            raise ValueError("no marker")
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == 0xD9:  # the end: phones put a film or a second image behind it, with metadata of its own
            parts.append(data[position : position + 2])
            break
        (size,) = struct.unpack_from(">H", data, position + 2)
        segment = data[position : position + 2 + size]
        content = segment[4:]
        if marker == 0xE1 and content.startswith(b"Exif\0\0"):
            orientation = read_exif(content).orientation
        is_removed = 0xE1 <= marker <= 0xEF or marker == 0xFE
        is_kept = (marker == 0xE2 and content.startswith(_ICC)) or (
            marker == 0xEE and content.startswith(_ADOBE)
        )
        if is_kept or not is_removed:
            parts.append(segment)
        position += 2 + size
        if marker == 0xDA:  # pixels follow, up to the next marker
            match = _MARKER.search(data, position)
            end = len(data) if match is None else match.start()
            parts.append(data[position:end])
            if match is None:
                break
            position = end
    if orientation != 1:
        block = b"Exif\0\0" + _orientation_block(orientation)
        parts.insert(1, b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block)
    return b"".join(parts)


def _png(data: bytes) -> bytes:
    parts = [_PNG]
    for kind, chunk in _chunks(data, 8, ">I", header_first=False):
        if kind == b"eXIf":
            orientation = read_exif(chunk[8:-4]).orientation
            if orientation != 1:
                parts.append(_png_chunk(b"eXIf", _orientation_block(orientation)))
        elif kind not in _PNG_REMOVED:
            parts.append(chunk)
        if kind == b"IEND":
            break
    return b"".join(parts)


def _webp(data: bytes) -> bytes:
    parts = []
    orientation = 1
    (size,) = struct.unpack_from("<I", data, 4)
    for kind, chunk in _chunks(data[: 8 + size], 12, "<I", header_first=True):
        if kind == b"EXIF":
            orientation = read_exif(chunk[8:]).orientation
        elif kind == b"VP8X":
            parts.append(chunk[:8] + bytes([chunk[8] & ~_WEBP_FLAGS]) + chunk[9:])
        elif kind in _WEBP_KEPT:
            parts.append(chunk)
    if orientation != 1:
        raise ValueError("its orientation would be lost")
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _chunks(
    data: bytes, position: int, size_format: str, *, header_first: bool
) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the bytes of each chunk: of RIFF if the kind comes first, else of PNG."""
    while position + 8 <= len(data):
        (size,) = struct.unpack_from(size_format, data, position + (4 if header_first else 0))
        kind = data[position : position + 4] if header_first else data[position + 4 : position + 8]
        whole = 8 + size + (size % 2 if header_first else 4)
        if position + whole > len(data):
            raise ValueError("cut off")
        yield kind, data[position : position + whole]
        position += whole


def _orientation_block(orientation: int) -> bytes:
    """Return an EXIF block that states the orientation, and nothing else."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
