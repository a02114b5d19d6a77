"""`train`, as a user runs it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
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
    assert f"Views: {sheet}" in result.stderr
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
    again = nearsight("train", kinds, "--labels", labels, "--to", model)
    assert "not proven better" in again.stdout
    assert f"--model dir:{model}" in again.stdout
    # The collection's model is another one now; the message names the way on.
    assert f"nearsight upgrade --to dir:{model}. Another name keeps both" in again.stderr
    refused = nearsight("search", files[0], code=2).stderr
    command = re.search(r"the model was replaced since.*: nearsight (upgrade .*)", refused)[1]
    nearsight(*shlex.split(command))
    assert len(json.loads(nearsight("search", files[0], "-k", 3, "--json").stdout)["hits"]) == 3


def test_a_folder_with_other_files_is_refused_before_anything_is_embedded(nearsight, kinds, tmp_path):
    shutil.copy(next(kinds.iterdir()), tmp_path / "mine.png")
    result = nearsight("train", kinds, "--to", tmp_path, code=2)
    assert "is not empty and holds no trained model" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


STAGES = ("embedding", "feature maps", "an epoch", "the second training", "export")


@pytest.mark.slow
def test_a_training_that_is_killed_in_each_stage_ends_with_the_same_files(nearsight, tmp_path):
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / "images" / name).mkdir(parents=True)
        pattern = rng.integers(0, 256, (4, 4, 3))
        for number in range(6):
            noisy = np.clip(pattern + rng.normal(0, 60, (4, 4, 3)), 0, 255).astype(np.uint8)
            image = Image.fromarray(noisy).resize((64, 64), Image.Resampling.BICUBIC)
            image.save(tmp_path / "images" / name / f"{number}.png")
    script = Path(__file__).parents[2] / "training" / "dying_training.py"
    # Another number of threads adds in another order.
    env = {k: v for k, v in {**os.environ, **nearsight.env}.items() if v is not None}
    env |= {"NEARSIGHT_WITHOUT": "cores", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def train(folder, stage):
        words = [
            "train",
            tmp_path / "images",
            "--to",
            folder / "model",
            "--depth",
            "last",
            "--views",
            2,
            "--known-only",
        ]
        command = [sys.executable, script, stage, *words]
        return subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, check=False)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    done = train(whole, "")
    assert done.returncode == 0, done.stderr
    for stage in STAGES:
        assert train(killed, stage).returncode == -9, stage
        assert not (killed / "model").exists()
    # What the killed processes had done is there, and is not done again.
    epochs = (killed / ".model.training" / "final.pt").stat().st_mtime_ns
    done = train(killed, "export")
    assert done.returncode == -9, done.stderr
    assert (killed / ".model.training" / "final.pt").stat().st_mtime_ns == epochs
    done = train(killed, "")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in killed.iterdir()] == ["model"]
    names = sorted(path.name for path in (whole / "model").iterdir())
    assert sorted(path.name for path in (killed / "model").iterdir()) == names
    assert "epochs.svg" in names
    for name in names:
        contents = [(folder / "model" / name).read_bytes() for folder in (whole, killed)]
        if name == "training.json":
            records = list(map(json.loads, contents))
            assert all(record.pop("seconds") > 0 for record in records)
            assert records[0]["depth"] == "last"
            contents = records
        assert contents[0] == contents[1], name
