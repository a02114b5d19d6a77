"""Each script of examples/ runs as a user would run it."""

import subprocess
import sys
from pathlib import Path

import preloaded
import pytest

EXAMPLES = {path.stem: path for path in sorted((Path(__file__).parents[1] / "examples").glob("*.py"))}
# Started by the interpreter; the others by a process that has imported the engines already.
STARTED = "search"
WARNED = "import warnings; warnings.simplefilter('error', ResourceWarning)\n"


def test_there_are_examples() -> None:
    assert STARTED in EXAMPLES


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name == STARTED:
        command = [sys.executable, "-W", "error::ResourceWarning", EXAMPLES[name]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    else:
        done = preloaded.run(WARNED + EXAMPLES[name].read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    # An example cleans up after itself, and closes what it opens.
    assert not list(tmp_path.iterdir())
    assert "ResourceWarning" not in done.stderr
