"""Any file name as text and back."""

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nearsight.images import decode_path, encode_path
from nearsight.images.path_encoding import is_image_name, is_shard_name, is_url

names = st.binary(max_size=40) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(
    str.encode
)
odd = st.lists(
    st.sampled_from(
        [b"\xee\xbe\x80", b"\xee\xbf\xbf", b"\xee", b"\xbe", b"\x80", b"a", "é".encode(), b"\xef\xbe\x80"]
    ),
    max_size=12,
).map(b"".join)


@given(names | odd)
@example(b"\xee\xbe\x80")
@example(b"\xc3" + "\uef80".encode())
@example("\uef7f\uef80\uefff\uf000".encode())
@example(b"new\nline\xff")
def test_every_name_survives(name):
    path = os.fsdecode(name)
    text = encode_path(path)
    assert text.encode().decode() == text  # any database accepts it
    assert decode_path(text) == path


@given(names | odd, names | odd)
def test_no_two_names_collide(a, b):
    assert (encode_path(os.fsdecode(a)) == encode_path(os.fsdecode(b))) == (a == b)


@given(st.text(st.characters(exclude_categories=["Cs", "Co"])))
def test_ordinary_names_are_stored_as_they_are(name):
    assert encode_path(name) == decode_path(name) == name


def test_what_no_file_name_can_hold_is_refused():
    with pytest.raises(UnicodeEncodeError):
        encode_path("\ud800")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/a.jpg", True),
        ("memory://a", True),
        ("tar://a.jpg::/x.tar", True),
        ("simplecache::s3://b/a.jpg", True),
        ("/a/b.jpg", False),
        ("a.jpg", False),
        ("C:/a.jpg", False),
        ("C:\\a.jpg", False),
        ("a::b.jpg", False),
        ("./s3://a", False),
    ],
)
def test_urls_are_told_from_paths(text, expected):
    assert is_url(text) == expected


def test_names_that_count():
    assert is_image_name("a.JPG")
    assert is_image_name("a.b.Heic")
    assert not is_image_name("jpg")
    assert not is_image_name("a.jpg.txt")
    assert is_shard_name("a.TAR.gz")
    assert not is_shard_name("a.gz")
