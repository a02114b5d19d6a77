import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_search_finds_the_image_itself_first(indexed, photos):
    hits = indexed.json("search", photos / "3.png", "-k", 4)["hits"]
    assert len(hits) == 4
    assert set(hits[0]) == {"id", "path", "similarity", "metadata"}
    assert hits[0]["path"] == str(photos / "3.png")
    assert hits[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert hits[0]["metadata"] == {"year": 2024}
    similarities = [hit["similarity"] for hit in hits]
    assert similarities == sorted(similarities, reverse=True)


def test_search_by_id_leaves_that_image_out(indexed):
    items = indexed.json("ls")["items"]
    hits = indexed.json("search", "--id", items[0]["id"][:8])["hits"]
    assert {hit["id"] for hit in hits} == {item["id"] for item in items[1:]}


def test_search_by_bytes_from_standard_input(indexed, photos):
    hits = indexed.json("search", "-", "-k", 1, input=(photos / "2.png").read_bytes())["hits"]
    assert hits[0]["path"] == str(photos / "2.png")


def test_bytes_that_are_no_image_have_a_name(indexed):
    message = indexed.json("search", "-", input=b"text", code=2)["error"]["message"]
    assert message.startswith("standard input: is not an image")


def test_search_exactly_and_among_some(indexed, photos, strange):
    hits = indexed.json("search", photos / "3.png", "--exact", "--where", "width = 200")["hits"]
    assert [os.fsencode(Path(hit["path"]).name) for hit in hits] == [os.fsencode(strange)]


def test_the_very_same_object_comes_first(nearsight, tmp_path):
    pytest.importorskip("cv2")
    rng = np.random.default_rng(1)
    (tmp_path / "photos").mkdir()
    for i in range(6):
        blocks = rng.integers(0, 256, (15, 20, 3), np.uint8).repeat(16, axis=0).repeat(16, axis=1)
        Image.fromarray(blocks).save(tmp_path / "photos" / f"{i}.png")
    # Upside down and mirrored, the network takes it for something else.
    query = ImageOps.mirror(Image.open(tmp_path / "photos" / "4.png").rotate(180))
    query.save(tmp_path / "query.png")
    nearsight("index", tmp_path / "photos")
    plain = nearsight.json("search", tmp_path / "query.png", "-k", 1)["hits"]
    assert plain[0]["path"] != str(tmp_path / "photos" / "4.png")
    hits = nearsight.json("search", tmp_path / "query.png", "--verify", "-k", 2)["hits"]
    assert len(hits) == 2
    assert hits[0]["path"] == str(tmp_path / "photos" / "4.png")
    best = nearsight.json("search", "--id", hits[0]["id"], "--verify", "-k", 1)["hits"]
    assert best[0]["path"] != hits[0]["path"]
    nearsight("search", "--text", "a cat", "--verify", code=2)


def test_paths_alone_are_for_other_programs(indexed, photos, strange):
    result = indexed("search", photos / "3.png", "--paths", "-k", 6)
    lines = result.stdout_bytes.split(b"\n")
    assert lines[0] == os.fsencode(photos / "3.png")
    # One name holds a line break; its bytes are as the file system has them.
    assert os.fsencode(photos / strange) in result.stdout_bytes
    indexed("search", photos / "3.png", "--paths", "--json", code=2)


def test_search_for_people(indexed, photos):
    result = indexed("search", photos / "3.png")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["similarity", "id", "path"]
    assert lines[1].split()[0] == "1.000"
    assert len(lines) == 7
    assert "caf\\xe9\\nnew line.png" in result.stdout


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        ((), "UsageError", "IMAGE, --id ID or --text"),
        (("a.png", "--id", "abcd"), "UsageError", "IMAGE, --id ID or --text"),
        (("a.png", "--text", "a cat"), "UsageError", "or --text TEXT"),
        (("--text", ""), "InvalidParameterError", "the text is empty"),
        (("nowhere.png",), "ImageError", "nowhere.png"),
        (("--id", "ffffffff"), "UnknownIdError", "ffffffff"),
        (("--id", "xyz"), "UnknownIdError", "xyz"),
        (("nowhere.png", "-k", "0"), "UsageError", "0"),
        (("--id", "abcd", "--html", "/nowhere/x.html"), "UsageError", "does not exist"),
        (("/",), "BadInputError", "is a folder"),
    ],
)
def test_bad_searches(indexed, words, kind, message):
    error = indexed.json("search", *words, code=2)["error"]
    assert error["type"] == kind
    assert message in error["message"]


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


def test_the_page_of_a_search(indexed, photos, tmp_path):
    out = tmp_path / "results.html"
    result = indexed("search", photos / "3.png", "--html", out, "--json")
    assert json.loads(result.stdout)["hits"]
    html = out.read_text(encoding="utf-8")
    assert html.count("data:image/jpeg;base64,") == 7
    assert "Images like 3.png" in html
    assert "caf\\xe9\\nnew line.png" in html
    assert "caf%E9%0Anew%20line.png" in html
    assert str(out) in result.stderr


def test_the_page_of_a_search_by_id_or_bytes(indexed, photos, tmp_path):
    out = tmp_path / "results.html"
    id = indexed.json("ls")["items"][0]["id"]
    indexed("search", "--id", id, "--html", out)
    assert out.read_text(encoding="utf-8").count("data:image/jpeg;base64,") == 6
    indexed("search", "-", "--html", out, input=(photos / "2.png").read_bytes())
    assert "Images like standard input" in out.read_text(encoding="utf-8")


def test_open_shows_the_page(indexed, photos, cache, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", lambda address: shown.append(address) or True)
    indexed("search", photos / "3.png", "--open")
    assert shown == [(cache / "search.html").as_uri()]
    assert (cache / "search.html").stat().st_size > 1000


def test_open_without_a_browser_says_where_the_page_is(indexed, photos, cache, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    result = indexed("search", photos / "3.png", "--open", "-q")
    assert str(cache / "search.html") in result.stderr


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


def test_info(indexed):
    facts = indexed.json("info")
    assert (facts["images"], facts["model"], facts["dim"]) == (6, "efficientnet-lite0", 1280)
    assert facts["metadata"].keys() == {"year"}
    text = indexed("info").stdout
    assert "efficientnet-lite0" in text
    assert "year (" in text


def test_export(indexed, photos, tmp_path, strange):
    report = indexed.json("export", tmp_path / "all.parquet")
    assert report == {"exported": 6, "file": str(tmp_path / "all.parquet")}
    assert pq.read_table(tmp_path / "all.parquet").num_rows == 6
    assert indexed.json("export", tmp_path / "some.npz", "--where", "width = 200")["exported"] == 1
    with np.load(tmp_path / "some.npz") as saved:
        assert saved["paths"].tolist() == [str(photos / strange)]


def test_export_knows_two_formats(indexed, tmp_path):
    error = indexed.json("export", tmp_path / "all.txt", code=2)["error"]
    assert "must end in .parquet or .npz or .csv" in error["message"]
