"""`dimension`, as a user runs it."""

import json
import re

import pytest


@pytest.mark.slow
def test_the_curve_is_told_with_advice_and_a_report(nearsight, kinds, tmp_path):
    nearsight("index", kinds)
    page = tmp_path / "dimension.html"
    document = json.loads(nearsight("dimension", "--html", page, "--json").stdout)
    assert document["schema"] == 1
    assert document["dimensions"][-1]["dim"] == 1280
    assert document["advised_dim"] in [row["dim"] for row in document["dimensions"]]
    assert document["rule"] in page.read_text()
    assert "<svg" in page.read_text()
    text = nearsight("dimension", "--keep", "0.3").stdout
    # The command is to run as it stands, wherever the collection is.
    assert re.search(r"nearsight reduce-dim -c \S+ --dim 16 --out small/\n", text)
