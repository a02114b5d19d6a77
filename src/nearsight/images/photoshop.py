"""Photoshop documents: the merged image that Photoshop saved beside the layers.

psd-tools reads them; it is imported here only.
"""

import struct

import numpy as np
from PIL import Image

from nearsight.images.limits import Limits
from nearsight.images.optional_formats import missing
from nearsight.images.strict_decoding import DamagedError, DecodingError, TimedReader, check_pixels

SIGNATURE = b"8BPS"
_UNCOMPRESSED, _RUN_LENGTHS = 0, 1


def read_photoshop(data: bytes, deadline: float, limits: Limits) -> tuple[Image.Image, bytes | None]:
    """Return the merged image of a PSD or PSB, and its color profile."""
    try:
        from psd_tools import PSDImage
        from psd_tools.constants import Resource
    except ImportError:
        raise missing("a Photoshop document") from None
    try:
        height, width = struct.unpack_from(">LL", data, 14)
        check_pixels(width, height, width * height, limits)
        is_whole = _is_whole(data)
    except struct.error:
        is_whole = False
    if not is_whole:
        raise DamagedError("the Photoshop document is cut off")
    document = PSDImage.open(TimedReader(data, deadline))
    image = document.topil(apply_icc=False)
    if image is None:
        raise DecodingError(
            "was saved without its merged image; save it in Photoshop with 'Maximize compatibility'"
        )
    profile = document.image_resources.get_data(Resource.ICC_PROFILE)
    return image, profile if isinstance(profile, bytes) else None


def _is_whole(data: bytes) -> bool:
    """Return whether the merged image, which comes last, is all there: psd-tools would pad it."""
    version, n_channels, height, width, bits = struct.unpack_from(">H6xHLLH", data, 4)
    is_big = version == 2
    at = 26
    for length in (">L", ">L", ">Q" if is_big else ">L"):  # colors, resources, layers
        (n_bytes,) = struct.unpack_from(length, data, at)
        at += struct.calcsize(length) + n_bytes
    (compression,) = struct.unpack_from(">H", data, at)
    at += 2
    n_rows = height * n_channels
    if compression == _UNCOMPRESSED:
        return bool(len(data) - at >= n_rows * ((width * bits + 7) // 8))
    if compression == _RUN_LENGTHS:
        kind = np.dtype(">u4" if is_big else ">u2")
        row_bytes = np.frombuffer(data, kind, min(n_rows, (len(data) - at) // kind.itemsize), at)
        return len(row_bytes) == n_rows and len(data) - at - row_bytes.nbytes >= int(row_bytes.sum())
    return True  # zlib finds out
