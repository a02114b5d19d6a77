"""EXIF: when, where and with what an image was taken."""

import struct
import warnings
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nearsight.images import decode, exif_of
from nearsight.images.metadata import NO_EXIF, Exif, read_exif

from sample_images import encoded, scene

MAKE, MODEL, PHOTO, GPS = 0x010F, 0x0110, 0x8769, 0x8825
ORIGINAL, DIGITIZED, FRACTION, LENS = 0x9003, 0x9004, 0x9291, 0xA434


def block(image=(), photo=(), gps=()):
    exif = Image.Exif()
    exif.update(image)
    if photo:
        exif.get_ifd(PHOTO).update(photo)
    if gps:
        exif.get_ifd(GPS).update(gps)
    return exif.tobytes()


WHOLE = block(
    {MAKE: "NIKON CORPORATION", MODEL: "NIKON D750", 0x0112: 6},
    {ORIGINAL: "2019:05:06 07:08:09", FRACTION: "25", LENS: "AF-S 50mm f/1.8G"},
    {1: "S", 2: (33.0, 51.0, 30.0), 3: "E", 4: (151.0, 12.0, 36.0)},
)
FIELDS = Exif(
    taken=datetime(2019, 5, 6, 7, 8, 9, 250_000),
    camera="NIKON D750",
    lens="AF-S 50mm f/1.8G",
    lat=-33.858333,
    lon=151.21,
    orientation=6,
)


def test_a_whole_block():
    assert read_exif(WHOLE) == FIELDS


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_the_block_is_found_in_every_container(image_format):
    data = encoded(scene(), image_format, exif=WHOLE)
    found = decode(data).exif
    assert (found.taken, found.camera, found.lens, found.lat, found.lon) == (
        FIELDS.taken,
        FIELDS.camera,
        FIELDS.lens,
        FIELDS.lat,
        FIELDS.lon,
    )
    assert exif_of(data) == found


def test_a_tiff_is_a_block_itself():
    exif = Image.Exif()
    exif.load(WHOLE)
    assert decode(encoded(scene(), "TIFF", exif=exif)).exif == FIELDS


def test_an_image_without_a_block_has_no_values():
    data = encoded(scene(), "JPEG")
    assert decode(data).exif == exif_of(data) == NO_EXIF == Exif(None, None, None, None, None, 1)
    assert exif_of(b"Dear diary") == NO_EXIF


@pytest.mark.parametrize(
    ("photo", "taken"),
    [
        ({ORIGINAL: "0000:00:00 00:00:00"}, None),
        ({ORIGINAL: "    :  :     :  :  "}, None),
        ({ORIGINAL: "0000:00:00 00:00:00", DIGITIZED: "1998:01:02 03:04:05"}, datetime(1998, 1, 2, 3, 4, 5)),
        ({ORIGINAL: "2019-05-06T07:08"}, datetime(2019, 5, 6, 7, 8)),
        ({ORIGINAL: "2019:02:30 00:00:00"}, None),
        ({ORIGINAL: "2019:05:06 07:08:09", FRACTION: "x"}, datetime(2019, 5, 6, 7, 8, 9)),
    ],
)
def test_dates_as_cameras_write_them(photo, taken):
    assert read_exif(block(photo=photo)).taken == taken


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Canon", "Canon EOS R6", "Canon EOS R6"),
        ("Apple", "iPhone 15", "Apple iPhone 15"),
        ("OLYMPUS IMAGING CORP.  ", "E-M5", "OLYMPUS IMAGING CORP. E-M5"),
        ("", "X100\0\0junk", "X100"),
        ("Evil\x1b[31m\n", "", "Evil [31m"),
        ("", "", None),
    ],
)
def test_cameras(make, model, camera):
    assert read_exif(block({MAKE: make, MODEL: model})).camera == camera


@pytest.mark.parametrize(
    "gps",
    [
        {},
        {1: "N", 2: (48.0, 0.0, 0.0)},
        {2: (48.0, 0.0, 0.0), 4: (2.0, 0.0, 0.0)},
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
        {1: "N", 2: (48.0, 0.0, 0.0), 3: "E", 4: (2.0, 0.0, 0.0), 9: "V"},
        {1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (2.0, 0.0, 0.0)},
    ],
    ids=["no block", "half", "no sides", "zeros", "no fix", "out of range"],
)
def test_no_position_is_null_and_not_zero(gps):
    found = read_exif(block(gps=gps))
    assert (found.lat, found.lon) == (None, None)


def test_the_equator_is_a_position():
    found = read_exif(block(gps={1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (9.0, 30.0, 0.0)}))
    assert (found.lat, found.lon) == (0.0, 9.5)


def test_a_fraction_over_zero_is_left_out():
    data = WHOLE
    at = data.find(struct.pack(">LL", 51, 1)) if b"MM" in data[:8] else data.find(struct.pack("<LL", 51, 1))
    assert read_exif(data[:at] + bytes(8) + data[at + 8 :]).lat == -33.008333


@settings(deadline=None)
@given(st.floats(-90, 90), st.floats(-180, 180))
def test_positions_survive(lat, lon):
    gps = {1: "NS"[lat < 0], 2: (abs(lat), 0.0, 0.0), 3: "EW"[lon < 0], 4: (abs(lon), 0.0, 0.0)}
    found = read_exif(block(gps=gps))
    if found.lat is None:
        assert max(abs(lat), abs(lon)) < 1e-6
    else:
        assert (found.lat, found.lon) == pytest.approx((lat, lon), abs=2e-6)


@settings(deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=12), st.integers(0, len(WHOLE)))
def test_a_damaged_block_neither_raises_nor_warns(at, noise, length):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_exif((WHOLE[:at] + noise + WHOLE[at + len(noise) :])[:length])
    assert 1 <= found.orientation <= 8
    assert (found.lat is None) == (found.lon is None)
    assert all(text is None or text.isprintable() for text in (found.camera, found.lens))
