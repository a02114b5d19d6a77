"""One rule for images that cannot be read: listed and warned of, exit code 0; with `--strict` 1."""

import click
import numpy as np
import pytest
from PIL import Image

from nearsight.cli.main import cli


def leaves(group, *words):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, *words, name)
        else:
            yield " ".join((*words, name)), command


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Two classes of twelve images each, and a file that is no image."""
    folder = tmp_path_factory.mktemp("broken")
    rng = np.random.default_rng(0)
    for name in ("light", "dark"):
        (folder / name).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 100, (64, 96, 3), np.uint8) + np.uint8(120 * (name == "light"))
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    (folder / "dark" / "bad.png").write_bytes(b"this is no image")
    return folder


def test_every_command_that_lists_failures_has_strict():
    listing = {name for name, command in leaves(cli) if '"failed"' in getattr(command, "json_shape", "")}
    strict = {name for name, command in leaves(cli) if any(p.name == "strict" for p in command.params)}
    assert {"index", "embed", "anomaly fit", "anomaly score", "faces enroll", "faces identify"} <= listing
    assert listing <= strict


@pytest.mark.parametrize(
    "words",
    [
        ("index", "FOLDER"),
        ("embed", "FOLDER", "--out", "OUT/v.npz"),
        pytest.param(("classify", "fit", "--labels", "FOLDER", "--to", "OUT/c.npz"), marks=pytest.mark.slow),
        pytest.param(
            ("anomaly", "fit", "FOLDER", "--to", "OUT/d.npz", "--false-alarm-rate", "0.2"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_one_broken_file_is_warned_of(nearsight, broken, tmp_path, words):
    words = [word.replace("FOLDER", str(broken)).replace("OUT", str(tmp_path)) for word in words]
    result = nearsight(*words, code=0)
    assert "1 image could not be read" in result.stderr
    assert "bad.png" in result.stderr
    [failure] = nearsight.json(*words, "--strict", code=1)["failed"]
    assert failure["path"] == str(broken / "dark" / "bad.png")
    error = nearsight.json(*words, "--fail-fast", code=1) if words[0] in ("index", "embed") else None
    assert error is None or error["error"]["type"] == "ImageError"
