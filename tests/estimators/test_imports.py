"""Estimators import no model, image or optional heavy package before it is needed."""

import pkgutil
import subprocess
import sys

import pytest

from nearsight import estimators

HEAVY = ("umap", "numba", "onnxruntime", "lancedb", "nearsight.models", "nearsight.images")


@pytest.mark.slow
def test_importing_every_estimator_loads_nothing_heavy():
    modules = [m.name for m in pkgutil.walk_packages(estimators.__path__, "nearsight.estimators.")]
    assert "nearsight.estimators.layout2d" in modules
    code = f"import sys, {', '.join(modules)}; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
