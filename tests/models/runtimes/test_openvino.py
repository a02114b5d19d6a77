"""bfloat16 with OpenVINO, and the rounding that goes before it."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

from nearsight.errors import MissingExtraError
from nearsight.models import find_model, load_model
from nearsight.models.graph_structure import convolutions
from nearsight.models.onnx_graph import weights
from nearsight.models.precision.bias_correction import round_to_bfloat16, to_bfloat16
from nearsight.models.precision.parity import compare
from nearsight.models.runtimes import openvino
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.synthetic_images import synthetic_images
from nearsight.testing import BackendTests

pytestmark = pytest.mark.processor

needs_bfloat16 = pytest.mark.skipif(
    not openvino.has_bfloat16(), reason="needs OpenVINO and a processor with bfloat16"
)


@pytest.fixture(scope="module")
def bf16(cache_dir):
    with warnings.catch_warnings():
        # How near it is, told at the first use.
        warnings.simplefilter("ignore")
        return load_model("efficientnet-lite0#bf16", cache_dir=cache_dir)


@pytest.mark.slow
@needs_bfloat16
@pytest.mark.filterwarnings("ignore:.*measured once on this machine")
class TestConformance(BackendTests):
    @pytest.fixture
    def backend(self, bf16):
        return bf16

    def test_is_near_the_exact_model(self, backend, cache_dir):
        exact = load_model(cache_dir=cache_dir)
        images = synthetic_images(20, seed=99)
        X, wanted = (b.embed([b.prepare(p) for p in images]) for b in (backend, exact))
        # Photographs come nearer, see benchmarks/runtimes.py.
        assert compare(X, wanted).smallest > 0.997
        assert not np.array_equal(X, wanted)


@pytest.mark.slow
@pytest.mark.skipif(not openvino.is_installed(), reason="needs OpenVINO")
def test_nothing_is_reported_to_anybody():
    program = (
        "import os, sys\n"
        "forks = []\n"
        "os.register_at_fork(before=lambda: forks.append(1))\n"
        "from nearsight.models.runtimes import openvino\n"
        "openvino.import_openvino()\n"
        "import time; time.sleep(1)\n"
        "print(forks, sys.modules.get('openvino_telemetry'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[] None", done.stdout + done.stderr


def test_the_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nearsight\[openvino\]'"):
        openvino.import_openvino()


def test_rounds_to_the_nearest_of_eight_bits():
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(2000) * 10.0 ** rng.integers(-8, 8, 2000)).astype(np.float32)
    found = to_bfloat16(values)
    # Eight significant bits: a frexp mantissa that is a multiple of 2^-8.
    mantissa, exponent = np.frexp(values.astype(np.float64))
    wanted = np.ldexp(np.round(mantissa * 256) / 256, exponent)
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


@pytest.fixture(scope="module")
def lite0(cache_dir):
    entry = find_model("efficientnet-lite0")
    return entry.spec, entry.variants.graph(cache_dir)


@pytest.mark.slow
def test_corrected_biases_bring_features_back(lite0):
    spec, graph = lite0
    excluded = ("stem", "block0")
    bf16_graph = round_to_bfloat16(graph, spec, float32_operations=excluded)
    before, after = weights(graph), weights(bf16_graph)
    only_rounded = {c.weight: to_bfloat16(before[c.weight]) for c in convolutions(graph)}
    for convolution in convolutions(graph):
        is_excluded = convolution.name.startswith(("stem", "block0."))
        expected = before[convolution.weight] if is_excluded else only_rounded[convolution.weight]
        np.testing.assert_array_equal(after[convolution.weight], expected)
    from nearsight.models.onnx_graph import with_weights

    images = synthetic_images(12, seed=5)
    exact, plain, better = (
        backend.embed([backend.prepare(p) for p in images])
        for backend in (
            OnnxBackend(spec, graph),
            OnnxBackend(spec, with_weights(graph, only_rounded)),
            OnnxBackend(spec, bf16_graph),
        )
    )
    # A third of the loss is left, or less.
    assert 1 - compare(better, exact).mean < (1 - compare(plain, exact).mean) / 3


@pytest.mark.slow
def test_rounding_gives_the_same_bytes_each_time(lite0):
    spec, graph = lite0
    assert round_to_bfloat16(graph, spec) == round_to_bfloat16(graph, spec)
