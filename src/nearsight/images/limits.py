"""Extensions of images, limits of their cost, and the decoder's rules."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

DRAFT_FACTOR: Final = 2
"""A JPEG is decoded at this many times the side of the model's input or more."""

DECODER_RULES: Final[MappingProxyType[str, Any]] = MappingProxyType(
    {
        # Raise this number with every change of pixels. Keep the keys: they are part of every fingerprint.
        # Version 2 shows what version 1 erased or refused: images that are transparent throughout or white on
        # transparent; values of fewer bits than their container; signed, 32-bit and floating-point values.
        "version": 2,
        "orientation": "exif",
        "colour": "sRGB by embedded ICC profile, perceptual",
        "alpha": "over white",
        "depth": "16-bit / 257, rounded",
        "frame": "first",
    }
)
"""Rules of the decoder that determine pixels, as plain JSON values."""

COMPARABLE_SINCE: Final = 1
"""The first version of the decoder's rules that gives the same pixels for every image that it could show."""

EXTENSIONS: Final = frozenset(
    {"apng", "avif", "avifs", "bmp", "gif", "heic", "heics", "heif", "heifs", "hif", "j2c", "j2k", "jfif"}
    | {"jp2", "jpc", "jpe", "jpeg", "jpf", "jpg", "jpx", "mpo", "pbm", "pgm", "png", "pnm", "ppm", "tif"}
    | {"tiff", "webp"}
)
"""Extensions of images in a folder or shard, lower case and without the dot."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one image may cost.

    Parameters
    ----------
    max_pixels : int
        Pixels to decode, width × height. A JPEG counts after its draft reduction, so a huge photograph may be
        accepted.
    max_bytes : int
        Size of the encoded image.
    max_seconds : float
        Seconds to read it, and again to decode it. Checked between reads: a single call of a C decoder is not
        interrupted.
    """

    max_pixels: int = 178_956_970
    max_bytes: int = 256 * 2**20
    max_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Stat:
    """Size and time of an image, which show without reading it whether it changed.

    Attributes
    ----------
    size_bytes : int
        Size of the encoded image; 0 if the server does not state it.
    stamp : int
        Modification time in ns of a local file or of the shard that holds it, see `stamp_of`; a 63-bit hash
        of the entity tag, modification time and size of a remote one.
    modified_s : float
        Modification time in seconds since 1970, UTC; 0 if unknown.
    """

    size_bytes: int
    stamp: int
    modified_s: float


def stamp_of(modified_ns: int) -> int:
    """Return a file's modification time as a signed number of 64 bits.

    A clock that was wrong may set a time after 2262 or before 1677, which has more: then only its last bits
    count, which still tell whether the file changed.

    Examples
    --------
    >>> stamp_of(1_600_000_000_000_000_000), stamp_of(2**63)
    (1600000000000000000, -9223372036854775808)
    """
    return (modified_ns + 2**63) % 2**64 - 2**63
