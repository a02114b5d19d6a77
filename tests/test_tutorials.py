"""The commands of a tutorial run one after another, as a reader would type them."""

import re
import shlex
import shutil
import webbrowser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "your-own-model.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
CLASSES = ("cap", "coat", "dress")


def commands():
    lines = [line for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")) for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def save(file: Path, kind: int, seed: int) -> None:
    """Write stripes whose direction and color tell the class."""
    rng = np.random.default_rng([kind, seed])
    y, x = np.mgrid[0:64, 0:96]
    wave = np.sin((x * (kind + 1) + y * (3 - kind)) / 9 + rng.uniform(0, 6))
    pixels = 128 + 60 * wave[..., None] * np.roll([1.0, 0.4, 0.1], kind) + rng.normal(0, 12, (64, 96, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The folders of which the tutorial speaks."""
    for kind, name in enumerate(CLASSES):
        for seed in range(16):
            part = "train" if seed < 10 else "test"
            save(tmp_path / "products" / part / name / f"{seed}.png", kind, seed)
        for seed in range(100, 135):
            save(tmp_path / "catalog" / name / f"{seed}.png", kind, seed)
            save(tmp_path / "arrivals" / name / f"{seed + 100}.png", kind, seed + 100)
    shutil.copytree(tmp_path / "products" / "train" / "cap", tmp_path / "shelf")
    shutil.copy(tmp_path / "shelf" / "0.png", tmp_path / "photo.jpg")
    shutil.copytree(tmp_path / "products" / "train", tmp_path / "photos")
    pairs = [(f"{name}/{2 * n}.png", f"{name}/{2 * n + 1}.png") for name in CLASSES for n in range(5)]
    lines = ["first,second", *(",".join(pair) for pair in pairs)]
    (tmp_path / "photos" / "same.csv").write_text("\n".join(lines) + "\n")
    shutil.copy(tmp_path / "photos" / "same.csv", tmp_path / "same.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webbrowser, "open", lambda url: True)
    return tmp_path


@pytest.mark.slow
def test_a_model_of_your_own_from_the_folder_to_the_watch(nearsight, shop):
    n_run = 0
    for program, *words in commands():
        if program == "pip" or ("last" in words and find_spec("torch") is None):
            continue
        assert program == "nearsight"
        result = nearsight(*words)
        n_run += 1
        text = result.stdout + result.stderr
        if "--dry-run" in words:
            assert "dir:my-model" in text
        if words[0] == "search":
            assert "/cap/" in text.splitlines()[1]
    assert n_run >= 14
    assert (shop / "views.jpg").stat().st_size > 0
    info = nearsight.json("info", "-c", "shop")
    assert info["model"] == f"dir:{shop / 'my-model'}"
    # The old vectors are gone for good.
    assert "was not upgraded" in nearsight("rollback", "-c", "shop", code=2).stderr
