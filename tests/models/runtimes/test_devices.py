"""Names, packages, and what a machine has."""

from importlib import metadata

import pytest

from nearsight import processor
from nearsight.models.runtimes import devices


@pytest.mark.parametrize(
    ("device", "wheels", "command"),
    [
        (
            "cuda",
            ["onnxruntime"],
            "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'",
        ),
        (
            "tensorrt",
            ["onnxruntime", "onnxruntime-gpu"],
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]'",
        ),
        ("directml", [], "pip install onnxruntime-directml"),
        # Never onnxruntime-openvino: the package of its own is beside any build.
        ("openvino", ["onnxruntime"], "pip install 'nearsight[openvino]'"),
        ("mps", ["onnxruntime"], "pip install 'nearsight[torch]'"),
    ],
)
def test_the_command_leaves_one_build(device, wheels, command):
    assert devices.install_command(device, wheels) == command


def test_repairing_keeps_the_build_that_does_most():
    assert devices.repair_onnxruntime_command(["onnxruntime", "onnxruntime-qnn"]) == (
        "pip uninstall -y onnxruntime onnxruntime-qnn && pip install onnxruntime-qnn"
    )
    assert devices.repair_onnxruntime_command([]) == "pip install onnxruntime"


def test_installed_wheels(monkeypatch):
    # One, whichever it is: what else could these tests run on?
    assert len(devices.installed_onnxruntime_packages()) == 1
    monkeypatch.setattr(metadata, "version", lambda name: "1")
    assert set(devices.installed_onnxruntime_packages()) == set(devices.ONNXRUNTIME_PACKAGES)


def test_an_idle_gpu(monkeypatch):
    monkeypatch.setattr(processor, "has_nvidia_gpu", lambda: False)
    assert devices.idle_gpu_hint([]) == ""
    monkeypatch.setattr(processor, "has_nvidia_gpu", lambda: True)
    assert "this onnxruntime has no CUDA" in devices.idle_gpu_hint(["CPUExecutionProvider"])
    assert "cannot open it" in devices.idle_gpu_hint(["CUDAExecutionProvider"])
