import base64
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nearsight.errors import StorageError
from nearsight.reports.gallery import MAX_INLINE_BYTES, Card, Row, Section, gallery, label_row, write_gallery
from nearsight.reports.html import policy_hash, template_source

HOSTILE = [
    "<script>alert(1)</script>.jpg",
    "a\"b'c&amp;.jpg",
    "line\nbreak\x1b[31m.jpg",
    "caf\udce9.jpg",
    "\u202egpj.exe",
]


def jpeg(color="teal", size=(64, 48)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "JPEG")
    return buffer.getvalue()


class Reader(HTMLParser):
    """Collects what a browser would see."""

    VOID = frozenset({"meta", "img", "path", "circle"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def search_page(paths, **extra):
    hits = [Card(path, jpeg(), 0.9 - 0.1 * i, {"note": path}) for i, path in enumerate(paths)]
    return gallery("Images", [Section("S", "lead", [Row(Card(paths[0], jpeg()), hits)])], **extra)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name):
    html = search_page([f"/photos/{name}"], lead=name, facts={name: name}, footer=[name])
    reader = Reader(html)
    assert reader.open == []
    assert len(reader.all("script")) == 1  # the page's own
    assert not any(key.startswith("on") for _, attrs in reader.tags for key in attrs)
    assert html.encode("utf-8")
    assert not any(ord(c) < 32 and c != "\n" for c in html)


@given(st.binary(min_size=1).filter(lambda b: b"\0" not in b and b"/" not in b))
def test_any_file_name_makes_a_sound_page_and_a_true_link(raw):
    path = "/photos/" + os.fsdecode(raw)
    reader = Reader(search_page([path]))
    assert reader.open == []
    for attrs in reader.all("a"):
        parts = urlsplit(attrs["href"])
        assert parts.scheme == "file"
        assert unquote_to_bytes(parts.path) == os.fsencode(str(Path(path)))
        assert not parts.query
        assert not parts.fragment


def test_the_page_needs_nothing_else():
    reader = Reader(search_page(["/p/a.jpg", "/p/b.jpg"]))
    assert reader.all("link") == []
    assert reader.all("script") == [{}]
    script = policy_hash(template_source("gallery.js"))
    assert [m["content"] for m in reader.all("meta") if m.get("http-equiv")] == [
        "default-src 'none'; img-src data: 'self' file:; style-src 'unsafe-inline';"
        f" script-src {script}; base-uri 'none'; form-action 'none'"
    ]
    for image in reader.all("img"):
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 48)
        assert image["alt"]


def test_a_search_page_says_what_was_found():
    html = search_page(["/photos/sea/beach.jpg", "/photos/sea/dune.jpg"], facts={"Searched": "2 images"})
    text = " ".join(Reader(html).text)
    for expected in ("beach.jpg", "dune.jpg", "0.900", "0.800", "2 images", "note"):
        assert expected in text
    assert re.findall(r'<i style="width:([\d.]+)%">', html) == ["90.0", "80.0"]


def test_members_of_shards_and_buckets_have_their_own_names():
    cards = [Card("tar://a/one.jpg::/data/shard.tar", None), Card("s3://bucket/b/two.jpg", None)]
    text = Reader(gallery("t", [Section(rows=[Row(Card("/q.jpg", None), cards)])])).text
    assert {"one.jpg", "/data/shard.tar", "two.jpg", "s3://bucket/b"} <= set(text)


def test_bars_stay_within_their_frame():
    cards = [Card("/a", None, s) for s in (-0.2, 1.0000001)]
    html = gallery("t", [Section(rows=[Row(Card("/q", None), cards)])])
    assert re.findall(r'<i style="width:([\d.]+)%">', html) == ["0.0", "100.0"]
    assert "no thumbnail" in html


def test_nothing_found_is_said():
    assert "No image matches." in gallery("t", [Section(rows=[Row(Card("/q", jpeg()), [])])])


def test_a_badge_frames_its_card_alone():
    cards = [Card("/a", None), Card("/b", None).with_badge("the original")]
    html = gallery("t", [Section(rows=[Row(Card("/q", None), cards)])])
    assert html.count('class="card badged"') == 1
    assert html.count('<span class="badge">the original') == 1


