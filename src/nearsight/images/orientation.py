"""EXIF orientation: which way is up, the one fact of EXIF that changes pixels."""

import re
from typing import Final

from PIL import Image

from nearsight.images.tiff_tags import ORIENTATION, TagDirectory

_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return the image upright, turned by its EXIF orientation, 1 to 8."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def orientation(exif: bytes | None, xmp: bytes | None = None) -> int:
    r"""Return the orientation, 1 to 8; 1 if none is stated or the block is damaged.

    Parameters
    ----------
    exif : bytes or None
        EXIF block, with or without its ``Exif\0\0`` prefix.
    xmp : bytes or None
        XMP packet, used if the EXIF block states no orientation, as in Pillow.

    Examples
    --------
    >>> orientation(b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0")
    6
    >>> orientation(b"damaged"), orientation(None)
    (1, 1)
    """
    value = _from_exif(exif) if exif else None
    if value is None and xmp and (match := _XMP_ORIENTATION.search(xmp)):
        value = int(match[1])
    return value if value is not None and 1 <= value <= 8 else 1


def exif_directory(block: bytes) -> TagDirectory | None:
    r"""Return the tags of an EXIF block, with or without its ``Exif\0\0`` prefix; None if it is damaged."""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    return TagDirectory.first(block)


def _from_exif(block: bytes) -> int | None:
    directory = exif_directory(block)
    if directory is None:
        return None
    tag = next((tag for tag in directory.tags() if tag.number == ORIENTATION), None)
    return tag.integer if tag is not None and tag.count == 1 else None
