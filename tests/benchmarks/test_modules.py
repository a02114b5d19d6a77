import importlib
from pathlib import Path

import pytest

import benchmarks

MODULES = sorted(path.stem for path in Path(benchmarks.__file__).parent.glob("*.py") if path.stem[0] != "_")


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_begins(name):
    """What it takes from the package is there: nothing else runs most of them between two releases."""
    try:
        importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("nearsight", "benchmarks"):
            raise
        pytest.skip(f"{error.name} is not installed")
