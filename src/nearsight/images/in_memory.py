"""Images in memory: PIL images and arrays."""

import struct
from typing import Any

import numpy as np
from PIL import Image

from nearsight.images.color import to_rgb
from nearsight.images.limits import Limits
from nearsight.images.orientation import orientation, upright
from nearsight.images.strict_decoding import DecodingError, check_pixels

_HEADER = struct.Struct(">16sLL")
_MAGIC = b"nearsight pixels"


class InMemoryImage(bytes):
    """Upright RGB pixels as bytes: a header, then rows.

    They are hashed like a file, and decoded without encoding them first.
    """

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        _, width, height = _HEADER.unpack_from(self)
        return width, height

    def image(self) -> Image.Image:
        """Return the image, mode RGB."""
        return Image.frombytes("RGB", self.size, memoryview(self)[_HEADER.size :])


def from_image(image: Image.Image, limits: Limits) -> InMemoryImage:
    """Convert a PIL image as its file would be decoded: EXIF orientation, sRGB, on white.

    Raises
    ------
    DecodingError
        The image is empty or larger than the limit.
    OSError, ValueError, SyntaxError
        The image was opened lazily and its file is damaged.
    """
    check_pixels(*image.size, image.size[0] * image.size[1], limits)
    image.load()
    exif, xmp, icc = (_bytes(image.info.get(key)) for key in ("exif", "xmp", "icc_profile"))
    rgb = upright(to_rgb(image, icc), orientation(exif, xmp))
    return InMemoryImage(b"".join((_HEADER.pack(_MAGIC, *rgb.size), rgb.tobytes())))


def from_array(array: np.ndarray[Any, Any], limits: Limits) -> InMemoryImage:
    """Convert an array that holds an upright sRGB image.

    Parameters
    ----------
    array : ndarray of uint8
        Height × width, or height × width × 1 (gray), 3 (RGB) or 4 (RGBA, blended over white).
    limits : Limits
        Only `max_pixels` applies.

    Raises
    ------
    DecodingError
        The array has another type or shape, or more pixels than the limit.
    """
    rule = "an image is a uint8 array of height × width, or height × width × 1, 3 or 4; convert it"
    if array.dtype != np.uint8:
        raise DecodingError(f"has dtype {array.dtype}; {rule}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise DecodingError(f"has shape {array.shape}; {rule}")
    height, width = array.shape[:2]
    check_pixels(width, height, width * height, limits)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return from_image(Image.fromarray(np.ascontiguousarray(array)), limits)


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) else None
