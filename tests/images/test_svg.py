"""SVG: drawn elsewhere, within limits."""

import gzip
import io
import time

import numpy as np
import pytest
from PIL import Image

from nearsight.errors import ImageError
from nearsight.images import Limits, decode, formats
from nearsight.images.color import ON_BLACK
from nearsight.images.quality import measure_quality
from nearsight.images.svg import SIDE_PX, is_svg

NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'


def svg(body, size='width="200" height="100"', fill="black"):
    return f'<svg {NAMESPACE} {size} fill="{fill}">{body}</svg>'.encode()


SQUARE = '<rect x="50" y="25" width="50" height="50"/>'


@pytest.fixture
def _resvg():
    pytest.importorskip("resvg_py")


@pytest.mark.usefixtures("_resvg")
def test_a_drawing_shows_at_a_fixed_size():
    for data in (svg(SQUARE), gzip.compress(svg(SQUARE)), b'<?xml version="1.0"?>\n' + svg(SQUARE)):
        decoded = decode(data)
        assert decoded.image.size == (decoded.width, decoded.height) == (SIDE_PX, SIDE_PX // 2)
        values = np.asarray(decoded.image)[..., 0]
        assert (values[SIDE_PX // 4, SIDE_PX // 3], values[0, 0]) == (0, 255)
        assert decoded.notes == ()


@pytest.mark.usefixtures("_resvg")
def test_a_white_icon_shows():
    assert decode(svg(SQUARE, fill="white")).notes == (ON_BLACK,)


@pytest.mark.usefixtures("_resvg")
def test_no_file_is_read_for_a_document(tmp_path):
    Image.new("RGB", (50, 50), "blue").save(tmp_path / "secret.png")
    for href in ("href", "xlink:href"):
        for address in (tmp_path / "secret.png", (tmp_path / "secret.png").as_uri()):
            image = f'<image {href}="{address}" width="50" height="50"/>'
            space = 'xmlns:xlink="http://www.w3.org/1999/xlink" width="200" height="100"'
            assert np.asarray(decode(svg(SQUARE + image, space)).image)[10, 10].tolist() == [255, 255, 255]


@pytest.mark.usefixtures("_resvg")
def test_a_document_that_asks_for_too_much_is_a_failure_in_time():
    costly = (
        '<filter id="f"><feTurbulence numOctaves="1000000" baseFrequency="0.05"/></filter>'
        '<rect width="100%" height="100%" filter="url(#f)"/>'
    )
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"Limits\.max_seconds"):
        decode(svg(costly), limits=Limits(max_seconds=1))
    assert time.monotonic() - started < 60


@pytest.mark.usefixtures("_resvg")
@pytest.mark.parametrize("damaged", [b"<svg", svg("", 'width="0" height="5"'), svg("<rect")])
def test_a_damaged_one_is_a_failure(damaged):
    with pytest.raises(ImageError, match="cannot be drawn"):
        decode(damaged)


def test_only_svg_is_svg():
    assert is_svg(svg(SQUARE))
    assert is_svg(b"\xef\xbb\xbf\n  <!-- made by hand -->" + svg(SQUARE))
    for other in (
        b"<html><svg></svg></html>",
        b"<!DOCTYPE html><svg/>",
        b"<?xml?><rss/>",
        gzip.compress(b"x"),
        b"",
    ):
        assert not is_svg(other)


def test_a_packed_bomb_is_refused():
    pytest.importorskip("resvg_py")
    bomb = gzip.compress(svg(" " * 1_000_000))
    with pytest.raises(ImageError, match="unpacked"):
        decode(bomb, limits=Limits(max_bytes=100_000))


def test_without_the_extra_the_remedy_is_said(monkeypatch):
    monkeypatch.setattr("nearsight.images.svg.find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"is an SVG; .*pip install 'nearsight\[formats\]'"):
        decode(svg(SQUARE))


@pytest.mark.usefixtures("_resvg")
def test_a_drawing_is_drawn_once_to_be_measured(monkeypatch):
    drawn, draw = [], formats.read_svg
    monkeypatch.setattr(formats, "read_svg", lambda *given: drawn.append(1) or draw(*given))
    quality = measure_quality(svg(SQUARE))
    assert (len(drawn), quality.image_format, quality.has_more) == (1, "SVG", True)
    # As for an opened drawing, whose pixels have transparency.
    assert Image.open(io.BytesIO(draw(svg(SQUARE), time.monotonic() + 60, Limits()))).has_transparency_data
