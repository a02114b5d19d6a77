"""`monitor`, as a user runs it."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.mark.slow
def test_new_images_of_another_kind_are_shown(nearsight, tmp_path):
    data = pytest.importorskip("skimage.data")
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for name, pixels, n in (
        ("cat", data.chelsea(), 210),
        ("new", data.chelsea(), 80),
        ("new_cup", data.coffee(), 30),
    ):
        for number in range(n):
            x, y = rng.integers(0, 100, 2)
            crop = Image.fromarray(pixels[y : y + 200, x : x + 300]).resize((96, 64))
            crop.save(folder / f"{name}{number}.png")
    nearsight("index", folder)
    page = tmp_path / "monitor.html"
    result = nearsight("monitor", "--new", "path LIKE '%/new%'", "--html", page, "--json")
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    # A few crops may be identical.
    assert 200 < document["known"] <= 210
    assert 100 < document["new"] <= 110
    assert document["unknown_kinds"]["p"] < 0.01
    assert "new_cup" in document["unknown_kinds"]["images"][0]["path"]
    assert not document["pipeline"]["changed"]
    assert document["pipeline"]["lowest_cosine"] > 0.9999
    assert "Beyond the limit" in page.read_text()
    text = nearsight("monitor", "--since", "2100-01-01", code=2)
    assert "0 new images" in text.stderr


def test_one_must_say_which_images_are_new(nearsight):
    assert "--since DATE, or --new EXPR" in nearsight("monitor", code=2).stderr
