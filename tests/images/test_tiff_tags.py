"""Directories of tags, damaged or not."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearsight.images.tiff_tags import ORIENTATION, TagDirectory

from sample_images import encoded, exif_block, scene


def block(orientation, endian):
    return exif_block(orientation, endian=endian).removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("endian", ["<", ">"])
def test_a_tag_in_either_byte_order(endian):
    [tag] = TagDirectory.first(block(6, endian)).tags()
    assert (tag.number, tag.type, tag.count, tag.integer) == (ORIENTATION, 3, 1, 6)


def test_the_tags_of_a_big_tiff():
    directory = TagDirectory.first(encoded(scene(), "TIFF", big_tiff=True))
    assert directory.is_big
    assert {tag.number: tag.integer for tag in directory.tags()}[256] == scene().width


def test_a_tag_that_points_nowhere_has_no_value():
    data = bytearray(block(6, "<"))
    struct.pack_into("<HHLL", data, 10, 270, 2, 1000, 0xFFFFFF00)
    [tag] = TagDirectory.first(bytes(data)).tags()
    assert (tag.number, tag.value, tag.integer) == (270, None, None)


def test_a_directory_reduced_to_nothing_keeps_the_length():
    data = block(6, "<")
    reduced = TagDirectory.first(data).with_only([])
    assert len(reduced) == len(data)
    assert list(TagDirectory.first(reduced).tags()) == []


@given(
    st.binary(max_size=80),
    st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0+\0\x08\0\0" + bytes(7) + b"\x10"]),
)
def test_any_bytes_are_read_without_an_error(noise, prefix):
    directory = TagDirectory.first(prefix + noise)
    if directory is not None:
        assert len(list(directory.tags())) <= directory.n_tags
