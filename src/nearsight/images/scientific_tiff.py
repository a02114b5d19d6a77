"""TIFF of numbers that Pillow does not read: half and double precision, 64-bit integers, fractions of color.

tifffile reads them; it is imported here only.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.images.limits import Limits
from nearsight.images.strict_decoding import DamagedError, DecodingError, TimedReader, check_pixels
from nearsight.images.tiff import UnknownPixelsError


def read_values(data: bytes, deadline: float, limits: Limits, unknown: UnknownPixelsError) -> NDArray[Any]:
    """Return the first page as (height, width) or (height, width, 3).

    Raises
    ------
    DecodingError
        It has another number of channels, is damaged or too large, or tifffile is not installed.
    """
    try:
        from tifffile import TiffFile
    except ImportError:
        raise unknown.with_remedy() from None
    try:
        with TiffFile(TimedReader(data, deadline)) as file:
            page = file.pages[0]
            width, height = int(page.imagewidth), int(page.imagelength)
            n_channels = int(page.samplesperpixel)
            check_pixels(width, height, width * height * n_channels, limits)
            values = page.asarray(maxworkers=1)
    except DecodingError:
        raise
    except Exception as error:  # tifffile raises exceptions of many types
        raise DamagedError(f"the TIFF cannot be read: {error}") from None
    if n_channels == 3 and values.shape[0] == 3:
        values = np.moveaxis(values, 0, -1)
    expected = (height, width) if n_channels == 1 else (height, width, 3)
    if values.shape != expected or values.dtype.kind not in "iuf":
        raise unknown
    # Integers of 64 bits become exact enough floating-point numbers: windows are computed in those anyway.
    numbers: NDArray[np.float64] = values.astype(np.float64)
    return numbers
