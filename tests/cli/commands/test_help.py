import shutil
import subprocess

import pytest
from cli_reference import leaves

from nearsight.cli.main import cli


def test_help_of_a_command(nearsight):
    assert nearsight("help", "search").stdout == nearsight("search", "--help").stdout
    assert "classify fit" in nearsight.json("help", "classify", "fit")["command"]
    assert "no commands" in nearsight.json("help", "search", "fit", code=2)["error"]["message"]


def test_a_man_page_for_every_command(nearsight, tmp_path):
    folder = tmp_path / "share" / "man1"
    files = nearsight.json("help", "--man", folder)["files"]
    names = {file.name for file in folder.iterdir()}
    assert len(files) == len(names)
    assert names >= {f"nearsight-{name.replace(' ', '-')}.1" for name, _ in leaves(cli)}
    assert "nearsight.1" in names
    text = (folder / "nearsight-export.1").read_text(encoding="utf-8")
    assert "nearsight\\-export \\- Write the collection to a file for other tools.\n" in text
    # A line that starts with a dot would be lost.
    assert "\n\\&.npz holds" in text
    assert text.index(".SH EXAMPLES") < text.index("nearsight export vectors.parquet")
    nearsight("help", "search", "--man", folder, code=2)


def test_man_pages_have_no_roff_errors(nearsight, tmp_path):
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    nearsight("help", "--man", tmp_path)
    for file in tmp_path.glob("*.1"):
        done = subprocess.run(["groff", "-man", "-ww", "-Tascii", file], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
