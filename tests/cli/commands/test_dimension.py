"""`dimension`, as a user runs it."""

import json
import re
import shlex

import pytest
from models.layouts import write_layout


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
    nearsight("reduce-dim", "--dim", "20", "--out", tmp_path / "small")
    text = nearsight("dimension", "-c", tmp_path / "small", "--keep", "0.05").stdout
    assert "cannot be reduced again" in text
    assert "nearsight reduce-dim -c ORIGINAL --dim 16 --out small/" in text


def test_vectors_that_can_be_truncated_are_not_projected(nearsight, save_image, tmp_path):
    folder = write_layout(tmp_path / "a model", outputs={"image_embeds": [64]})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "matryoshka_dimensions": [20]}))
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(60):
        save_image(images / f"{seed}.png", seed)
    nearsight("index", images, "--model", f"dir:{folder}")
    document = json.loads(nearsight("dimension", "--json", "--keep", "0.05").stdout)
    assert [row["dim"] for row in document["dimensions"]] == [32, 64]
    last = nearsight("dimension", "--keep", "0.05").stdout.splitlines()[-1]
    assert last.endswith(f"--to 'dir:{folder}#dim=32'")
    command = shlex.split(last)[1:]
    nearsight(*command)
    assert json.loads(nearsight("info", "--json").stdout)["dim"] == 32
