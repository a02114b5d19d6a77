"""The orientation tag, read by hand."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nearsight.images.orientation import orientation, upright

from sample_images import exif_block

XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("value", range(1, 9))
def test_every_value_type_and_byte_order(value, kind, endian):
    assert orientation(exif_block(value, kind=kind, endian=endian)) == value
    assert orientation(exif_block(value, kind=kind, endian=endian).removeprefix(b"Exif\0\0")) == value


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_values_out_of_range_mean_upright(value):
    assert orientation(exif_block(value)) == 1


def test_pillow_writes_what_is_read():
    exif = Image.Exif()
    exif[274] = 5
    exif[271] = "a maker"
    assert orientation(exif.tobytes()) == 5


def test_xmp_is_asked_where_exif_is_silent():
    silent = b"II*\0\x08\0\0\0\0\0\0\0\0\0"
    assert orientation(None, XMP) == orientation(silent, XMP) == 8
    assert orientation(exif_block(3), XMP) == 3
    assert orientation(None, XMP.replace(b'="8"', b">8<")) == 8
    assert orientation(None, b'tiff:Orientation="0"') == 1


def test_a_list_of_values_is_not_an_orientation():
    block = bytearray(exif_block(6))
    at = block.index(struct.pack("<HHL", 0x0112, 3, 1))
    struct.pack_into("<L", block, at + 4, 2)
    assert orientation(bytes(block)) == 1


@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0", b"MM\0*", b"Exif\0\0II*\0\x08\0\0\0"]))
def test_any_bytes_give_an_orientation(noise, prefix):
    assert 1 <= orientation(prefix + noise, noise) <= 8


def test_upright_leaves_the_normal_alone():
    image = Image.new("RGB", (3, 2))
    assert upright(image, 1) is image
    assert upright(image, 6).size == (2, 3)
