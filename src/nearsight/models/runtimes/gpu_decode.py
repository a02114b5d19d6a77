"""Decodes JPEGs on an NVIDIA GPU with nvImageCodec."""

import importlib.util

from nearsight import processor
from nearsight.models.runtimes.devices import split_device
from nearsight.models.runtimes.onnx_session import offered_devices


def is_installed() -> bool:
    """Whether nvImageCodec is installed; imports nothing of it."""
    try:
        return importlib.util.find_spec("nvidia.nvimgcodec") is not None
    except ModuleNotFoundError:
        return False


def is_usable(device: str) -> bool:
    """Whether a model on the requested device gets its JPEGs from a GPU.

    Parameters
    ----------
    device : str
        See `devices.DEVICES`.

    Raises
    ------
    InvalidParameterError
        There is no device of that name.
    """
    name, _ = split_device(device)
    return (
        name in ("auto", "cuda")
        and is_installed()
        and processor.has_nvidia_gpu()
        and "cuda" in offered_devices()
    )
