"""DICOM files: made with pydicom, and compared with the values that were stored."""

import io
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from nearsight.errors import ImageError
from nearsight.images import Limits, decode
from nearsight.images.dicom import is_dicom

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402 - once it is known to be there
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless  # noqa: E402

RAMP = np.arange(64 * 80).reshape(64, 80)


def dicom(pixels, *, syntax=ExplicitVRLittleEndian, data=None, **elements):
    """Return a file with an array of shape (height, width) or (height, width, 3), or several frames of it."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = syntax
    file.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    file.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    file.Rows, file.Columns = pixels.shape[:2]
    file.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    file.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        file.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    file.BitsAllocated = file.BitsStored = bits
    file.HighBit = bits - 1
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.PixelData = pixels.tobytes() if data is None else data
    for name, value in elements.items():
        setattr(file, name, value)
    out = io.BytesIO()
    pydicom.dcmwrite(out, file, enforce_file_format=True)
    return out.getvalue()


def shown(data, **options):
    result = decode(data, **options)
    return np.asarray(result.image)[..., 0].astype(int), result


def test_the_window_of_the_file_is_black_and_white():
    values = (RAMP - 1000).astype(np.int16)
    pixels, result = shown(dicom(values, WindowCenter=[40, 2000], WindowWidth=[400, 3000]))
    assert (result.width, result.height) == (80, 64)
    expected = np.clip((values - (39.5 - 199.5)) / 399 * 255, 0, 255)
    assert np.abs(pixels - expected).max() <= 1
    assert result.notes == ()


def test_values_are_rescaled_before_the_window():
    values = RAMP.astype(np.uint16)
    data = dicom(values, RescaleSlope=0.5, RescaleIntercept=-1024, WindowCenter=0, WindowWidth=2001)
    expected = np.clip((values * 0.5 - 1024 + 1000.5) / 2000 * 255, 0, 255)
    assert np.abs(shown(data)[0] - expected).max() <= 1


def test_inverted_grays():
    plain, inverted = (
        shown(
            dicom(RAMP.astype(np.uint16), PhotometricInterpretation=kind, WindowCenter=2560, WindowWidth=5120)
        )[0]
        for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    assert (plain + inverted == 255).all()


@pytest.mark.parametrize("stored_bits", [8, 12, 16])
def test_without_a_window_the_stored_bits_or_the_content_say_it(stored_bits):
    dtype = np.uint8 if stored_bits == 8 else np.uint16
    values = (RAMP * ((1 << stored_bits) - 1) // RAMP.max()).astype(dtype)
    pixels, _ = shown(dicom(values, BitsStored=stored_bits, HighBit=stored_bits - 1))
    assert np.abs(pixels - RAMP * 255 / RAMP.max()).max() <= 2


def test_a_window_that_shows_nothing_is_not_taken():
    values = (RAMP // 2).astype(np.uint16)
    pixels, _ = shown(dicom(values, BitsStored=12, HighBit=11, WindowCenter=60000, WindowWidth=10))
    assert np.abs(pixels - values * (255 / 4095)).max() <= 1


def test_color_and_palette():
    color = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert (np.asarray(decode(dicom(color)).image) == color).all()
    index = (RAMP % 256).astype(np.uint8)
    table = (np.arange(256)[::-1] * 257).astype(np.uint16)
    lut = {f"{name}PaletteColorLookupTableData": table.tobytes() for name in ("Red", "Green", "Blue")}
    shape = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")}
    pixels, _ = shown(dicom(index, PhotometricInterpretation="PALETTE COLOR", **shape, **lut))
    assert (pixels == 255 - index).all()


def test_compressed_frames():
    gray = np.asarray(Image.fromarray((RAMP % 256).astype(np.uint8)))
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "JPEG", quality=95)
    data = dicom(gray, syntax=JPEGBaseline8Bit, data=encapsulate([file.getvalue()]))
    assert np.abs(shown(data)[0] - gray).mean() < 8
    raw = pydicom.dcmread(io.BytesIO(dicom(gray)))
    raw.compress(RLELossless)
    out = io.BytesIO()
    pydicom.dcmwrite(out, raw)
    assert (shown(out.getvalue())[0] == gray).all()


def test_the_first_frame_of_several_is_read_and_told():
    frames = np.stack([RAMP % 256, 255 - RAMP % 256]).astype(np.uint8)
    data = dicom(frames[0], data=frames.tobytes(), NumberOfFrames=2)
    pixels, result = shown(data)
    assert (pixels == frames[0]).all()
    assert any("first frame" in note for note in result.notes)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0" * 128 + b"DICM", "cut off, damaged or without an image"),
        (dicom(RAMP.astype(np.uint16))[:-3000], "cut off or damaged"),
        (dicom(RAMP.astype(np.uint8), Rows=60000, Columns=60000, data=b"\0\0"), "pixels to decode"),
        (
            dicom(RAMP.astype(np.uint8), syntax="1.2.840.10008.1.2.4.80", data=encapsulate([b"\0" * 99])),
            "DICOM",
        ),
        (
            dicom(RAMP.astype(np.uint8)).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"),
            "deflated",
        ),
    ],
)
def test_what_cannot_be_read_says_why(data, words):
    assert is_dicom(data)
    with pytest.raises(ImageError, match=words):
        decode(data)


def test_limits_hold():
    data = dicom(RAMP.astype(np.uint16))
    with pytest.raises(ImageError, match="pixels to decode"):
        decode(data, limits=Limits(max_pixels=5000))
    assert decode(data, limits=Limits(max_pixels=5120)).width == 80


def test_any_damage_is_an_image_error():
    data, rng = (
        bytearray(dicom(RAMP.astype(np.uint16), WindowCenter=100, WindowWidth=200)),
        np.random.default_rng(0),
    )
    for _ in range(150):
        damaged = bytearray(data)
        for at in rng.integers(132, 900, 6):
            damaged[at] = rng.integers(256)
        with suppress(ImageError):
            decode(bytes(damaged), limits=Limits(max_pixels=10**6))
