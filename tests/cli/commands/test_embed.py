import json
import os
import subprocess
import sys

import numpy as np
import pytest


def test_embed_writes_vectors_in_input_order(nearsight, photos, tmp_path, strange):
    out = tmp_path / "vectors.npz"
    inputs = [photos / "3.png", photos / "1.png", photos / strange]
    report = nearsight.json("embed", *inputs, "--out", out)
    assert (report["embedded"], report["failed"], report["dim"]) == (3, [], 1280)
    with np.load(out) as saved:
        assert saved["vectors"].shape == (3, 1280)
        assert saved["vectors"].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(saved["vectors"], axis=1), 1, rtol=1e-5)
        assert saved["paths"].tolist() == [str(path) for path in inputs]
        assert [len(id) for id in saved["ids"].tolist()] == [32] * 3
        assert os.fsencode(saved["paths"].tolist()[2]) == os.fsencode(inputs[2])
    assert not nearsight.collection.exists()


def test_embed_goes_past_a_bad_image(nearsight, photos, tmp_path):
    (tmp_path / "bad.jpg").touch()
    report = nearsight.json("embed", tmp_path / "bad.jpg", photos / "1.png", "--out", tmp_path / "v.npz")
    assert report["embedded"] == 1
    assert [f["path"] for f in report["failed"]] == [str(tmp_path / "bad.jpg")]


def test_embed_agrees_with_the_collection(indexed, photos, tmp_path):
    indexed("embed", photos, "--out", tmp_path / "a.npz")
    indexed("export", tmp_path / "b.npz")
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        mine = dict(zip(a["ids"].tolist(), a["vectors"], strict=True))
        for id, vector in zip(b["ids"].tolist(), b["vectors"], strict=True):
            np.testing.assert_allclose(mine[id], vector, atol=1e-6)


@pytest.mark.parametrize(
    ("out", "message"),
    [("vectors.txt", "must end in .npz"), ("nowhere/v.npz", "does not exist"), ("folder.npz", "is a folder")],
)
def test_embed_checks_where_to_write_before_it_starts(nearsight, photos, tmp_path, out, message):
    (tmp_path / "folder.npz").mkdir()
    error = nearsight.json("embed", photos, "--out", tmp_path / out, code=2)["error"]
    assert message in error["message"]


def test_embed_stopped_half_way_leaves_the_old_file(nearsight, tmp_path):
    out = tmp_path / "v.npz"
    out.write_bytes(b"old")
    (tmp_path / "bad.jpg").touch()
    nearsight("embed", tmp_path / "bad.jpg", "--out", out, "--fail-fast", code=1)
    assert out.read_bytes() == b"old"
    assert {p.name for p in tmp_path.iterdir()} == {"v.npz", "bad.jpg"}


def test_embed_of_nothing_but_failures_is_an_empty_table(nearsight, tmp_path):
    (tmp_path / "bad.jpg").touch()
    nearsight("embed", tmp_path / "bad.jpg", "--out", tmp_path / "v.npz")
    with np.load(tmp_path / "v.npz") as saved:
        assert saved["vectors"].shape == (0, 1280)
        assert saved["paths"].tolist() == saved["ids"].tolist() == []


def test_embed_on_a_full_disk_leaves_nothing_behind(indexed, photos, tmp_path):
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "from nearsight.cli.main import main; main()"
    )
    env = {**os.environ, **{name: value for name, value in indexed.env.items() if value}}
    words = ["embed", photos, "--out", tmp_path / "v.npz", "--json"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, env=env, timeout=60)
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "StorageError"
    assert "v.npz could not be written" in error["message"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_passed_over_is_told(nearsight, tmp_path, save_image):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for seed, name in enumerate(("a.png", "b_small.png", ".c.png")):
        save_image(folder / name, seed)
    (folder / "d.psd").touch()
    out = ("--out", tmp_path / "v.npz")
    report = nearsight.json("embed", folder, *out, "--exclude", "*_small.png")
    assert (report["embedded"], report["skipped"]) == (1, {".psd": 1, "excluded": 1, "hidden": 1})
    assert "skipped: 1 .psd" in nearsight("embed", folder, *out, "--include-hidden").stdout


def test_nothing_there_is_an_error_and_leaves_no_file(nearsight, tmp_path):
    (tmp_path / "empty").mkdir()
    error = nearsight.json("embed", tmp_path / "empty", "--out", tmp_path / "v.npz", code=2)["error"]
    assert "there is no image in" in error["message"]
    assert not (tmp_path / "v.npz").exists()


def test_embed_decodes_in_full(nearsight, photos, tmp_path):
    report = nearsight.json("embed", photos, "--out", tmp_path / "v.npz", "--decode", "full")
    assert report["model"] == "efficientnet-lite0#decode=full"
