import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps


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


def test_paths_end_with_nul_for_xargs(indexed, photos, strange):
    result = indexed("search", photos / "3.png", "--paths", "-0", "-k", 6)
    names = result.stdout_bytes.split(b"\0")
    assert names[-1] == b""
    assert os.fsencode(photos / strange) in names


def test_several_images_stand_for_their_mean(indexed, photos):
    items = indexed.json("ls")["items"]
    ids = [item["id"] for item in items if item["path"] in (str(photos / "2.png"), str(photos / "3.png"))]
    by_id = indexed.json("search", "--id", ids[0], "--id", ids[1])["hits"]
    assert {hit["id"] for hit in by_id} == {item["id"] for item in items} - set(ids)
    by_path = indexed.json("search", photos / "2.png", photos / "3.png")["hits"]
    assert {hit["id"] for hit in by_path[:2]} == set(ids)
    assert [hit["id"] for hit in by_path if hit["id"] not in ids] == [hit["id"] for hit in by_id]
    assert by_path[0]["similarity"] == pytest.approx(by_path[1]["similarity"], abs=1e-4)


def test_unwanted_images_and_clusters(indexed, photos, tmp_path):
    ids = [item["id"] for item in indexed.json("ls")["items"]]
    out = tmp_path / "results.html"
    words = ("--id", ids[0], "--not-id", ids[1], "--not-image", photos / "3.png", "--html", out)
    assert {hit["id"] for hit in indexed.json("search", *words)["hits"]} == set(ids) - {*ids[:2]}
    assert "not like 2 images" in out.read_text(encoding="utf-8")
    [first, *_] = indexed.json("cluster", "--k", 2)["clusters"]
    found = indexed.json("search", photos / "3.png", "--cluster", first["name"] or 0, "--cluster", 0)["hits"]
    assert {hit["id"] for hit in found} == set(first["ids"])
    error = indexed.json("search", photos / "3.png", "--cluster", "nowhere", code=2)["error"]
    assert "no cluster 'nowhere'; the clusters are: 0" in error["message"]


def test_images_and_texts_together(indexed, photos, tmp_path, monkeypatch):
    searches = []
    from nearsight import Collection

    def search(self, query, **arguments):
        searches.append((query, arguments["text"], arguments["not_text"]))
        return []

    monkeypatch.setattr(Collection, "search", search)
    out = tmp_path / "results.html"
    indexed("search", photos / "2.png", "--text", "red", "--not", "blue", "--not", "a cat", "--html", out)
    assert searches == [([str(photos / "2.png")], "red", ("blue", "a cat"))]
    html = out.read_text(encoding="utf-8")
    assert "<title>Images like 2.png of “red” not “blue” not “a cat”" in html
    assert "standard deviations" in html


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
        (("--not", "a cat"), "UsageError", "IMAGE, --id ID or --text"),
        (("a.png", "b.png", "--verify"), "UsageError", "--verify compares with one image"),
        (("a.png", "-0"), "UsageError", "add --paths"),
        (("--text", ""), "InvalidParameterError", "the text is empty"),
        (("nowhere.png",), "ImageError", "nowhere.png"),
        (("--id", "ffffffff"), "UnknownIdError", "ffffffff"),
        (("--id", "xyz"), "UnknownIdError", "xyz"),
        (("a.png", "--not-id", "abcd", "--verify"), "UsageError", "--verify compares with one image"),
        (("nowhere.png", "-k", "0"), "UsageError", "0"),
        (("--id", "abcd", "--html", "/nowhere/x.html"), "UsageError", "does not exist"),
        (("/",), "BadInputError", "is a folder"),
    ],
)
def test_bad_searches(indexed, words, kind, message):
    error = indexed.json("search", *words, code=2)["error"]
    assert error["type"] == kind
    assert message in error["message"]


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
