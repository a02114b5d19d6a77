import re
from pathlib import Path

import pytest
from PIL import Image

from sample_images import encoded, scene

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.mark.parametrize("command", ["ls", "search x", "info", "compact", "rm abcd", "export x.npz"])
def test_without_a_collection_the_way_out_is_told(nearsight, command):
    error = nearsight.json(*command.split(), code=2)["error"]
    assert error["type"] == "CollectionNotFoundError"
    assert "nearsight index" in error["message"]
    assert not nearsight.collection.exists()


def test_a_bad_filter_is_bad_input(indexed):
    for expression in ("wdth > 3", "width >", "id = 'a'; DROP TABLE x"):
        error = indexed.json("ls", "--where", expression, code=2)["error"]
        assert error["type"] == "FilterError"


def test_ls(indexed, photos):
    items = indexed.json("ls")["items"]
    assert len(items) == 6
    for item in items:
        assert set(item) == {
            "id",
            "path",
            "paths",
            "metadata",
            "width",
            "height",
            "size_bytes",
            "modified",
            "added",
            "taken",
            "camera",
            "lens",
            "lat",
            "lon",
            "orientation",
        }
        assert TIME.fullmatch(item["modified"])
        assert TIME.fullmatch(item["added"])
        assert Path(item["path"]).stat().st_size == item["size_bytes"]
    assert {item["path"] for item in items} == {str(path) for path in photos.iterdir()}


def test_ls_some(indexed):
    assert len(indexed.json("ls", "--limit", 2)["items"]) == 2
    assert indexed.json("ls", "--limit", 0)["items"] == []
    assert len(indexed.json("ls", "--where", "year = 2024 AND width < 200")["items"]) == 5


@pytest.mark.parametrize("command", ["ls", "anomaly rank", "classify suggest"])
def test_a_list_of_nothing_says_so(indexed, command):
    result = indexed(*command.split(), "--where", "width > 99999")
    assert result.stdout == ""
    assert "No image matches." in result.stderr


def test_ls_for_people_is_a_line_an_image(indexed):
    lines = indexed("ls").stdout.splitlines()
    assert len(lines) == 6
    assert all("year=2024" in line for line in lines)
    assert any("caf\\xe9\\nnew line.png" in line for line in lines)


def test_exif_is_listed_and_filtered(nearsight, tmp_path):
    exif = Image.Exif()
    exif.update({0x010F: "Canon", 0x0110: "R6"})
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    (tmp_path / "photos").mkdir()
    for name, options in (("a.jpg", {"exif": exif}), ("b.jpg", {})):
        (tmp_path / "photos" / name).write_bytes(encoded(scene(seed=len(options)), "JPEG", **options))
    nearsight("index", tmp_path / "photos")
    items = {Path(item["path"]).name: item for item in nearsight.json("ls")["items"]}
    assert (items["a.jpg"]["taken"], items["a.jpg"]["camera"]) == ("2020-01-02T03:04:05.000", "Canon R6")
    assert [items["b.jpg"][key] for key in ("taken", "camera", "lens", "lat", "lon")] == [None] * 5
    for where in (
        "taken < '2020-01-02 04:00'",
        "camera LIKE '%R6'",
        "exif.camera = 'Canon R6'",
        "taken < added",
    ):
        [item] = nearsight.json("ls", "--where", where)["items"]
        assert item["id"] == items["a.jpg"]["id"]
    nearsight("tag", "camera=mine", "--where", "lat IS NULL AND taken IS NULL")
    assert len(nearsight.json("ls", "--where", "camera = 'mine'")["items"]) == 1
    assert len(nearsight.json("ls", "--where", "exif.camera = 'Canon R6'")["items"]) == 1
