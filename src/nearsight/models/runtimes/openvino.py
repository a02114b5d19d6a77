"""Runs ONNX models with OpenVINO, on processors and Intel GPUs.

bfloat16 is about 1.6 times as fast as float32 on processors that compute in it. float16 runs
where the processor or the GPU computes in it.
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
from nearsight.models.graph_structure import is_excluded
from nearsight.models.onnx_graph import read_graph_facts
from nearsight.models.pooling import check_and_normalize, decode_px, pool_output
from nearsight.models.preprocess import resize_and_crop
from nearsight.models.spec import ModelSpec
from nearsight.processor import is_hidden, n_cores

# Keeps an operation in float32 (the runtime's "precise" attribute in the intermediate representation).
_PRECISE_ATTRIBUTE = '<rt_info><attribute name="precise" version="0" /></rt_info>'
_LAYER = re.compile(
    r'<layer id="\d+" name="(?P<name>[^"]*)" type="(?P<type>\w+)"[^>]*>.*?</layer>', re.DOTALL
)
# Batches of four take 5 % less time than single images and give the same bits.
_BATCH_SIZES = (4, 1)
_NOT_COMPUTED = ("Const", "Parameter", "Result")


class OpenVinoBackend:
    """An image encoder in float32, or in 16 bits with some operations in float32.

    Threads share the compiled model; each has its own inference request.

    Parameters
    ----------
    spec : ModelSpec
        The model's facts; `spec.layer` names the graph's output.
    model : Path or bytes
        An ONNX model, as `OnnxBackend` takes it.
    keep : sequence of str
        Operations that stay in float32, see `graph_structure.is_excluded`.
    precision : {"f32", "bf16", "f16"}
        Precision of the other operations. bfloat16 runs on the processor only.
    gpu : bool, default True
        Whether it may run on an Intel GPU, in float32 or float16, if OpenVINO finds one.
    reload : callable
        Returns the same backend; used to unpickle it.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    UnknownModelError
        `precision` is ``bf16`` and the processor does not compute in it.
    WeightsError
        OpenVINO cannot use the model.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: Path | bytes,
        *,
        float32_operations: Sequence[str] = (),
        precision: Literal["f32", "bf16", "f16"] = "f32",
        gpu: bool = True,
        reload: Callable[[], Backend],
    ) -> None:
        openvino = require_bfloat16() if precision == "bf16" else import_openvino()
        self._spec = spec
        self._reload = reload
        core = openvino.Core()
        try:
            graph = core.read_model(model if isinstance(model, bytes) else str(model))
            graph = _marked(openvino, core, graph, float32_operations)
            gpu = gpu and precision != "bf16" and has_gpu()
            # One stream for each thread that embeds.
            options: dict[str, Any] = {
                "INFERENCE_PRECISION_HINT": precision,
                **({} if gpu else {"NUM_STREAMS": n_cores(), "INFERENCE_NUM_THREADS": n_cores()}),
            }
            self._compiled = {
                n: core.compile_model(
                    _with_preprocessing(openvino, graph.clone(), spec, n), "GPU" if gpu else "CPU", options
                )
                for n in ((1,) if read_graph_facts(model).depends_on_batch else _BATCH_SIZES)
            }
        # RuntimeError is the only common base of OpenVINO's exceptions.
        except RuntimeError as error:
            raise WeightsError(f"OpenVINO cannot use {spec.id}: {error}") from error
        self._local = threading.local()

    @property
    def device(self) -> str:
        """Device that the model runs on."""
        return "openvino"

    @property
    def spec(self) -> ModelSpec:
        """The model's facts."""
        return self._spec

    @property
    def decode_px(self) -> int | None:
        """Minimum length of a decoded image's shorter side in pixels; None for full size."""
        return decode_px(self._spec)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one upright RGB image to (H, W, 3) uint8."""
        return resize_and_crop(image, self._spec)

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of prepared images, as `OnnxBackend.embed` does."""
        if not hasattr(self._local, "requests"):
            self._local.requests = {n: model.create_infer_request() for n, model in self._compiled.items()}
        vectors = np.empty((len(prepared), self._spec.dim), np.float32)
        start = 0
        for n, request in self._local.requests.items():
            while len(prepared) - start >= n:
                inputs = {0: np.stack(prepared[start : start + n])}
                [output] = request.infer(inputs, share_inputs=True, share_outputs=True).values()
                for vector, values in zip(vectors[start : start + n], output, strict=True):
                    vector[:] = pool_output(values, self._spec)
                start += n
        return check_and_normalize(vectors, self._spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reload, ()


def is_installed() -> bool:
    """Whether OpenVINO is installed, without importing it."""
    return importlib.util.find_spec("openvino") is not None


def import_openvino() -> Any:
    """Import OpenVINO and return it.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    # OpenVINO sends telemetry when it is imported, unless this package is missing.
    silenced = "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules
    if silenced:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None makes an import fail
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
    """Import OpenVINO and return it, on a processor that computes in bfloat16.

    Raises
    ------
    MissingExtraError, UnknownModelError
        It is not installed, or the processor does not compute in bfloat16.
    """
    openvino = import_openvino()
    if not has_bfloat16():
        raise UnknownModelError(
            "this processor has no bfloat16 (AVX-512 BF16 or AMX), so bf16 would be slower; remove #bf16"
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
    return is_installed() and not is_hidden("gpu") and "GPU" in import_openvino().Core().available_devices


def _capabilities() -> Sequence[str]:
    if not is_installed():
        return ()
    capabilities: Sequence[str] = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return capabilities


def require_float16() -> None:
    """Check that OpenVINO has a device that computes in float16.

    Raises
    ------
    MissingExtraError
        It is not installed.
    DeviceError
        There is no such device.
    """
    import_openvino()
    if not has_gpu() and not has_float16():
        raise DeviceError(
            "device='openvino' cannot compute in float16: this processor does not, and OpenVINO finds no "
            "GPU; remove the precision or the device"
        )


def _marked(openvino: Any, core: Any, graph: Any, float32_operations: Sequence[str]) -> Any:
    """Return the graph with some operations marked to stay in float32.

    The mark can be set only in the file format, so the graph is written and read again.
    """
    if not float32_operations:
        return graph
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(graph, path, compress_to_fp16=False)
        text = path.read_text(encoding="utf-8")
        path.write_text(_LAYER.sub(lambda match: _mark(match, float32_operations), text), encoding="utf-8")
        # Read the bytes before the folder is removed: OpenVINO would map the file.
        return core.read_model(path.read_bytes(), path.with_suffix(".bin").read_bytes())


def _mark(match: re.Match[str], float32_operations: Sequence[str]) -> str:
    layer, name = match.group(0), match["name"]
    # OpenVINO adds operations to a block, such as "block1/WithoutBiases".
    if match["type"] in _NOT_COMPUTED or not is_excluded(name, float32_operations):
        return layer
    if "<rt_info>" in layer:
        return layer.replace("<rt_info>", _PRECISE_ATTRIBUTE.removesuffix("</rt_info>"), 1)
    head, data, rest = re.match(r"(<layer[^>]*>)(\s*<data[^>]*/>)?(.*)", layer, re.DOTALL).groups()  # type: ignore[union-attr]  # every layer begins so
    return f"{head}{data or ''}{_PRECISE_ATTRIBUTE}{rest}"


def _with_preprocessing(openvino: Any, graph: Any, spec: ModelSpec, n: int) -> Any:
    """Return the graph with (n, H, W, 3) bytes as input; normalization is part of it."""
    height, width = spec.input_px
    graph.reshape([n, 3, height, width])
    steps = openvino.preprocess.PrePostProcessor(graph)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32)
    steps.input().preprocess().mean([255 * value for value in spec.mean])
    steps.input().preprocess().scale([255 * value for value in spec.std])
    return steps.build()
