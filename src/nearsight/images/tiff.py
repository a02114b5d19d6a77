"""TIFF: the first page, described by the tags that matter and no others.

A TIFF is a list of tags that point anywhere. Pillow warns about each odd one, reads the metadata of all
pages and applies the orientation itself, differently from version to version. Here the first page's
pixel tags alone are left in its list of tags, which becomes the only one.
"""

import struct
from dataclasses import dataclass

from PIL import ImageFile, TiffTags, _imaging
from PIL.TiffImagePlugin import TiffImageFile

from nearsight.images.strict_decoding import BrokenError, TimedReader, make_strict

_PIXEL_TAGS = frozenset(
    {254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
    | {332, 334, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
)
_PHOTOMETRIC, _BITS, _ORIENTATION, _ICC = 262, 258, 274, 34675
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_NUMBERS = (1, 3, 4, 13, 16)
_MAX_ENTRIES = 4096


@dataclass(slots=True)
class TiffFacts:
    """What the first page's tags say beside its pixels."""

    orientation: int = 1
    icc: bytes | None = None
    bits: int = 8
    white_is_zero: bool = False


class Tiff(TiffImageFile):
    """Pillow's TIFF reader; limits were checked and orientation is applied elsewhere."""

    def load_prepare(self) -> None:
        """Allocate the image without Pillow's size warning."""
        if self._im is None:
            self.im = _imaging.new(self.mode, self.size)
        ImageFile.ImageFile.load_prepare(self)

    def load_end(self) -> None:
        """Do nothing: Pillow would parse EXIF and turn the image."""


def open_tiff(data: bytes, deadline: float) -> tuple[Tiff, TiffFacts]:
    """Open the first page of a TIFF; return the image, not yet loaded, and the facts beside it."""
    clean, facts = _first_page(data)
    image = Tiff(TimedReader(clean, deadline))
    if not image.use_load_libtiff:  # libtiff's decoder is strict already
        make_strict(image)
    return image, facts


def _first_page(data: bytes) -> tuple[bytes, TiffFacts]:
    endian = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    word, counter, header_bytes, entry_bytes = ("Q", "Q", 16, 20) if big else ("L", "H", 8, 12)
    word_bytes = struct.calcsize(endian + word)
    try:
        (start,) = struct.unpack_from(endian + word, data, header_bytes - word_bytes)
        (n_entries,) = struct.unpack_from(endian + counter, data, start)
    except (struct.error, OverflowError):
        raise BrokenError("the TIFF is cut off or damaged: its list of tags is not there") from None
    list_at = start
    start += struct.calcsize(endian + counter)
    list_end = start + n_entries * entry_bytes + word_bytes
    if n_entries > _MAX_ENTRIES or list_end > len(data):
        raise BrokenError("the TIFF is cut off or damaged: its list of tags runs past its end")

    facts, kept = TiffFacts(), {}
    for offset in range(start, list_end - word_bytes, entry_bytes):
        tag, kind, count = struct.unpack_from(endian + "HH" + word, data, offset)
        value_at = offset + entry_bytes - word_bytes
        n_bytes = count * _TYPE_BYTES.get(kind, 0)
        if n_bytes > word_bytes:
            (value_at,) = struct.unpack_from(endian + word, data, value_at)
        intact = 0 < n_bytes <= len(data) - value_at
        if tag in _PIXEL_TAGS and tag not in kept:
            if not intact or (count > 1 and kind in _NUMBERS and TiffTags.lookup(tag).length == 1):
                raise BrokenError(f"the TIFF is cut off or damaged: its tag {tag} is not readable")
            kept[tag] = data[offset : offset + entry_bytes]
        if intact:
            _note(facts, tag, kind, data[value_at : value_at + n_bytes], endian)

    # In place, so that no byte is added that a cut off image could be completed with.
    tags = struct.pack(endian + counter, len(kept)) + b"".join(kept[tag] for tag in sorted(kept))
    view = memoryview(data)
    return b"".join((view[:list_at], tags.ljust(list_end - list_at, b"\0"), view[list_end:])), facts


def _note(facts: TiffFacts, tag: int, kind: int, value: bytes, endian: str) -> None:
    if tag == _ICC:
        facts.icc = value
    elif tag in (_ORIENTATION, _BITS, _PHOTOMETRIC) and kind == 3:
        (number,) = struct.unpack_from(endian + "H", value)
        if tag == _ORIENTATION and 1 <= number <= 8:
            facts.orientation = number
        elif tag == _BITS:
            facts.bits = number
        elif tag == _PHOTOMETRIC:
            facts.white_is_zero = number == 0
