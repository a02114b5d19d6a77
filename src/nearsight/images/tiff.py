"""TIFF: the first page, described by the tags that matter and no others.

A TIFF is a list of tags that point anywhere. Pillow warns about each odd one, reads the metadata of all
pages and applies the orientation itself, differently from version to version. So Pillow gets a file whose
only directory holds the first page's pixel tags.
"""

from dataclasses import dataclass

from PIL import ImageFile, TiffTags
from PIL.TiffImagePlugin import TiffImageFile

from nearsight.images.strict_decoding import DamagedError, TimedReader, make_strict
from nearsight.images.tiff_tags import ORIENTATION, Tag, TagDirectory

_PIXEL_TAGS = frozenset(
    {254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
    | {332, 334, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
)
_PHOTOMETRIC, _BITS, _ICC = 262, 258, 34675
_SHORT = 3
_NUMBER_TYPES = (1, 3, 4, 13, 16)
_MAX_TAGS = 4096


@dataclass(slots=True)
class TiffFacts:
    """What the first page's tags say beside its pixels."""

    orientation: int = 1
    icc: bytes | None = None
    bits: int = 8
    white_is_zero: bool = False


class Tiff(TiffImageFile):
    """Pillow's TIFF reader; limits were checked and orientation is applied elsewhere."""

    # Pillow's TIFF reader would compare the size with a limit of its own.
    load_prepare = ImageFile.ImageFile.load_prepare

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
        _note(facts, tag)
    return directory.with_only([pixel_entries[number] for number in sorted(pixel_entries)]), facts


def _note(facts: TiffFacts, tag: Tag) -> None:
    if tag.number == _ICC:
        facts.icc = tag.value or facts.icc
    elif tag.type == _SHORT and tag.integer is not None:
        if tag.number == ORIENTATION and 1 <= tag.integer <= 8:
            facts.orientation = tag.integer
        elif tag.number == _BITS:
            facts.bits = tag.integer
        elif tag.number == _PHOTOMETRIC:
            facts.white_is_zero = tag.integer == 0
