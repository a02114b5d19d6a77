"""Raw photographs: the embedded preview, or the sensor's values."""

import struct
import sys

import numpy as np
import pytest

from nearsight.errors import ImageError
from nearsight.images import Limits, decode
from nearsight.images.raw import is_raw

from sample_images import STORED_AS, encoded, scene

UPRIGHT = scene(640, 480)
_FORMATS = {1: ("B", 1), 2: ("s", 1), 3: ("H", 2), 4: ("L", 4), 5: ("LL", 8), 10: ("ll", 8)}


def directory(entries, at):
    """Return a TIFF directory for offset `at`, its values behind it."""
    head, values = struct.pack("<H", len(entries)), b""
    for number, type_, value in sorted(entries):
        letter, _ = _FORMATS[type_]
        if type_ == 2:
            raw, n_values = value + b"\0", len(value) + 1
        else:
            raw = b"".join(struct.pack(f"<{letter}", *(v if isinstance(v, tuple) else (v,))) for v in value)
            n_values = len(value)
        if len(raw) > 4:
            place = struct.pack("<L", at + 2 + 12 * len(entries) + 4 + len(values))
            values += raw + bytes(len(raw) % 2)
        else:
            place = raw.ljust(4, b"\0")
        head += struct.pack("<HHL", number, type_, n_values) + place
    return head + bytes(4) + values


def dng(image, preview=None, orientation=1):
    """Return an image as the mosaic of a sensor, as a DNG with a JPEG preview."""
    width, height = image.size
    colors = np.asarray(image).astype(np.uint16) * 257
    mosaic = colors[..., 1].copy()
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = colors[0::2, 0::2, 0], colors[1::2, 1::2, 2]
    raw = mosaic.tobytes()
    jpeg = b"" if preview is None else encoded(preview, "JPEG", quality=92)
    jpeg += bytes(len(jpeg) % 2)
    raw_page = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [16]), (259, 3, [1]), (262, 3, [32803]),
        (273, 4, [8]), (277, 3, [1]), (278, 4, [height]), (279, 4, [len(raw)]),
        (33421, 3, [2, 2]), (33422, 1, [0, 1, 1, 2]), (50717, 4, [65535]),
    ]  # fmt: skip
    page_at = 8 + len(raw) + len(jpeg)
    page = directory([(254, 4, [0]), *raw_page], page_at)
    matrix = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.204, 1.057)
    main = [
        (271, 2, b"Testcam"), (272, 2, b"T1"), (274, 3, [orientation]),
        (50706, 1, [1, 4, 0, 0]), (50708, 2, b"Testcam T1"), (50728, 5, [(1, 1)] * 3), (50778, 3, [21]),
        (50721, 10, [(round(value * 10000), 10000) for value in matrix]),
    ]  # fmt: skip
    if preview is None:
        main += raw_page
    else:
        main += [
            (254, 4, [1]), (256, 4, [preview.width]), (257, 4, [preview.height]), (258, 3, [8, 8, 8]),
            (259, 3, [7]), (262, 3, [6]), (273, 4, [8 + len(raw)]), (277, 3, [3]),
            (278, 4, [preview.height]), (279, 4, [len(jpeg)]), (330, 4, [page_at]),
        ]  # fmt: skip
    start = struct.pack("<2sHL", b"II", 42, page_at + len(page))
    return start + raw + jpeg + page + directory(main, page_at + len(page))


def as_stored(orientation):
    how = STORED_AS[orientation]
    return UPRIGHT if how is None else UPRIGHT.transpose(how)


def resembles(image, expected):
    small, other = (
        np.asarray(i.convert("L").resize((32, 32))).astype(float).ravel() for i in (image, expected)
    )
    return np.corrcoef(small, other)[0, 1] > 0.95


def test_a_raw_photograph_is_no_tiff_and_no_tiff_is_one():
    assert is_raw(dng(UPRIGHT, UPRIGHT))
    assert is_raw(dng(UPRIGHT))
    assert not is_raw(encoded(UPRIGHT, "TIFF"))
    assert not is_raw(encoded(UPRIGHT, "JPEG"))
    assert all(is_raw(start + bytes(40)) for start in (b"IIRO", b"FUJIFILMCCD-RAW ", b"\0\0\0\x18ftypcrx "))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("preview_px", [640, 120, None])
def test_every_orientation_is_upright(orientation, preview_px):
    pytest.importorskip("rawpy")
    stored = as_stored(orientation)
    preview = (
        None
        if preview_px is None
        else stored.resize(
            (preview_px * stored.width // max(stored.size), preview_px * stored.height // max(stored.size))
        )
    )
    decoded = decode(dng(stored, preview, orientation))
    assert (decoded.width, decoded.height) == UPRIGHT.size
    assert resembles(decoded.image, UPRIGHT)
    assert max(decoded.image.size) == (640 if preview_px == 640 else 320)
    assert (decoded.exif.camera, decoded.exif.orientation) == ("Testcam T1", orientation)


def test_a_preview_that_the_camera_turned_is_not_turned_again():
    pytest.importorskip("rawpy")
    decoded = decode(dng(as_stored(6), UPRIGHT, 6))
    assert decoded.image.size == (decoded.width, decoded.height) == UPRIGHT.size
    assert resembles(decoded.image, UPRIGHT)


def test_limits_hold():
    pytest.importorskip("rawpy")
    with pytest.raises(ImageError, match=r"Limits\.max_pixels"):
        decode(dng(UPRIGHT), limits=Limits(max_pixels=1000))
    with pytest.raises(ImageError, match=r"Limits\.max_seconds"):
        decode(dng(UPRIGHT), limits=Limits(max_seconds=-1))


def test_a_damaged_one_is_a_failure():
    pytest.importorskip("rawpy")
    data = dng(UPRIGHT, UPRIGHT)
    for damaged in (data[:200], b"IIRO" + bytes(100), b"FUJIFILMCCD-RAW " + bytes(200)):
        with pytest.raises(ImageError):
            decode(damaged, path="a.dng")


def test_without_the_extra_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(ImageError, match=r"is a raw photograph; .*pip install 'nearsight\[formats\]'"):
        decode(dng(UPRIGHT, UPRIGHT))
