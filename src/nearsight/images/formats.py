"""Formats of images, recognized by their first bytes, and how each is opened.

The list is closed on purpose: formats that start other programs (EPS) or have no signature (TGA) are left
out. Images are opened with the format's own reader, not by `PIL.Image.open`, whose size limit is a
process-wide setting that warns and does not know about reduced JPEGs.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.WebPImagePlugin import WebPImageFile

from nearsight.images import jpeg_xl, photoshop
from nearsight.images.dicom import is_dicom, read_dicom
from nearsight.images.gif import open_gif
from nearsight.images.gray_levels import GrayScale, to_8_bits
from nearsight.images.jpeg import open_jpeg
from nearsight.images.jpeg_xl import read_jpeg_xl
from nearsight.images.limits import Limits
from nearsight.images.metadata import NO_EXIF, Exif, read_exif
from nearsight.images.photoshop import read_photoshop
from nearsight.images.png import open_png
from nearsight.images.raw import is_raw, read_raw
from nearsight.images.scientific_tiff import read_values
from nearsight.images.strict_decoding import (
    DamagedError,
    DecodingError,
    TimedReader,
    check_pixels,
    make_strict,
)
from nearsight.images.svg import is_svg, read_svg
from nearsight.images.tiff import UnknownPixelsError, open_tiff


@dataclass(slots=True)
class Opened:
    """An image whose header was read, and its pixels not yet.

    Attributes
    ----------
    image : PIL.Image.Image
        Not loaded; a JPEG may be reduced.
    width, height : int
        Full size in pixels, before orientation.
    n_pixels : int
        Pixels that decoding keeps in memory at once.
    orientation : int
        EXIF orientation to apply, 1 to 8.
    icc : bytes or None
        Color profile.
    scale : GrayScale or None
        What the file says about the values of a gray image of more than 8 bits.
    low_bytes : callable or None
        Returns the low bytes of a color image of 16 bits, of which `image` has the high ones.
    exif : Exif
        What the EXIF block says.
    has_more_frames : bool
        Whether this is the first of several frames or pages.
    notes : tuple of str
        What the reader has decided so that something is left to see.
    """

    image: Image.Image
    width: int
    height: int
    n_pixels: int
    orientation: int = 1
    icc: bytes | None = None
    scale: GrayScale | None = None
    low_bytes: Callable[[], Image.Image] | None = None
    exif: Exif = NO_EXIF
    has_more_frames: bool = False
    notes: tuple[str, ...] = ()


_16_BITS = GrayScale(white=65535)
# The header of a color image of 16 bits: its highest value needs two bytes, and is at least 61,440.
_PPM_WHITE = re.compile(rb"P[36](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+6[1-5]\d{3}\s")

Opener = Callable[[bytes, float, int | None, Limits], Opened]


def identify(data: bytes) -> tuple[str, Opener] | None:
    """Return the format's name and its opener; None if the data is not an image in a known format."""
    head = data[:16]
    if is_raw(data):
        return "raw photograph", _raw
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG", _jpeg
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", _png
    if head[4:8] == b"ftyp":
        return _identify_brands(data)
    for prefix, name, opener in _SIGNATURES:
        if head.startswith(prefix) and (name != "WebP" or head[8:12] == b"WEBP"):
            return name, opener
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n#":
        return "PPM", _ppm
    if is_dicom(data):
        return "DICOM", _dicom
    return ("SVG", _svg) if is_svg(data) else None


