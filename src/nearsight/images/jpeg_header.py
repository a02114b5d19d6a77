"""The header of a JPEG, read without a decoder: which files every decoder shows alike."""

import struct
from dataclasses import dataclass
from typing import Final

from nearsight.images.color import changes_colors
from nearsight.images.jpeg import end_of_scan
from nearsight.images.limits import Limits
from nearsight.images.metadata import NO_EXIF, Exif, read_exif

_BASELINE, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _END = 0xDA, b"\xff\xd9"
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
# Sampling factors of the first of three components; the others have one sample in both directions.
_SAMPLINGS = ((1, 1), (2, 1), (2, 2))
_BLOCK_PX = 8
_MAX_PIXELS: Final = 50_000_000
# The border between two blocks is smoothed, so the corner that is examined keeps away from it.
_CORNER_PX, _BORDER_PX = 4, 2
_EXIF, _XMP, _ICC, _ADOBE = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"Adobe"
_DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class PlainJpeg:
    """A JPEG in 8 bits, gray or YCbCr, in sRGB, whose header is whole.

    Attributes
    ----------
    width, height : int
        In pixels, as stored: before the image is turned upright.
    exif : Exif
        What the EXIF block says; the orientation is in it.
    corner_px : tuple of int or None
        Rows and columns at the bottom right in which the last block alone shows: they are of one color if
        that block is missing. None if it shows too little, or if the file is progressive, of which no
        decoder finds missing blocks.
    is_progressive : bool
    """

    width: int
    height: int
    exif: Exif
    corner_px: tuple[int, int] | None
    is_progressive: bool

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the upright image."""
        if self.exif.orientation >= 5:
            return self.height, self.width
        return self.width, self.height


@dataclass(slots=True)
class _Segments:
    frame: tuple[int, bytes] | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    icc: bytes | None = None
    adobe: int | None = None
    has_jfif: bool = False


def plain_jpeg(data: bytes, limits: Limits = _DEFAULT_LIMITS) -> PlainJpeg | None:
    """Return the header of a JPEG that any decoder shows alike.

    Parameters
    ----------
    data : bytes
        An encoded image.
    limits : Limits
        Of pixels and bytes.

    Returns
    -------
    PlainJpeg or None
        None if the data is something else, is cut off or damaged, exceeds a limit, or needs more than pixels:
        a color profile other than sRGB, CMYK, another depth, an unusual layout. `decode` says which.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (640, 480)).save(file, "JPEG")
    >>> header = plain_jpeg(file.getvalue())
    >>> header.width, header.height, header.corner_px
    (640, 480, (4, 4))
    >>> plain_jpeg(file.getvalue()[:-100]), plain_jpeg(b"Dear diary")
    (None, None)
    """
    if not data.startswith(b"\xff\xd8\xff") or len(data) > limits.max_bytes:
        return None
    try:
        return _read(data, limits)
    except (struct.error, IndexError):
        return None


def _read(data: bytes, limits: Limits) -> PlainJpeg | None:
    segments = _Segments()
    start = _segments(data, segments)
    if start is None or segments.frame is None:
        return None
    marker, frame = segments.frame
    precision, height, width, n_components = struct.unpack_from(">BHHB", frame)
    if len(frame) < 6 + 3 * n_components:
        return None
    components = [tuple(frame[6 + 3 * i : 8 + 3 * i]) for i in range(n_components)]
    sampling = _sampling(components, segments)
    n_pixels = width * height
    if precision != 8 or not n_pixels or n_pixels > min(limits.max_pixels, _MAX_PIXELS) or sampling is None:
        return None
    if segments.icc is not None and (n_components == 1 or changes_colors(segments.icc, "RGB")):
        return None
    # The scan's own header says how many components it has.
    length, n_in_scan = struct.unpack_from(">HB", data, start)
    end = end_of_scan(data, start + length)
    is_progressive = marker == _PROGRESSIVE
    if end is None or (_END not in data[end:] if is_progressive else n_in_scan != n_components):
        return None
    exif = NO_EXIF
    if segments.exif is not None or segments.xmp is not None:
        exif = read_exif(segments.exif, segments.xmp)
    corner = None if is_progressive else _corner(width, height, sampling)
    return PlainJpeg(width, height, exif, corner, is_progressive)


def _segments(data: bytes, segments: _Segments) -> int | None:
    """Read the segments before the first scan; return where the scan's header begins, None if it is odd."""
    position = 2
    while True:
        while data[position] == 0xFF and data[position + 1] == 0xFF:
            position += 1
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        position += 2
        if marker in _ALONE:
            continue
        if marker == _SCAN:
            return position
        [length] = struct.unpack_from(">H", data, position)
        content = data[position + 2 : position + length]
        if length < 2 or not _take(marker, content, segments):
            return None
        position += length


def _take(marker: int, content: bytes, segments: _Segments) -> bool:
    """Keep what a segment says; return whether it may be there."""
    if marker in _BASELINE or marker == _PROGRESSIVE:
        is_first = segments.frame is None
        segments.frame = marker, content
        return is_first
    if marker == 0xE0:
        segments.has_jfif = segments.has_jfif or content.startswith(b"JFIF")
    elif marker == 0xE1 and content.startswith(_EXIF):
        is_first = segments.exif is None
        segments.exif = content
        return is_first
    elif marker == 0xE1 and content.startswith(_XMP):
        segments.xmp = content[len(_XMP) :]
    elif marker == 0xE2 and content.startswith(_ICC):
        is_first = segments.icc is None
        segments.icc = content[len(_ICC) + 2 :]
        return is_first and content[len(_ICC) : len(_ICC) + 2] == b"\1\1"
    elif marker == 0xEE and content.startswith(_ADOBE):
        segments.adobe = content[11]
    return marker not in _OTHER_FRAMES


def _sampling(components: list[tuple[int, ...]], segments: _Segments) -> tuple[int, int] | None:
    """Return the sampling factors of the first component; None if decoders may read colors differently."""
    factors = [(sampling >> 4, sampling & 15) for _, sampling in components]
    if len(components) == 1:
        return (1, 1) if factors == [(1, 1)] else None
    if len(components) != 3 or factors[0] not in _SAMPLINGS or factors[1:] != [(1, 1)] * 2:
        return None
    numbers = [number for number, _ in components]
    if segments.has_jfif or segments.adobe == 1 or (segments.adobe is None and numbers == [1, 2, 3]):
        return factors[0]
    return None


def _corner(width: int, height: int, sampling: tuple[int, int]) -> tuple[int, int] | None:
    columns, rows = (
        (side - 1) % (_BLOCK_PX * factor) + 1 - _BORDER_PX
        for side, factor in zip((width, height), sampling, strict=True)
    )
    return (min(rows, _CORNER_PX), min(columns, _CORNER_PX)) if min(rows, columns) >= 2 else None
