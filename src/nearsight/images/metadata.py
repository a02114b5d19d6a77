"""EXIF: when, where and with what an image was taken.

Cameras, phones and editors write damaged blocks daily. Here a tag that cannot be read counts as absent, and
nothing raises, warns or logs. (Pillow's reader warns for the whole process; exifread finds no block in the
WebP and HEIC files that Pillow and pillow-heif write.)
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from nearsight.images.orientation import exif_directory, orientation
from nearsight.images.tiff_tags import Tag, TagDirectory

_MAKE, _MODEL, _EXIF, _GPS = 0x010F, 0x0110, 0x8769, 0x8825
_ORIGINAL, _DIGITIZED, _ORIGINAL_FRACTION, _DIGITIZED_FRACTION = 0x9003, 0x9004, 0x9291, 0x9292
_LENS = 0xA434
_LAT_REF, _LAT, _LON_REF, _LON, _STATUS = 1, 2, 3, 4, 9
_TEXT, _RATIONAL = 2, 5
_MAX_TAGS = 4096
_MAX_TEXT_BYTES = 256


@dataclass(frozen=True, slots=True)
class Exif:
    """What the EXIF block of an image says; None where it says nothing, or nothing that can be read.

    Attributes
    ----------
    taken : datetime or None
        When the image was taken, or scanned if that is all there is, by the camera's clock: EXIF states no
        time zone, or states it apart.
    camera : str or None
        Make and model; the make once.
    lens : str or None
        Model of the lens.
    lat, lon : float or None
        Degrees north and east, WGS 84; both or neither. No fix is None, never 0.
    orientation : int
        1 to 8; 1, which is upright, if none is stated.
    """

    taken: datetime | None = None
    camera: str | None = None
    lens: str | None = None
    lat: float | None = None
    lon: float | None = None
    orientation: int = 1


NO_EXIF: Final = Exif()


def read_exif(block: bytes | None, xmp: bytes | None = None) -> Exif:
    r"""Read an EXIF block.

    Parameters
    ----------
    block : bytes or None
        With or without its ``Exif\0\0`` prefix; or a whole TIFF, whose tags are EXIF themselves.
    xmp : bytes or None
        XMP packet, used for the orientation if the block states none.

    Returns
    -------
    Exif
        No exception is raised, whatever the bytes are.

    Examples
    --------
    >>> from PIL import Image
    >>> exif = Image.Exif()
    >>> exif[0x010F], exif[0x0110] = "Canon", "Canon EOS R6"
    >>> exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.0), 3: "W", 4: (2.0, 15.0, 0.0)})
    >>> read_exif(exif.tobytes())
    Exif(taken=None, camera='Canon EOS R6', lens=None, lat=48.858333, lon=-2.25, orientation=1)
    >>> read_exif(b"damaged")
    Exif(taken=None, camera=None, lens=None, lat=None, lon=None, orientation=1)
    """
    turned = orientation(block, xmp)
    directory = exif_directory(block) if block else None
    if directory is None:
        return Exif(orientation=turned)
    image = _tags(directory)
    photo, gps = (_tags_of(directory, image.get(number)) for number in (_EXIF, _GPS))
    lat, lon = _position(gps, directory.endian)
    return Exif(
        taken=_taken(photo, _ORIGINAL, _ORIGINAL_FRACTION) or _taken(photo, _DIGITIZED, _DIGITIZED_FRACTION),
        camera=_camera(_text(image.get(_MAKE)), _text(image.get(_MODEL))),
        lens=_text(photo.get(_LENS)),
        lat=lat,
        lon=lon,
        orientation=turned,
    )


def _tags_of(directory: TagDirectory, pointer: Tag | None) -> dict[int, Tag]:
    inner = directory.pointed_to_by(pointer) if pointer is not None else None
    return {} if inner is None else _tags(inner)


def _tags(directory: TagDirectory) -> dict[int, Tag]:
    """Return the readable tags by number; the first of each."""
    tags: dict[int, Tag] = {}
    if directory.n_tags <= _MAX_TAGS:
        for tag in directory.tags():
            if tag.view is not None:
                tags.setdefault(tag.number, tag)
    return tags


def _text(tag: Tag | None) -> str | None:
    if tag is None or tag.view is None or tag.type != _TEXT:
        return None
    raw = bytes(tag.view[:_MAX_TEXT_BYTES]).split(b"\0", 1)[0]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    # One line of printable text: it is shown in terminals and reports.
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()) or None


def _camera(make: str | None, model: str | None) -> str | None:
    if make and model and not model.casefold().startswith(make.split()[0].casefold()):
        return f"{make} {model}"
    return model or make


def _taken(tags: dict[int, Tag], date: int, fraction: int) -> datetime | None:
    text = _text(tags.get(date))
    digits = "".join(c if c in "0123456789" else " " for c in text or "").split()
    try:
        if len(digits) < 5 or len(digits[0]) != 4:
            return None
        taken = datetime(*map(int, digits[:6]))  # type: ignore[arg-type]  # year to second, in this order
    except (ValueError, OverflowError):  # such as 0000:00:00 00:00:00
        return None
    part = _text(tags.get(fraction)) or ""
    if part.isascii() and part.isdigit():
        taken += timedelta(microseconds=int(part[:6].ljust(6, "0")))
    return taken


def _position(tags: dict[int, Tag], endian: str) -> tuple[float | None, float | None]:
    lat = _degrees(tags.get(_LAT), _text(tags.get(_LAT_REF)), "NS", 90, endian)
    lon = _degrees(tags.get(_LON), _text(tags.get(_LON_REF)), "EW", 180, endian)
    # A receiver without a fix writes status V, or zeros.
    if lat is None or lon is None or _text(tags.get(_STATUS)) == "V" or (lat == 0 and lon == 0):
        return None, None
    return lat, lon


def _degrees(tag: Tag | None, side: str | None, sides: str, limit: int, endian: str) -> float | None:
    """Return degrees, negative on the second of the sides; None without a known side."""
    if tag is None or tag.type != _RATIONAL or not side or side[0].upper() not in sides:
        return None
    parts = list(_rationals(tag, endian))
    if not parts or math.isnan(parts[0]):
        return None
    degrees = math.fsum(part / 60.0**i for i, part in enumerate(parts[:3]) if not math.isnan(part))
    if degrees > limit:
        return None
    return round(-degrees if side[0].upper() == sides[1] else degrees, 6)


def _rationals(tag: Tag, endian: str) -> Iterator[float]:
    value = bytes(tag.view[:24]) if tag.view is not None else b""
    for numerator, denominator in struct.iter_unpack(endian + "LL", value[: len(value) // 8 * 8]):
        yield numerator / denominator if denominator else math.nan
