"""What others wrote is as they published it, and says under which license."""

import gzip
import hashlib
import json
from pathlib import Path

WEB = Path(__file__).parents[2] / "src" / "nearsight" / "web"
VENDOR = WEB / "vendor"


def test_vendored_files_are_unchanged_and_named():
    named = json.loads((VENDOR / "VENDOR.json").read_text())
    scripts = {file.name for file in VENDOR.iterdir() if file.suffix in {".js", ".css"}}
    assert set(named) == scripts
    for name, facts in named.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == facts["sha256"]
        assert facts["license"]
        assert facts["version"] in name


def test_the_page_is_small_and_asks_nobody_else():
    files = [file for file in WEB.rglob("*") if file.suffix in {".js", ".css", ".html", ".svg"}]
    without_map = [file.read_bytes() for file in files if "map" not in file.parts]
    assert sum(map(len, without_map)) < 208_652
    # As the service sends it.
    assert sum(len(gzip.compress(content)) for content in without_map) < 80_159
    for file in files:
        text = file.read_text(encoding="utf-8")
        if file.parent != VENDOR:
            # The names of XML's vocabularies are addresses that nobody visits.
            assert "https://" not in text.replace("http://www.w3.org/", ""), file
            assert "eval(" not in text, file
            assert "new Function" not in text, file
            assert "innerHTML" not in text, file
