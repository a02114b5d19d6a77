"""Devices that a model can run on: their names, their packages, and what this machine has."""

import difflib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from nearsight import processor
from nearsight.errors import InvalidParameterError

#: ONNX Runtime's name for each device, in the order in which `auto` tries them.
PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
#: Devices that `auto` skips: TensorRT builds an engine for minutes before the first image.
BY_NAME_ONLY = ("tensorrt",)
#: All devices except the processor. `mps` is torch's name for the GPU of a Mac.
ACCELERATORS = (*PROVIDERS, "mps")
#: Devices that can be requested.
DEVICES = ("auto", "cpu", *ACCELERATORS)

#: Builds of ONNX Runtime. They install into the same folder, so only one of them may be installed.
ONNXRUNTIME_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-qnn",
    "onnxruntime-training",
)
_PACKAGE_BY_DEVICE = {
    # The extras install CUDA's libraries, which the driver does not include.
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
        There is no such device; the message suggests a similar name.

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
        f"device is {device!r}; {hint}It must be one of {', '.join(DEVICES)}, with a number where there are "
        "several, such as cuda:1"
    )


def installed_onnxruntime_packages() -> list[str]:
    """Return the installed builds of ONNX Runtime; two or more overwrite each other's files."""
    return [name for name in ONNXRUNTIME_PACKAGES if is_installed(name)]


def is_installed(distribution: str) -> bool:
    """Whether a package of that name is installed; imports nothing."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def install_command(device: str, packages: Sequence[str] | None = None) -> str:
    """Return the command that makes a device usable and leaves one build of ONNX Runtime.

    Parameters
    ----------
    device : str
        Its name.
    packages : sequence of str, optional
        The installed builds; by default they are looked up.

    Examples
    --------
    >>> install_command("cuda", ["onnxruntime"])
    "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"
    """
    if device == "openvino":
        return "pip install 'nearsight[openvino]'"
    if device == "mps":
        return "pip install 'nearsight[torch]'"
    return _replacement_command(
        _PACKAGE_BY_DEVICE.get(device, "onnxruntime"),
        installed_onnxruntime_packages() if packages is None else packages,
    )


def remedy(device: str) -> str:
    """Return what to do if a device cannot be used."""
    run = f"run: {install_command(device)}"
    if device in ("cuda", "tensorrt") and not processor.has_nvidia_gpu():
        return f"this machine shows no NVIDIA GPU with its driver; if it has one, {run}"
    return run


def repair_onnxruntime_command(packages: Sequence[str]) -> str:
    """Return the command that leaves one build of ONNX Runtime: the one for the accelerator."""
    special = next((name for name in packages if name != "onnxruntime"), "onnxruntime")
    return _replacement_command(
        next((w for w in _PACKAGE_BY_DEVICE.values() if w.startswith(special + "[")), special), packages
    )


def _replacement_command(requirement: str, packages: Sequence[str]) -> str:
    # Remove the requested build too: only a new installation restores files that another build overwrote.
    uninstall = f"pip uninstall -y {' '.join(packages)} && " if packages else ""
    return f"{uninstall}pip install {_quoted(requirement)}"


def _quoted(requirement: str) -> str:
    # Shells treat brackets as a pattern.
    return f"'{requirement}'" if "[" in requirement else requirement


def idle_gpu_hint(offered: Sequence[str]) -> str:
    """Name a GPU that ONNX Runtime does not use, and how to use it; empty if there is none.

    Parameters
    ----------
    offered : sequence of str
        Provider names of the installed build of ONNX Runtime.
    """
    if not processor.has_nvidia_gpu():
        return ""
    problem = "the NVIDIA GPU is not used"
    if PROVIDERS["cuda"] not in offered:
        return f"{problem}: this onnxruntime has no CUDA. To use it: {install_command('cuda')}"
    return f"{problem}: onnxruntime has CUDA but cannot open it. To fix that: {install_command('cuda')}"


def nvidia_driver() -> str:
    """Return names and versions of the NVIDIA driver and GPUs; empty if there are none."""
    facts = []
    for pattern in ("version", "gpus/*/information"):
        for path in sorted(Path("/proc/driver/nvidia").glob(pattern)):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
            facts += [line.strip() for line in lines if line.startswith(("NVRM", "Model"))]
    return "; ".join(facts)
