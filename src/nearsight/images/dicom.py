"""Medical images: the first frame of a DICOM file, with the range of values that the file says to show.

pydicom reads them; it is imported here only. Names and numbers of patients are never read.
"""

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nearsight.images.gray_levels import GrayScale
from nearsight.images.limits import Limits
from nearsight.images.optional_formats import missing
from nearsight.images.strict_decoding import DamagedError, DecodingError, check_pixels

SIGNATURE: Final = b"DICM"
SIGNATURE_AT: Final = 128
# The whole data set as one zlib stream: how much memory it takes shows only afterwards.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_INVERTED, _PALETTE = "MONOCHROME1", "PALETTE COLOR"


@dataclass(frozen=True, slots=True)
class Dicom:
    """The first frame of a DICOM file.

    Attributes
    ----------
    pixels : ndarray of shape (height, width) or (height, width, 3)
        Gray values after the file's rescaling, or uint8 colors.
    scale : GrayScale
        Of gray values.
    has_more_frames : bool
        Whether this is the first of several frames.
    """

    pixels: NDArray[Any]
    scale: GrayScale
    has_more_frames: bool


def is_dicom(data: bytes) -> bool:
    """Return whether data begins like a DICOM file: after 128 bytes of anything."""
    return data[SIGNATURE_AT : SIGNATURE_AT + 4] == SIGNATURE


def read_dicom(data: bytes, limits: Limits) -> Dicom:
    """Decode the first frame.

    Values are rescaled (``RescaleSlope``, ``RescaleIntercept``, lookup tables), as the file says. Its first
    window (``WindowCenter``, ``WindowWidth``) names black and white.
    """
    try:
        from pydicom import dcmread
        from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
    except ImportError:
        raise missing("a DICOM file") from None
    if _DEFLATED in data[:1024]:
        raise DecodingError("is a deflated DICOM file, of which nobody knows the size; store it uncompressed")
    try:
        file = dcmread(io.BytesIO(data))
        width, height = int(file.Columns), int(file.Rows)
        n_samples, n_frames = int(file.get("SamplesPerPixel", 1)), int(file.get("NumberOfFrames", 1) or 1)
        kind = str(file.PhotometricInterpretation)
    except Exception as error:  # the library lets errors of all kinds through
        raise DamagedError(f"the DICOM file is cut off, damaged or without an image ({error})") from None
    check_pixels(width, height, width * height * n_samples, limits)
    try:
        pixels: NDArray[Any] = pixel_array(file, index=0)
        if kind == _PALETTE:
            return Dicom(_to_8_bits(apply_color_lut(pixels, file)), GrayScale(), n_frames > 1)
        if n_samples > 1:
            return Dicom(_to_8_bits(pixels), GrayScale(), n_frames > 1)
        values = np.asarray(apply_modality_lut(pixels, file))
        window = _window(file)
    except (RuntimeError, NotImplementedError) as error:
        raise DecodingError(f"is a DICOM file in a compression that is not read: {error}") from None
    except Exception as error:
        raise DamagedError(f"the DICOM file is cut off or damaged ({error})") from None
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    white = None if values.dtype.kind == "f" else _white(file)
    return Dicom(values, GrayScale(white, kind == _INVERTED, window), n_frames > 1)


def _window(file: Any) -> tuple[float, float] | None:
    """Return black and white of the first window (PS3.3, C.11.2.1.2); None if there is none."""
    center, width = (_first(file.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is None or width is None or width < 1:
        return None
    if str(file.get("VOILUTFunction", "LINEAR")) == "LINEAR":
        return (center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2)
    return (center - width / 2, center + width / 2)


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)


def _white(file: Any) -> int | None:
    """Return the largest value of the stored bits; None where rescaling moved the values."""
    is_moved = (
        float(file.get("RescaleSlope", 1) or 1) != 1 or float(file.get("RescaleIntercept", 0) or 0) != 0
    )
    if is_moved or int(file.get("PixelRepresentation", 0)) or "ModalityLUTSequence" in file:
        return None
    return int((1 << int(file.get("BitsStored", 16))) - 1)


def _to_8_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return colors of 8 bits: tables of palettes have 16."""
    if pixels.dtype == np.uint8:
        return pixels
    shift = 8 * (pixels.dtype.itemsize - 1)
    return (pixels >> shift).astype(np.uint8)
