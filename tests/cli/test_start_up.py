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


@pytest.mark.parametrize(
    ("modules", "extra"),
    [
        (("server.app", "services.job_worker", "services.analysis_jobs"), "fastapi"),
        (("training", "services.training", "services.evaluation", "services.monitor"), "numpy"),
    ],
)
def test_no_analysis_library_is_loaded_before_an_analysis_runs(modules, extra):
    pytest.importorskip(extra)
    heavy = (
        "sklearn",
        "scipy.sparse",
        "scipy.stats",
        "scipy.ndimage",
        "scipy.linalg",
        "umap",
        "onnxruntime",
        "lancedb",
        "torch",
    )
    names = ", ".join(f"nearsight.{module}" for module in modules)
    program = f"import sys, {names}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
