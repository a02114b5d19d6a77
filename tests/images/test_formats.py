"""Signatures of formats, and what of Pillow may change without notice."""

import re
from pathlib import Path

import pytest

import nearsight
from nearsight.images.formats import identify

from sample_images import samples

# Why each is needed:
# - `_getdecoder`: a decoder that fails on damage even where the host application has asked Pillow to pad.
# - `_new`: the decoded pixels without the file's metadata, without copying them.
# - `_read_dpi_from_exif`: overridden, since it warns of damaged EXIF nobody reads.
# - `_avif`: Pillow's AVIF reader takes a number of threads from nowhere else, and parses EXIF with warnings.
PRIVATE = {
    "decode.py": {"_new"},
    "formats.py": {"_avif"},
    "jpeg.py": {"_read_dpi_from_exif"},
    "strict_decoding.py": {"_getdecoder"},
}


def test_only_the_listed_private_names_of_pillow_are_used():
    pattern = r"\b(?:Image|ImageFile|image)\.(_\w+)|from PIL import (_\w+)|def (_read_dpi\w+|_seek)\("
    folder = Path(nearsight.__file__).parent / "images"
    used = {
        path.name: {name for names in re.findall(pattern, path.read_text()) for name in names if name}
        for path in folder.glob("*.py")
    }
    assert {name: names for name, names in used.items() if names} == PRIVATE


@pytest.mark.parametrize("name", sorted(samples()))
def test_a_format_is_told_by_its_first_bytes(name):
    expected = {"apng": "PNG", "jpeg2000": "JPEG 2000", "webp": "WebP"}.get(
        name, name.partition("-")[0].upper()
    )
    assert identify(samples()[name])[0].upper() == expected.upper()


def test_other_bytes_are_no_format():
    assert identify(b"Dear diary") is None
    assert identify(b"") is None
