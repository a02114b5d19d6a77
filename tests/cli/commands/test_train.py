"""`train`, as a user runs it."""

import json
import shutil

import pytest
from PIL import Image


@pytest.mark.slow
def test_a_model_is_trained_looked_at_and_used(nearsight, kinds, tmp_path):
    files = sorted(kinds.iterdir())
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"{file.name},{file.name[:3]}\n" for file in files))
    model, sheet = tmp_path / "model", tmp_path / "views.png"
    result = nearsight(
        "train", kinds, "--labels", labels, "--to", model, "--contact-sheet", sheet, "--dim", 4, "--json"
    )
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    assert document["model"] == f"dir:{model}"
    assert document["base"] == "efficientnet-lite0"
    assert document["dim"] == 4
    images = document["images"]
    assert images["fitted"] == len(files)
    assert 0 < images["test"] < len(files) / 2
    # A set that the pretrained model solves leaves nothing to gain.
    assert document["figures"]["recall@1"]["pretrained"] == 1
    assert not document["better_than_pretrained"]
    with Image.open(sheet) as shown:
        assert shown.width > 8 * 128
    for name in ("README.md", "training.json", "model.onnx", "model.onnx.json", "dimensions.svg"):
        assert (model / name).stat().st_size > 0
    assert (model / "dimensions.svg").read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    nearsight("index", kinds, "--model", f"dir:{model}")
    found = json.loads(nearsight("search", files[0], "-k", 3, "--json").stdout)["hits"]
    assert {hit["path"].rpartition("/")[2][:3] for hit in found} == {files[0].name[:3]}
    text = nearsight("train", kinds, "--labels", labels, "--to", model).stdout
    assert "not proven better" in text
    assert f"--model dir:{model}" in text


def test_a_folder_with_other_files_is_refused_before_anything_is_embedded(nearsight, kinds, tmp_path):
    shutil.copy(next(kinds.iterdir()), tmp_path / "mine.png")
    result = nearsight("train", kinds, "--to", tmp_path, code=2)
    assert "is not empty and holds no trained model" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]
