"""Brings a network to float16, with ONNX Runtime's converter: what accelerators are fast at."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.models.base import Backend
from nearsight.models.cache import kept
from nearsight.models.onnx_graph import chained, converted, is_kept, named, named_operations
from nearsight.models.precision.bias_correction import corrected, rounding_images
from nearsight.models.runtimes import openvino
from nearsight.models.runtimes.devices import split_device
from nearsight.models.runtimes.onnx import DeviceBackend, OnnxBackend
from nearsight.models.spec import ModelSpec

#: Part of the fingerprint: raise it whenever float16 vectors would be others.
VERSION = 1
#: Told where `open_half` has a processor that does not compute in float16.
SLOWER = "this processor has no arithmetic for it, so it is slower than float32 here"

# Squares leave the range of float16 at 256, and their means lose what a normalization divides by. Layers that
# are normalized by one operation take care of that themselves.
_PRECISE = ("Pow", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "Sqrt", "Exp", "Log")
# ONNX's numbers for types.
_FLOAT, _FLOAT16 = 1, 10
_BETWEEN = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Clip", "Reciprocal")


def halved(model: Path | bytes, spec: ModelSpec, *, keep: Sequence[str] = ()) -> bytes:
    """Return the model with weights and activations of 16 bits; its inputs and outputs stay float32.

    *Method*: weights are rounded with biases corrected as `rounding.corrected` says. On photographs, that
    raised the smallest cosine to the exact vectors from .9998 to .99998. Squares, roots and sums stay in
    float32, as is usual in mixed precision (Micikevicius et al. 2018, arXiv 1710.03740, section 3.3).

    Parameters
    ----------
    model : Path or bytes
        An ONNX model in float32 with one input.
    spec : ModelSpec
        Says how prepared images become numbers.
    keep : sequence of str
        Operations that stay in float32, see `graph.is_kept`.

    Raises
    ------
    WeightsError
        The converter cannot use the model.
    """
    from onnxruntime.transformers import float16

    near = near_half(model, spec, keep=keep)
    names = [name for name, _ in named_operations(near) if is_kept(name, keep)]
    names += chained(near, _PRECISE, _BETWEEN)

    def convert(proto: Any) -> Any:
        half = float16.convert_float_to_float16(proto, keep_io_types=True, node_block_list=names)
        _joined(half.graph)
        return half

    try:
        return converted(near, convert)
    # It raises whatever it stumbles over.
    except Exception as error:
        raise WeightsError(
            f"{spec.id} cannot be brought to float16: {type(error).__name__}: {error}"
        ) from error


def _joined(graph: Any) -> None:
    """Lead what stays in float32 straight on: up to ONNX Runtime 1.23, the converter rounds between."""
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    to = {name: node.attribute[0].i for name, node in casts.items()}
    direct = {
        name: casts[node.input[0]].input[0]
        for name, node in casts.items()
        if to[name] == _FLOAT and to.get(node.input[0]) == _FLOAT16
    }
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name in direct and node.op_type != "Cast":
                node.input[at] = direct[name]
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in [node for node in casts.values() if node.output[0] in direct and node.output[0] not in used]:
        graph.node.remove(node)


def near_half(model: Path | bytes, spec: ModelSpec, *, keep: Sequence[str] = ()) -> bytes:
    """Return the model with the weights of its convolutions as float16 has them, still in float32."""
    return corrected(named(model), spec, to_float16, rounding_images(spec), keep=keep)


def to_float16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the nearest number that 16 bits hold, 65504 at most; still float32.

    Examples
    --------
    >>> import numpy as np
    >>> to_float16(np.array([1.0, 0.1, 3.1415927, 1e6], np.float32)).tolist()
    [1.0, 0.0999755859375, 3.140625, 65504.0]
    """
    most = float(np.finfo(np.float16).max)
    return np.clip(values, -most, most).astype(np.float16).astype(np.float32)


def open_half(
    spec: ModelSpec,
    graph: Path | bytes,
    device: str,
    cache_dir: Path,
    *,
    stem: str,
    keep: Sequence[str],
    reload: Callable[[], Backend],
) -> Backend:
    """Return a model in float16 on a device, without asking how near it is.

    On a processor that computes in float16, and on devices of OpenVINO, that does the work. ONNX Runtime on
    a processor computes in float32 on weights of 16 bits, which takes a third longer than float32 alone.

    Parameters
    ----------
    spec : ModelSpec
        The facts it shall tell.
    graph : Path or bytes
        The model in full precision.
    device : str
        As for `Movable.on`, or ``cpu``.
    cache_dir : Path
        Where the converted model is kept.
    stem : str
        Names what is kept.
    keep : sequence of str
        Operations that stay in float32, see `graph.is_kept`.
    reload : callable
        Returns the same backend; what a pickle holds.

    Raises
    ------
    DeviceError, MissingExtraError
        The device is not there, or does not compute in float16.
    WeightsError
        The model cannot be converted.
    """
    name, _ = split_device(device)
    if name == "openvino" or (name == "cpu" and openvino.has_float16()):
        openvino.require_float16()
        near = kept(cache_dir / "models", f"near-{stem}", ".onnx", lambda: near_half(graph, spec, keep=keep))
        return openvino.OpenVinoBackend(
            spec, near, keep=keep, precision="f16", gpu=name != "cpu", reload=reload
        )
    half = kept(cache_dir / "models", stem, ".onnx", lambda: halved(graph, spec, keep=keep))
    if name == "cpu":
        return OnnxBackend(spec, half, reload=reload)
    return DeviceBackend(spec, half, device=device, cache_dir=cache_dir, reload=reload)
