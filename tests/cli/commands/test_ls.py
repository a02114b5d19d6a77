import re
from pathlib import Path

import pytest

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
