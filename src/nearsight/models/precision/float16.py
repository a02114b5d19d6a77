"""Converts a network to float16, which accelerators compute fast, with ONNX Runtime's converter."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.models.base import Backend
from nearsight.models.cache import cached_bytes
from nearsight.models.graph_structure import chained_operations, is_excluded, named_operations
from nearsight.models.onnx_graph import convert_types, with_operation_names
from nearsight.models.precision.bias_correction import correction_images, round_with_bias_correction
from nearsight.models.runtimes import openvino
from nearsight.models.runtimes.devices import split_device
from nearsight.models.runtimes.onnx import OnnxBackend, OnnxDeviceBackend
from nearsight.models.spec import ModelSpec

#: Part of the fingerprint: increase it whenever float16 vectors change.
VERSION = 1
#: Warning for processors that do not compute in float16.
SLOW_PROCESSOR_NOTE = "this processor does not compute in float16, so it is slower than float32 here"

# Squares exceed the range of float16 from 256 on, and means of squares are too coarse to divide by. Single
# operations that normalize a layer handle that themselves.
_FLOAT32_KINDS = ("Pow", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "Sqrt", "Exp", "Log")
_ELEMENTWISE_KINDS = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Clip", "Reciprocal")


def convert_to_float16(
    model: Path | bytes, spec: ModelSpec, *, float32_operations: Sequence[str] = ()
) -> bytes:
    """Return the model with weights and activations in float16; inputs and outputs stay float32.

    *Method*: weights are rounded and biases corrected, see `bias_correction.round_with_bias_correction`. On
    photographs, the correction raised the smallest cosine to the exact vectors from 0.9998 to 0.99998.
    Squares, roots and sums stay in float32, as is usual in mixed precision (Micikevicius et al. 2018, arXiv
    1710.03740, section 3.3).

    Parameters
    ----------
    model : Path or bytes
        An ONNX model in float32 with one input.
    spec : ModelSpec
        Gives the normalization of prepared images.
    keep : sequence of str
        Operations that stay in float32, see `graph_structure.is_excluded`.

    Raises
    ------
    WeightsError
        The converter fails on the model, or makes an invalid one.
    """
    from onnxruntime.transformers import float16

    near = round_weights_to_float16(model, spec, float32_operations=float32_operations)
    names = [name for name, _ in named_operations(near) if is_excluded(name, float32_operations)]
    names += chained_operations(near, _FLOAT32_KINDS, _ELEMENTWISE_KINDS)

    def convert(proto: Any) -> Any:
        return float16.convert_float_to_float16(proto, keep_io_types=True, node_block_list=names)

    try:
        return convert_types(near, convert)
    # The converter documents no exceptions.
    except Exception as error:
        raise WeightsError(
            f"{spec.id} cannot be converted to float16: {type(error).__name__}: {error}"
        ) from error


def round_weights_to_float16(
    model: Path | bytes, spec: ModelSpec, *, float32_operations: Sequence[str] = ()
) -> bytes:
    """Return the float32 model with the weights of its convolutions rounded to float16."""
    return round_with_bias_correction(
        with_operation_names(model),
        spec,
        to_float16,
        correction_images(spec),
        float32_operations=float32_operations,
    )


def to_float16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the nearest float16, at most 65504; the result is float32.

    Examples
    --------
    >>> import numpy as np
    >>> to_float16(np.array([1.0, 0.1, 3.1415927, 1e6], np.float32)).tolist()
    [1.0, 0.0999755859375, 3.140625, 65504.0]
    """
    most = float(np.finfo(np.float16).max)
    return np.clip(values, -most, most).astype(np.float16).astype(np.float32)


def open_float16(
    spec: ModelSpec,
    graph: Path | bytes,
    device: str,
    cache_dir: Path,
    *,
    stem: str,
    float32_operations: Sequence[str],
    reload: Callable[[], Backend],
) -> Backend:
    """Return a model in float16 on a device, without a check of its vectors.

    OpenVINO runs it on its own devices and on a processor that computes in float16. ONNX Runtime on a
    processor converts float16 weights and computes in float32, which takes a third longer than float32.

    Parameters
    ----------
    spec : ModelSpec
        The facts of the backend.
    graph : Path or bytes
        The model in full precision.
    device : str
        As for `MultiDeviceBackend.to_device`, or ``cpu``.
    cache_dir : Path
        Directory for the converted model.
    stem : str
        Name of the cached file.
    keep : sequence of str
        Operations that stay in float32, see `graph_structure.is_excluded`.
    reload : callable
        Returns the same backend; used to unpickle it.

    Raises
    ------
    DeviceError, MissingExtraError
        The device is missing, or does not compute in float16.
    WeightsError
        The model cannot be converted.
    """
    name, _ = split_device(device)
    if name == "openvino" or (name == "cpu" and openvino.has_float16()):
        openvino.require_float16()
        near = cached_bytes(
            cache_dir / "models",
            f"near-{stem}",
            ".onnx",
            lambda: round_weights_to_float16(graph, spec, float32_operations=float32_operations),
        )
        return openvino.OpenVinoBackend(
            spec,
            near,
            float32_operations=float32_operations,
            precision="f16",
            gpu=name != "cpu",
            reload=reload,
        )
    half = cached_bytes(
        cache_dir / "models",
        stem,
        ".onnx",
        lambda: convert_to_float16(graph, spec, float32_operations=float32_operations),
    )
    if name == "cpu":
        return OnnxBackend(spec, half, reload=reload)
    return OnnxDeviceBackend(spec, half, device=device, cache_dir=cache_dir, reload=reload)
