from pathlib import Path

import jinja2
import pytest

from nearsight.reports.gallery import gallery
from nearsight.reports.html import link, render, write_html


def test_links_lead_to_the_originals():
    assert link("/a b/ü.jpg") == "file:///a%20b/%C3%BC.jpg"
    assert link("x.jpg") == (Path.cwd() / "x.jpg").as_uri()
    assert link("https://example.org/?q=a&b") == "https://example.org/?q=a&b"
    assert link("s3://bucket/x.jpg") is None
    assert link("javascript://%0aalert(1)") is None
    assert link("") is None


def test_a_file_is_written_as_utf8(tmp_path):
    file = tmp_path / "report.html"
    write_html(file, gallery("Zoë's images", []))
    assert "Zoë&#39;s images" in file.read_text(encoding="utf-8")


def test_a_template_refuses_a_missing_value():
    with pytest.raises(jinja2.UndefinedError, match="undefined"):
        render("gallery.html")
