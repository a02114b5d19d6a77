"""Which JPEGs are suspected of missing blocks, by what a decoder shows at their end."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from nearsight.errors import ImageError
from nearsight.images import decode
from nearsight.images.jpeg_header import plain_jpeg
from nearsight.models.runtimes.missing_blocks import cut_files, fill_color, shows_last_block


def corner(*levels):
    return np.tile(np.array(levels, np.uint8), (4, 4, 1))


def test_the_cut_files_look_whole_and_are_not(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    corners = []
    for data in cut_files():
        assert plain_jpeg(data) is not None
        with pytest.raises(ImageError, match="cut off"):
            decode(data)
        corners.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[-4:, -4:])
    # libjpeg shows gray.
    assert fill_color(corners) == (128, 128, 128)


@pytest.mark.parametrize(
    ("corners", "fill"),
    [
        ([corner(0, 0, 0)] * 3, (0, 0, 0)),
        ([corner(127, 128, 128), corner(129, 128, 128)], (128, 128, 128)),
        # The last color goes on: then nothing is known.
        ([corner(0, 0, 90), corner(200, 160, 0)], None),
        ([corner(128, 128, 128), None], None),
        ([np.arange(48, dtype=np.uint8).reshape(4, 4, 3)] * 2, None),
    ],
)
def test_what_is_learned_of_a_decoder(corners, fill):
    assert fill_color(corners) == fill


def test_which_corners_are_suspect():
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "JPEG")
    header = plain_jpeg(file.getvalue())
    white, gray = corner(255, 255, 255), corner(127, 128, 129)
    assert not shows_last_block(white, header, None)
    assert shows_last_block(white, header, (128, 128, 128))
    assert not shows_last_block(gray, header, (128, 128, 128))
    edge = white.copy()
    edge[-1, -1] = 250
    assert shows_last_block(edge, header, None)
