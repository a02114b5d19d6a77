"""What a machine has, and that each feature can be hidden from everything that asks."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nearsight import processor
from nearsight.embedder import Embedder
from nearsight.errors import DeviceError, InvalidParameterError, UnknownModelError
from nearsight.models import load_model
from nearsight.models.runtimes import openvino

from fake import FakeBackend

pytestmark = pytest.mark.processor

CPUINFO = """\
processor\t: 0
model name\t: Some Processor
cpu MHz\t\t: 2000.123
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 avx512_fp16
"""

PROGRAM = """\
from nearsight import processor
from nearsight.models.runtimes import openvino

print({
    "bfloat16": openvino.has_bfloat16(),
    "float16": openvino.has_float16(),
    "gpu": processor.has_nvidia_gpu() or openvino.has_gpu(),
    "cores": processor.n_cores() > 1,
})
"""

needs_openvino = pytest.mark.skipif(not openvino.is_installed(), reason="needs OpenVINO")


@pytest.fixture
def cpuinfo(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    return path


@pytest.fixture
def hide(monkeypatch):
    return lambda *features: monkeypatch.setenv("NEARSIGHT_WITHOUT", ",".join(features))


def test_each_feature_can_be_hidden(hide):
    for feature, ask in {
        "bfloat16": openvino.has_bfloat16,
        "float16": openvino.has_float16,
        "gpu": lambda: processor.has_nvidia_gpu() or openvino.has_gpu(),
        "cores": lambda: processor.n_cores() > 1,
    }.items():
        hide(feature)
        assert not ask(), feature


def test_child_processes_inherit_what_is_hidden(hide):
    hide("bfloat16", "float16", "gpu", "cores")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert "False" in done.stdout, done.stderr
    assert "True" not in done.stdout


@pytest.mark.parametrize(
    ("hidden", "names"),
    [
        ((), {"fpu", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "avx512_fp16"}),
        (("vnni",), {"fpu", "avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_fp16"}),
        (("bfloat16", "float16"), {"fpu", "avx2", "avx512f", "avx512_vnni"}),
        (("avx512",), {"fpu", "avx2"}),
    ],
)
def test_instruction_sets(hide, cpuinfo, hidden, names):
    hide(*hidden)
    assert processor.instruction_sets(cpuinfo) == names


def test_the_description_holds_no_clock(cpuinfo, hide):
    hide()
    whole = processor.describe(cpuinfo)
    assert "Some Processor" in whole
    assert "MHz" not in whole
    hide("avx512")
    assert processor.describe(cpuinfo) != whole


def test_another_system_has_no_cpuinfo(tmp_path):
    assert processor.instruction_sets(tmp_path / "missing") == frozenset()


def test_an_unknown_feature_is_refused(hide):
    hide("bfloat17")
    with pytest.raises(InvalidParameterError, match=r"names 'bfloat17'; it takes avx512, vnni"):
        processor.n_cores()


def test_without_avx512_there_are_no_16_bits(hide):
    hide("avx512")
    assert (openvino.has_bfloat16(), openvino.has_float16()) == (False, False)


@needs_openvino
def test_what_needs_a_hidden_feature_says_so(hide, tmp_path):
    hide("bfloat16", "float16", "gpu")
    with pytest.raises(UnknownModelError, match="this processor has no bfloat16"):
        load_model("efficientnet-lite0#bf16", cache_dir=tmp_path)
    with pytest.raises(DeviceError, match="cannot compute in float16"):
        openvino.require_float16()


def test_one_core_is_one_thread(hide):
    hide("cores")
    assert Embedder(FakeBackend()).n_threads == 1


def test_a_gpu_is_one_that_can_be_opened(monkeypatch):
    devices = []
    monkeypatch.delenv("NEARSIGHT_WITHOUT", raising=False)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(devices))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    # The driver's tool alone, in a container without the GPU, is none.
    assert not processor.has_nvidia_gpu()
    devices.append(Path("/dev/nvidia0"))
    assert processor.has_nvidia_gpu()
