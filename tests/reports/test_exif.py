"""Reports say when and with which camera an image was taken."""

import json
import re

import pytest
from PIL import Image

from sample_images import grainy


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    folder = tmp_path_factory.mktemp("album")
    for day in range(1, 7):
        exif = Image.Exif()
        exif.update({0x010F: "Canon", 0x0110: "R6"})
        exif.get_ifd(0x8769)[0x9003] = f"2020:01:{day:02} 03:04:05"
        grainy(day).save(folder / f"{day}.jpg", exif=exif)
    grainy(1).resize((128, 96)).save(folder / "small.jpg", quality=80)
    return folder


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (
            ("recommend", "1"),
            ("<dt>taken</dt><dd>2020-01-01 03:04:05</dd>", "<dt>camera</dt><dd>Canon R6</dd>"),
        ),
        (("duplicates",), ("<dt>taken</dt><dd>2020-01-01 03:04:05</dd>", "<dt>camera</dt><dd>Canon R6</dd>")),
        (("cluster", "--k", "1", "--no-names"), ("taken 2020-01-01 to 2020-01-06 · Canon R6",)),
    ],
)
def test_reports_of_images(nearsight, album, tmp_path, words, shown):
    nearsight("index", album, "-q")
    nearsight(*words, "--html", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for text in shown:
        assert text in page


def test_the_map_is_colored_by_the_camera_and_searched_by_the_day(nearsight, album, tmp_path):
    pytest.importorskip("plotly")
    nearsight("index", album, "-q")
    nearsight("tag", "camera=borrowed", "--where", "path LIKE '%/2.jpg'")
    nearsight("map", "--method", "pca", "--html", tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text()
    data = json.loads(re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    assert sum(day is not None for day in data["keys"]["taken"]) == 6
    # Metadata of that name is what the user says.
    assert [camera for camera in data["keys"]["camera"] if camera] == ["borrowed"]
    assert '<option value="camera"' in page
    assert '<option value="taken"' not in page
