"""Commands that embed nothing do not import what only embedding or analyses need."""

import os
import subprocess
import sys

import pytest

HEAVY = ("numpy", "pyarrow", "lancedb", "PIL", "onnxruntime", "onnx", "sqlglot", "sklearn", "fsspec", "tqdm")


def imported(words, names, env=None):
    """Run a command line, and return which of the modules it has imported."""
    program = (
        "import sys\n"
        "from nearsight.cli.main import cli\n"
        "try: cli()\n"
        f"finally: sys.stderr.write(' '.join(m for m in {names!r} if m in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **(env or {})},
    )
    assert done.stdout
    return done.stderr


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["index", "--help"], ["completion", "zsh"]])
def test_help_loads_nothing_heavy(words):
    assert imported(words, HEAVY) == ""


@pytest.mark.parametrize("words", [["info"], ["ls"], ["search", "--id", "ID"]])
def test_commands_that_embed_nothing_load_no_analysis_and_no_runtime(indexed, words):
    id = indexed.json("ls")["items"][0]["id"]
    env = {name: value for name, value in indexed.env.items() if value}
    words = [id if word == "ID" else word for word in words]
    assert imported(words, ("sklearn", "scipy", "joblib", "onnxruntime", "onnx", "sqlglot"), env) == ""


def test_the_service_and_its_jobs_load_no_analysis_library_before_one_runs():
    pytest.importorskip("fastapi")
    modules = "nearsight.server.app, nearsight.services.job_worker, nearsight.services.analysis_jobs"
    heavy = (
        "sklearn",
        "scipy.sparse",
        "scipy.stats",
        "scipy.ndimage",
        "umap",
        "onnxruntime",
        "lancedb",
        "torch",
    )
    program = f"import sys, {modules}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
