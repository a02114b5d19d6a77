"""Runs ONNX models with OpenVINO.

In bfloat16 on processors that have it, at about 1.6 times the speed; in float16 where that is computed; in
float32 there and on Intel's GPUs.
"""

import importlib.util
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.errors import DeviceError, MissingExtraError, UnknownModelError, WeightsError
from nearsight.models.base import Backend
from nearsight.models.onnx_graph import is_kept
from nearsight.models.pooling import decode_px, finished, pooled
from nearsight.models.preprocess import fit
from nearsight.models.spec import ModelSpec
from nearsight.processor import is_hidden, n_cores

# What in the intermediate representation keeps an operation in float32 (the runtime's "precise" attribute).
_PRECISE = '<rt_info><attribute name="precise" version="0" /></rt_info>'
_LAYER = re.compile(
    r'<layer id="\d+" name="(?P<name>[^"]*)" type="(?P<type>\w+)"[^>]*>.*?</layer>', re.DOTALL
)
# Four at once take a twentieth less time than one by one, and give the same numbers to the bit.
_BATCHES = (4, 1)
_NOT_COMPUTED = ("Const", "Parameter", "Result")


class OpenVinoBackend:
    """An image tower in float32, or in 16 bits with some of its operations in float32.

    Each thread has an inference request of its own; the compiled model is shared.

    Parameters
    ----------
    spec : ModelSpec
        The model's facts; `spec.layer` names the graph's output.
    model : Path or bytes
        An ONNX model, as `OnnxBackend` takes it.
    keep : sequence of str
        Operations that stay in float32, see `graph.is_kept`.
    precision : {"f32", "bf16", "f16"}
        Arithmetic of the rest. In bfloat16 it runs on the processor.
    gpu : bool, default True
        Whether it may run on an Intel GPU, in float32 or float16, where OpenVINO sees one.
    reload : callable
        Returns the same backend; what a pickle holds.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    UnknownModelError
        The processor has no bfloat16.
    WeightsError
        OpenVINO cannot use the model.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: Path | bytes,
        *,
        keep: Sequence[str] = (),
        precision: Literal["f32", "bf16", "f16"] = "f32",
        gpu: bool = True,
        reload: Callable[[], Backend],
    ) -> None:
        openvino = require_bfloat16() if precision == "bf16" else require()
        self._spec = spec
        self._reload = reload
        core = openvino.Core()
        try:
            graph = core.read_model(model if isinstance(model, bytes) else str(model))
            graph = _marked(openvino, core, graph, keep)
            gpu = gpu and precision != "bf16" and has_gpu()
            # One stream a thread that embeds: each calls, and waits, for itself.
            options: dict[str, Any] = {
                "INFERENCE_PRECISION_HINT": precision,
                **({} if gpu else {"NUM_STREAMS": n_cores(), "INFERENCE_NUM_THREADS": n_cores()}),
            }
            self._compiled = {
                n: core.compile_model(
                    _prepared(openvino, graph.clone(), spec, n), "GPU" if gpu else "CPU", options
                )
                for n in _BATCHES
            }
        # Its own exceptions share no base but this one.
        except RuntimeError as error:
            raise WeightsError(f"OpenVINO cannot use {spec.id}: {error}") from error
        self._local = threading.local()

    @property
    def device(self) -> str:
        """Where it runs."""
        return "openvino"

    @property
    def spec(self) -> ModelSpec:
        """The model's facts."""
        return self._spec

    @property
    def decode_px(self) -> int | None:
        """Shorter side, in pixels, that a decoded image must have at least; None for full size."""
        return decode_px(self._spec)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one upright RGB image to (H, W, 3) uint8."""
        return fit(image, self._spec)

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of prepared images, as `OnnxBackend.embed` does."""
        if not hasattr(self._local, "requests"):
            self._local.requests = {n: model.create_infer_request() for n, model in self._compiled.items()}
        vectors = np.empty((len(prepared), self._spec.dim), np.float32)
        at = 0
        for n, request in self._local.requests.items():
            while len(prepared) - at >= n:
                given = {0: np.stack(prepared[at : at + n])}
                [output] = request.infer(given, share_inputs=True, share_outputs=True).values()
                for vector, values in zip(vectors[at : at + n], output, strict=True):
                    vector[:] = pooled(values, self._spec)
                at += n
        return finished(vectors, self._spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reload, ()


def is_installed() -> bool:
    """Whether OpenVINO is installed; imports nothing."""
    return importlib.util.find_spec("openvino") is not None


def require() -> Any:
    """Return OpenVINO.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    # It reports its use to its makers as soon as it is imported, unless this package is missing.
    silenced = "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules
    if silenced:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # the way to make an import fail
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(
            "bf16 and device='openvino' need OpenVINO. Run: pip install 'nearsight[openvino]'"
        ) from error
    finally:
        if silenced:
            del sys.modules["openvino_telemetry"]
    return openvino


def require_bfloat16() -> Any:
    """Return OpenVINO, where the processor has bfloat16.

    Raises
    ------
    MissingExtraError, UnknownModelError
        It is not installed, or the processor has no bfloat16.
    """
    openvino = require()
    if not has_bfloat16():
        raise UnknownModelError(
            "this processor has no bfloat16 (AVX-512 BF16 or AMX), so bf16 would be slower; leave #bf16 away"
        )
    return openvino


def has_bfloat16() -> bool:
    """Whether OpenVINO is installed and computes in bfloat16 on this processor."""
    return not is_hidden("bfloat16") and "BF16" in _capabilities()


def has_float16() -> bool:
    """Whether OpenVINO is installed and computes in float16 on this processor.

    Where it does not, OpenVINO would silently compute in bfloat16 or float32.
    """
    return not is_hidden("float16") and "FP16" in _capabilities()


def has_gpu() -> bool:
    """Whether OpenVINO is installed and sees an Intel GPU."""
    return is_installed() and not is_hidden("gpu") and "GPU" in require().Core().available_devices


def _capabilities() -> Sequence[str]:
    if not is_installed():
        return ()
    capabilities: Sequence[str] = require().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return capabilities


def require_float16() -> None:
    """Make sure that OpenVINO has a device that computes in float16.

    Raises
    ------
    MissingExtraError
        It is not installed.
    DeviceError
        There is no such device.
    """
    require()
    if not has_gpu() and not has_float16():
        raise DeviceError(
            "device='openvino' cannot compute in float16: this processor does not, and OpenVINO sees no GPU; "
            "leave the precision or the device away"
        )


def _marked(openvino: Any, core: Any, graph: Any, keep: Sequence[str]) -> Any:
    """Return the graph with some operations marked to stay in float32.

    The mark can be set in the file format only, so the graph goes through it.
    """
    if not keep:
        return graph
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(graph, path, compress_to_fp16=False)
        text = path.read_text(encoding="utf-8")
        path.write_text(_LAYER.sub(lambda found: _mark(found, keep), text), encoding="utf-8")
        # Read whole before the folder goes: otherwise the weights stay in the file.
        return core.read_model(path.read_bytes(), path.with_suffix(".bin").read_bytes())


def _mark(found: re.Match[str], keep: Sequence[str]) -> str:
    layer, name = found.group(0), found["name"]
    # OpenVINO has parts of its own, such as "block1/WithoutBiases".
    if found["type"] in _NOT_COMPUTED or not is_kept(name, keep):
        return layer
    if "<rt_info>" in layer:
        return layer.replace("<rt_info>", _PRECISE.removesuffix("</rt_info>"), 1)
    head, data, rest = re.match(r"(<layer[^>]*>)(\s*<data[^>]*/>)?(.*)", layer, re.DOTALL).groups()  # type: ignore[union-attr]  # every layer begins so
    return f"{head}{data or ''}{_PRECISE}{rest}"


def _prepared(openvino: Any, graph: Any, spec: ModelSpec, n: int) -> Any:
    """Return the graph taking (n, H, W, 3) bytes: it normalizes them itself."""
    height, width = spec.input_px
    graph.reshape([n, 3, height, width])
    steps = openvino.preprocess.PrePostProcessor(graph)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32)
    steps.input().preprocess().mean([255 * value for value in spec.mean])
    steps.input().preprocess().scale([255 * value for value in spec.std])
    return steps.build()