def test_right_and_wrong_answers_differ_by_word_and_frame():
    cards = [Card("/a", None, is_right=True), Card("/b", None, is_right=False), Card("/c", None)]
    html = gallery("t", [Section(rows=[Row(Card("/q", None), cards)])])
    for verdict in ("right", "wrong"):
        assert html.count(f'class="card badged {verdict}"') == 1
        assert html.count(f'<span class="badge">{verdict}</span>') == 1
    assert ".wrong { outline-style: dashed; }" in html


def test_sheet_and_commands():
    html = gallery(
        "t", [Section(sheet=[Card("/a.jpg", jpeg()), Card("s3://b/c.jpg", jpeg())], commands=["a < b"])]
    )
    reader = Reader(html)
    assert reader.open == []
    assert len(reader.all("img")) == 2
    assert [a["href"] for a in reader.all("a")] == ["file:///a.jpg"]
    assert "a &lt; b" in html


def heavy_sheet(n, n_bytes):
    """Cards whose thumbnails are together larger than `n_bytes`."""
    padding = b"\0" * (n_bytes // n + 1)
    return [Card(f"/photos/{i}.jpg", jpeg() + padding + bytes([i % 256, i // 256])) for i in range(n)]


def test_a_small_report_is_one_file(tmp_path):
    page = tmp_path / "small.html"
    write_gallery(page, "t", [Section(sheet=heavy_sheet(3, MAX_INLINE_BYTES // 2))])
    assert [file.name for file in tmp_path.iterdir()] == ["small.html"]
    assert page.read_text().count('src="data:image/jpeg') == 3


def test_a_large_report_has_a_folder_that_moves_with_it(tmp_path):
    page = tmp_path / "my report #1.html"
    cards = heavy_sheet(300, 3 * MAX_INLINE_BYTES)
    cards = [Card(c.path, c.thumbnail, 0.5, {"size": "400 × 533", "camera": "unknown"}) for c in cards]
    write_gallery(page, "t", [Section(rows=[Row(Card("/q.jpg", cards[0].thumbnail), cards)])])
    assert page.stat().st_size < 2_000_000
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    images = Reader((moved / page.name).read_text(encoding="utf-8")).all("img")
    assert len(images) == 301
    assert {image["loading"] for image in images} == {"lazy"}
    for image, card in zip(images[1:], cards, strict=True):
        assert (moved / unquote(image["src"])).read_bytes() == card.thumbnail


def test_a_new_report_removes_the_thumbnails_of_the_old_one(tmp_path):
    page, folder = tmp_path / "r.html", tmp_path / "r_images"
    write_gallery(page, "t", [Section(sheet=heavy_sheet(5, 2 * MAX_INLINE_BYTES))])
    assert len(list(folder.iterdir())) == 5
    (folder / "mine.txt").write_text("stays")
    write_gallery(page, "t", [Section(sheet=heavy_sheet(4, 2 * MAX_INLINE_BYTES))])
    assert len(list(folder.iterdir())) == 5
    write_gallery(page, "t", [])
    assert [file.name for file in folder.iterdir()] == ["mine.txt"]
    (folder / "mine.txt").unlink()
    write_gallery(page, "t", [])
    assert not folder.exists()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "r_images").write_text("a file")
    with pytest.raises(StorageError, match="r_images could not be created"):
        write_gallery(tmp_path / "r.html", "t", [Section(sheet=heavy_sheet(2, 2 * MAX_INLINE_BYTES))])


def test_headings_are_linked_at_the_head_of_the_page():
    def links(sections):
        reader = Reader(gallery("t", sections))
        anchors = {attrs.get("id") for _, attrs in reader.tags}
        targets = [a["href"] for a in reader.all("a") if a["href"].startswith("#")]
        assert {target[1:] for target in targets} <= anchors
        return targets

    assert links([Section("One"), Section(""), Section("Two", is_folded=True)]) == ["#s1", "#s3"]
    assert links([Section("One")]) == []
    rows = [label_row("shirt", [], "1 image"), label_row("hat", [], "2 images")]
    assert links([Section(rows=rows)]) == ["#s1r1", "#s1r2"]
    assert links([Section(rows=rows[:1])]) == []


def test_a_folded_section_and_a_table():
    html = gallery("t", [Section("Good", "all of them", table=[["", "a"], ["b<", "3"]], is_folded=True)])
    reader = Reader(html)
    assert reader.open == []
    assert len(reader.all("details")) == 1
    assert '<th scope="row">b&lt;</th><td class="figure">3</td>' in html
