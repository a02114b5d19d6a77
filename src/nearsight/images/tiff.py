"""TIFF: the first page, described by the tags that matter and no others.

A TIFF is a list of tags that point anywhere. Pillow warns about each odd one, reads the metadata of all
pages and applies the orientation itself, differently from version to version. So Pillow gets a file whose
only directory holds the first page's pixel tags.
"""

import re
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageFile, TiffTags
from PIL.TiffImagePlugin import TiffImageFile

from nearsight.images.gray_levels import Window
from nearsight.images.optional_formats import REMEDY
from nearsight.images.strict_decoding import DamagedError, DecodingError, TimedReader, make_strict
from nearsight.images.tiff_tags import ORIENTATION, Tag, TagDirectory

_PIXEL_TAGS = frozenset(
    {254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
    | {332, 334, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
)
_PHOTOMETRIC, _BITS, _ICC, _SAMPLES, _SAMPLE_FORMAT = 262, 258, 34675, 277, 339
_SUBFILE, _DESCRIPTION, _PLANES, _NO_DATA = 254, 270, 284, 42113
# The lowest and the highest value: of integers, of any number.
_LOWEST, _HIGHEST = (280, 340), (281, 341)
# ImageJ's display range, in its description.
_IMAGEJ_LIMIT = re.compile(r"^(min|max)=([-+.\deE]+)$", re.MULTILINE)
_REDUCED = 1
_SHORT, _FLOAT, _DOUBLE = 3, 11, 12
_UNSIGNED, _SIGNED, _FLOATING = 1, 2, 3
_NUMBER_TYPES = (1, 3, 4, 13, 16)
_MAX_TAGS = 4096


class UnknownPixelsError(DecodingError):
    """Pillow does not read pixels of this kind."""

    def with_remedy(self) -> DecodingError:
        """Return the error for pixels that an extra reads."""
        return DecodingError(f"{self}; or: {REMEDY}")


@dataclass(slots=True)
class TiffFacts:
    """What the first page's tags say beside its pixels."""

    orientation: int = 1
    icc: bytes | None = None
    bits: int = 8
    samples: int = 1
    sample_format: int = _UNSIGNED
    white_is_zero: bool = False
    is_planar: bool = False
    no_data: float | None = None
    limits: dict[str, float] = field(default_factory=dict)
    has_more_pages: bool = False
    # Decodes the low bytes of a color image of 16 bits, of which Pillow keeps the high ones.
    low_bytes: Callable[[], Image.Image] | None = None

    @property
    def window(self) -> Window | None:
        """The values of black and white, if both are stated."""
        return (self.limits["min"], self.limits["max"]) if len(self.limits) == 2 else None

    @property
    def dtype(self) -> str | None:
        """The type of the values, where Pillow takes them for another."""
        return {(_SIGNED, 8): "int8", (_UNSIGNED, 32): "uint32"}.get((self.sample_format, self.bits))


class Tiff(TiffImageFile):
    """Pillow's TIFF reader; limits were checked and orientation is applied elsewhere."""

    # Pillow's TIFF reader would compare the size with a limit of its own.
    load_prepare = ImageFile.ImageFile.load_prepare

    def load_end(self) -> None:
        """Do nothing: Pillow would parse EXIF and turn the image."""


def open_tiff(data: bytes, deadline: float) -> tuple[Tiff, TiffFacts]:
    """Open the first page of a TIFF; return the image, not yet loaded, and the facts beside it."""
    clean, facts = _first_page(data)
    image = _opened(clean, facts, deadline)
    if facts.bits == 16 and image.mode in ("RGB", "RGBA"):
        facts.low_bytes = lambda: _of_low_bytes(_opened(clean, facts, deadline), facts)
    if not image.use_load_libtiff:  # libtiff's decoder is strict already
        make_strict(image)
    return image, facts


def _opened(clean: bytes, facts: TiffFacts, deadline: float) -> Tiff:
    try:
        image = Tiff(TimedReader(clean, deadline))
        if facts.is_planar and facts.bits == 16 and not image.use_load_libtiff:
            # Pillow takes planes of 16 bits for planes of 8.
            order = "16L" if clean[:2] == b"II" else "16B"
            image.tile = [_with_order(tile, order) for tile in image.tile]
        return image
    except SyntaxError as error:
        if "pixel mode" not in str(error):
            raise
        kind = {_SIGNED: "signed", _FLOATING: "floating-point"}.get(facts.sample_format, "unsigned")
        raise UnknownPixelsError(
            f"holds {facts.samples} channels of {facts.bits}-bit {kind} numbers, which cannot be converted to"
            " sRGB; save it as RGB or gray of 8 or 16 bits"
        ) from None


def _of_low_bytes(image: Tiff, facts: TiffFacts) -> Image.Image:
    """Load the low bytes: those that are the high ones in the other byte order."""
    if facts.is_planar and image.use_load_libtiff:
        raise DecodingError(
            "uses less than a sixteenth of its 16 bits, in compressed planes, so 8 bits would"
            " show next to nothing; save it without compression, or as 8 bits"
        )
    other = {"16L": "16B", "16B": "16L", "16N": "16B" if sys.byteorder == "little" else "16L"}
    image.tile = [_with_order(tile, other[_raw_mode(tile).partition(";")[2]]) for tile in image.tile]
    image.load()
    return image


def _raw_mode(tile: Any) -> str:
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _with_order(tile: Any, order: str) -> Any:
    others = tile.args[1:] if isinstance(tile.args, tuple) else ()
    return tile._replace(args=(f"{_raw_mode(tile).partition(';')[0]};{order}", *others))


def _first_page(data: bytes) -> tuple[bytes, TiffFacts]:
    directory = TagDirectory.first(data)
    if directory is None:
        raise DamagedError("the TIFF is cut off or damaged: its list of tags is not there")
    if directory.n_tags > _MAX_TAGS or directory.end > len(data):
        raise DamagedError("the TIFF is cut off or damaged: its list of tags runs past its end")
    facts, pixel_entries = TiffFacts(), dict[int, bytes]()
    for tag in directory.tags():
        if tag.number in _PIXEL_TAGS and tag.number not in pixel_entries:
            is_list = tag.count > 1 and tag.type in _NUMBER_TYPES
            if tag.view is None or (is_list and TiffTags.lookup(tag.number).length == 1):
                raise DamagedError(f"the TIFF is cut off or damaged: its tag {tag.number} is not readable")
            pixel_entries[tag.number] = tag.entry
        _note(facts, tag, directory)
    facts.has_more_pages = _has_more_pages(directory)
    return directory.with_only([pixel_entries[number] for number in sorted(pixel_entries)]), facts


def _has_more_pages(directory: TagDirectory) -> bool:
    """Whether another page follows that is not a smaller version of the first."""
    second = directory.following()
    if second is None or not 0 < second.n_tags <= _MAX_TAGS:
        return False
    kinds = [tag.integer for tag in second.tags() if tag.number == _SUBFILE]
    return not (kinds and (kinds[0] or 0) & _REDUCED)


def _note(facts: TiffFacts, tag: Tag, directory: TagDirectory) -> None:
    if tag.number == _ICC:
        facts.icc = tag.value or facts.icc
    elif tag.number in (*_LOWEST, *_HIGHEST):
        value = _number(tag, directory.endian)
        if value is not None:
            facts.limits["min" if tag.number in _LOWEST else "max"] = value
    elif tag.number == _DESCRIPTION and (tag.value or b"").startswith(b"ImageJ="):
        text = (tag.value or b"")[:4096].decode("latin-1")
        facts.limits |= {name: _float(number) or 0.0 for name, number in _IMAGEJ_LIMIT.findall(text)}
    elif tag.number == _NO_DATA:
        facts.no_data = _float((tag.value or b"")[:64].decode("latin-1").strip(" \0"))
    elif tag.type == _SHORT and tag.integer is not None:
        if tag.number == ORIENTATION and 1 <= tag.integer <= 8:
            facts.orientation = tag.integer
        elif tag.number == _BITS:
            facts.bits = tag.integer
        elif tag.number == _PLANES:
            facts.is_planar = tag.integer == 2
        elif tag.number == _SAMPLES:
            facts.samples = tag.integer
        elif tag.number == _SAMPLE_FORMAT:
            facts.sample_format = tag.integer
        elif tag.number == _PHOTOMETRIC:
            facts.white_is_zero = tag.integer == 0


def _number(tag: Tag, endian: str) -> float | None:
    """Return the first value of a tag of any type of number."""
    formats = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", _FLOAT: "f", _DOUBLE: "d"}
    if tag.view is None or tag.type not in formats:
        return None
    return float(struct.unpack_from(endian + formats[tag.type], tag.view)[0])


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
