"""Devices that a model may run on: their names, the packages that bring them, and what this machine has."""

import difflib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from nearsight import processor
from nearsight.errors import InvalidParameterError

#: By the name that people use, what ONNX Runtime calls the device. The best first, as `auto` tries them.
PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
#: Never tried by `auto`: TensorRT builds an engine for minutes before the first image.
BY_NAME_ONLY = ("tensorrt",)
#: All but the processor. `mps` is the GPU of a Mac as torch calls it.
ACCELERATORS = (*PROVIDERS, "mps")
#: What may be asked for.
DEVICES = ("auto", "cpu", *ACCELERATORS)

#: Builds of ONNX Runtime. All put their files into one folder, so there must never be two of them.
WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-qnn",
    "onnxruntime-training",
)
_WHEEL_OF = {
    # With the libraries of CUDA, which the driver alone does not bring.
    "cuda": "onnxruntime-gpu[cuda,cudnn]",
    "tensorrt": "onnxruntime-gpu[cuda,cudnn]",
    "directml": "onnxruntime-directml",
    "coreml": "onnxruntime",
}


def split_device(device: str) -> tuple[str, int]:
    """Return a device's name and number.

    Raises
    ------
    InvalidParameterError
        There is no such device; the message suggests the nearest.

    Examples
    --------
    >>> split_device("cuda:1"), split_device("auto")
    (('cuda', 1), ('auto', 0))
    """
    name, colon, number = device.partition(":")
    if name in DEVICES and (not colon or number.isdecimal()):
        return name, int(number or 0)
    near = difflib.get_close_matches(name, DEVICES, n=1)
    hint = f"did you mean {near[0]}? " if near and near[0] != name else ""
    raise InvalidParameterError(
        f"device is {device!r}; {hint}It is one of {', '.join(DEVICES)}, with a number where there are "
        "several, such as cuda:1"
    )


def installed_wheels() -> list[str]:
    """Return which builds of ONNX Runtime are installed; more than one overwrite each other's files."""
    return [name for name in WHEELS if installed(name)]


def installed(distribution: str) -> bool:
    """Whether a package of that name is installed; imports nothing."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def install_command(device: str, wheels: Sequence[str] | None = None) -> str:
    """Return the command that makes a device usable; it never leaves two builds of ONNX Runtime.

    Parameters
    ----------
    device : str
        Its name.
    wheels : sequence of str, optional
        The builds that are installed; by default those that are.

    Examples
    --------
    >>> install_command("cuda", ["onnxruntime"])
    "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"
    """
    if device == "openvino":
        return "pip install 'nearsight[openvino]'"
    if device == "mps":
        return "pip install 'nearsight[torch]'"
    return _replaced(_WHEEL_OF.get(device, "onnxruntime"), installed_wheels() if wheels is None else wheels)


def way_out(device: str) -> str:
    """Say what to do where a device cannot be used."""
    run = f"run: {install_command(device)}"
    if device in ("cuda", "tensorrt") and not processor.has_nvidia_gpu():
        return f"no NVIDIA GPU with its driver is seen on this machine; where there is one, {run}"
    return run


def repair_command(wheels: Sequence[str]) -> str:
    """Return the command that makes one build of ONNX Runtime of several: the one that does most."""
    special = next((name for name in wheels if name != "onnxruntime"), "onnxruntime")
    return _replaced(next((w for w in _WHEEL_OF.values() if w.startswith(special + "[")), special), wheels)


def _replaced(wanted: str, wheels: Sequence[str]) -> str:
    # The wanted one too: what another has written over, only a new installation brings back.
    gone = f"pip uninstall -y {' '.join(wheels)} && " if wheels else ""
    return f"{gone}pip install {_quoted(wanted)}"


def _quoted(wanted: str) -> str:
    # Shells read brackets as a pattern.
    return f"'{wanted}'" if "[" in wanted else wanted


def idle_gpu(offered: Sequence[str]) -> str:
    """Say that a GPU would stand idle, and how to use it; empty where there is none.

    Parameters
    ----------
    offered : sequence of str
        What this build of ONNX Runtime calls the devices it knows.
    """
    if not processor.has_nvidia_gpu():
        return ""
    said = "there is an NVIDIA GPU, and it stands idle"
    if PROVIDERS["cuda"] not in offered:
        return f"{said}: this onnxruntime has no CUDA. To use it: {install_command('cuda')}"
    return f"{said}: onnxruntime has CUDA, but cannot open it. To mend that: {install_command('cuda')}"


def driver() -> str:
    """Name the NVIDIA driver and the GPUs, as far as the system tells; empty where there are none."""
    facts = []
    for pattern in ("version", "gpus/*/information"):
        for path in sorted(Path("/proc/driver/nvidia").glob(pattern)):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
            facts += [line.strip() for line in lines if line.startswith(("NVRM", "Model"))]
    return "; ".join(facts)