def _identify_brands(data: bytes) -> tuple[str, Opener] | None:
    size = min(int.from_bytes(data[:4], "big"), 1024)
    brands = {data[8:12], *(data[i : i + 4] for i in range(16, size, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF", _avif
    if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}:
        return "HEIF", _heif
    return None


def _opened(image: ImageFile.ImageFile, **facts: Any) -> Opened:
    width, height = image.size
    return Opened(image, width, height, width * height, **facts)


def _metadata(image: Image.Image) -> dict[str, Any]:
    info = image.info
    block, xmp = (value if isinstance(value, bytes) else None for value in map(info.get, ("exif", "xmp")))
    exif = read_exif(block, xmp)
    return {"orientation": exif.orientation, "icc": info.get("icc_profile"), "exif": exif}


def _jpeg(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    image, full_size, n_pixels = open_jpeg(data, deadline, min_side_px)
    make_strict(image)
    return Opened(image, *full_size, n_pixels, **_metadata(image))


def _png(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    image, facts = open_png(data, deadline)
    make_strict(image)
    return _opened(
        image,
        orientation=facts.exif.orientation,
        icc=facts.icc,
        scale=_16_BITS,
        low_bytes=facts.low_bytes,
        exif=facts.exif,
        has_more_frames=facts.has_more_frames,
    )


def _gif(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    image, has_more_frames = open_gif(data, deadline)
    make_strict(image)
    return _opened(image, has_more_frames=has_more_frames)


def _tiff(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    try:
        image, facts = open_tiff(data, deadline)
    except UnknownPixelsError as unknown:
        return _scientific_tiff(data, deadline, limits, unknown)
    is_deep = image.mode.startswith("I;16")
    scale = GrayScale(
        white={12: 4095, 16: 65535}.get(facts.bits) if is_deep else None,
        inverted=facts.white_is_zero and (is_deep or image.mode == "F"),
        window=facts.window,
        no_data=facts.no_data,
        dtype=facts.dtype if facts.samples == 1 else None,
    )
    return _opened(
        image,
        orientation=facts.orientation,
        icc=facts.icc,
        scale=scale,
        low_bytes=facts.low_bytes,
        exif=replace(read_exif(data), orientation=facts.orientation),
        has_more_frames=facts.has_more_pages,
    )


def _scientific_tiff(data: bytes, deadline: float, limits: Limits, unknown: UnknownPixelsError) -> Opened:
    gray = to_8_bits(read_values(data, deadline, limits, unknown), GrayScale())
    image = gray.image.convert("RGB")
    if gray.alpha is not None:
        image.putalpha(gray.alpha)
    width, height = image.size
    notes = (gray.note,) if gray.note else ()
    return Opened(image, width, height, width * height, exif=read_exif(data), notes=notes)


def _webp(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    if len(data) < 30 or int.from_bytes(data[4:8], "little") + 8 > len(data) + 1:
        raise DamagedError("the WebP is cut off: it is shorter than it says")
    # The decoder allocates the canvas when it is created, so the limit is checked before.
    width, height = _webp_size(data)
    check_pixels(width, height, width * height, limits)
    image = WebPImageFile(TimedReader(data, deadline))
    return _opened(image, has_more_frames=image.is_animated, **_metadata(image))


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


class _Avif(AvifImageFile):
    """Pillow's AVIF reader on one thread and without EXIF parsing.

    Several images are decoded at the same time already. The container's own rotation is applied; the decoder
    returns it as an EXIF orientation.
    """

    def _open(self) -> None:
        from PIL import _avif  # absent where Pillow was built without AVIF

        if self.fp is None:
            raise SyntaxError("no file")
        self._decoder = _avif.AvifDecoder(self.fp.read(), "auto", 1)
        self._size, self.n_frames, self._mode, icc, exif, self.container_orientation, _ = (
            self._decoder.get_info()
        )
        self.is_animated = self.n_frames > 1
        if icc:
            self.info["icc_profile"] = icc
        if exif:
            self.info["exif"] = exif
        self.seek(0)


def _avif(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    image = _Avif(TimedReader(data, deadline))
    turned = image.container_orientation if image.container_orientation in range(1, 9) else 1
    return _opened(image, has_more_frames=image.is_animated, **{**_metadata(image), "orientation": turned})


@cache
def _heif_reader() -> Callable[..., Any]:
    # Imported here, because it takes 40 ms and most folders hold no HEIC.
    from pillow_heif import open_heif

    reader: Callable[..., Any] = open_heif
    return reader


def _heif(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    heif = _heif_reader()(TimedReader(data, deadline), convert_hdr_to_8bit=True)
    width, height = heif.size
    check_pixels(width, height, width * height, limits)
    # The decoder applies the orientation itself; the EXIF orientation must not be applied again.
    image = heif.to_pillow()
    width, height = image.size
    facts = {**_metadata(image), "orientation": 1}
    return Opened(
        image, width, height, width * height, scale=_16_BITS, has_more_frames=len(heif) > 1, **facts
    )


def _plain(reader: Callable[[Any], ImageFile.ImageFile], *, scale: GrayScale | None = None) -> Opener:
    def opener(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
        image = reader(TimedReader(data, deadline))
        make_strict(image)
        return _opened(image, icc=image.info.get("icc_profile"), scale=scale)

    return opener


def _jpeg2000(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    # The decoder accepts incomplete data. Two bytes above FF 8F cannot occur in the compressed data, so the
    # end mark is there exactly if the data is complete.
    start = data.find(b"\xff\x93")
    if start == -1 or data.rfind(b"\xff\xd9") < start:
        raise DamagedError("the JPEG 2000 is cut off: it ends without its end mark")
    opened = _plain(Jpeg2KImageFile, scale=_16_BITS)(data, deadline, min_side_px, limits)
    size_at = data.find(b"\xff\x51")
    n_bits = (data[size_at + 40] & 0x7F) + 1 if 0 <= size_at < start else 8
    return _with_unread_bytes(opened, n_bits)


def _ppm(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    opened = _plain(PpmImageFile, scale=_16_BITS)(data, deadline, min_side_px, limits)
    is_deep = data[1:2] in b"36" and _PPM_WHITE.match(data) is not None
    return _with_unread_bytes(opened, 16 if is_deep else 8)


def _with_unread_bytes(opened: Opened, n_bits: int) -> Opened:
    """Let a color image of 16 bits fail where the 8 that Pillow returns show next to nothing."""

    def refuse() -> Image.Image:
        raise DecodingError(
            "uses less than a sixteenth of its 16 bits, of which 8 would show next to nothing; save it as PNG"
            " or TIFF, or as 8 bits"
        )

    is_deep = n_bits == 16 and opened.image.mode in ("RGB", "RGBA")
    return replace(opened, low_bytes=refuse) if is_deep else opened


def _raw(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    raw = read_raw(data, deadline, limits)
    # Most raw photographs are TIFFs, whose tags are EXIF; others embed EXIF in the preview.
    exif = read_exif(data)
    if raw.jpeg is None:
        image = raw.image or Image.new("RGB", (1, 1))
        return Opened(image, raw.width, raw.height, image.width * image.height, exif=exif)
    opened = _jpeg(raw.jpeg, deadline, min_side_px, limits)
    # Not the preview's own orientation: LibRaw adds that of the sensor where the camera stored none.
    turned = raw.orientation
    exif = exif if exif.camera else replace(opened.exif, orientation=turned)
    width, height = (raw.height, raw.width) if turned >= 5 else (raw.width, raw.height)
    return replace(opened, width=width, height=height, orientation=turned, exif=exif)


def _photoshop(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    image, icc = read_photoshop(data, deadline, limits)
    return Opened(image, image.width, image.height, image.width * image.height, icc=icc)


def _dicom(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    dicom = read_dicom(data, limits)
    note: tuple[str, ...] = ()
    if dicom.pixels.ndim == 2:
        gray = to_8_bits(dicom.pixels, dicom.scale)
        image, note = gray.image, (gray.note,) if gray.note else ()
    else:
        image = Image.fromarray(dicom.pixels)
    n_pixels = image.width * image.height
    return Opened(image, *image.size, n_pixels, has_more_frames=dicom.has_more_frames, notes=note)


def _svg(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    return _png(read_svg(data, deadline, limits), deadline, min_side_px, limits)


def _jpeg_xl(data: bytes, deadline: float, min_side_px: int | None, limits: Limits) -> Opened:
    jxl = read_jpeg_xl(data, limits)
    width, height = jxl.image.size
    exif = read_exif(jxl.exif)
    return Opened(
        jxl.image, width, height, width * height, scale=_16_BITS, exif=exif, has_more_frames=jxl.is_animated
    )


_bmp = _plain(BmpImageFile)

_SIGNATURES: tuple[tuple[bytes, str, Opener], ...] = (
    (b"GIF87a", "GIF", _gif),
    (b"GIF89a", "GIF", _gif),
    (b"RIFF", "WebP", _webp),
    (b"II*\0", "TIFF", _tiff),
    (b"MM\0*", "TIFF", _tiff),
    (b"II+\0", "TIFF", _tiff),
    (b"MM\0+", "TIFF", _tiff),
    (b"BM", "BMP", _bmp),
    (photoshop.SIGNATURE, "Photoshop document", _photoshop),
    (jpeg_xl.CODESTREAM, "JPEG XL", _jpeg_xl),
    (jpeg_xl.CONTAINER, "JPEG XL", _jpeg_xl),
    (b"\xff\x4f\xff\x51", "JPEG 2000", _jpeg2000),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", _jpeg2000),
)
