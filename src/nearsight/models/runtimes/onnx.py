"""Runs ONNX files with ONNX Runtime, on the processor or on a device that it knows."""

import contextlib
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.errors import DeviceError, WeightsError
from nearsight.models.base import Backend, Movable
from nearsight.models.pooling import decode_px, finished, misshapen, pooled
from nearsight.models.preprocess import fit, normalize
from nearsight.models.runtimes import devices, openvino
from nearsight.models.runtimes.batching import MOST, Batches
from nearsight.models.spec import ModelSpec


class OnnxBackend:
    """An image tower in an ONNX file, run on the calling thread.

    One session serves all threads. Each call keeps to the thread it came from, because n threads with a
    image each finish more images than n threads sharing one. Images of a batch go through one by
    one: on a processor that is as quick as any batch (the network's inner arrays then stay in the cache),
    needs no copy into one array, and makes a vector independent of its batch to the last bit.

    Parameters
    ----------
    spec : ModelSpec
        The model's facts. `spec.layer` names the graph's output.
    model : Path or bytes
        The file, or its content. It takes one input (n, 3, H, W) and gives (n, dim), or as many places
        (n, dim, h, w) or tokens (n, t, dim), which are pooled as `spec.pooling` says.
    reload : callable, optional
        Returns the same backend; what a pickle holds. Without it the pickle holds `model` itself.

    Raises
    ------
    WeightsError
        The file is not a sound ONNX model, or does not fit `spec`.
    """

    def __init__(
        self, spec: ModelSpec, model: Path | bytes, *, reload: Callable[[], Backend] | None = None
    ) -> None:
        self._spec = spec
        self._model = model
        self._reload = reload or partial(OnnxBackend, spec, model)
        self._session = _open_session(spec.id, model)
        self._input, self._dtype = _checked_input(spec, self._session)

    @property
    def device(self) -> str:
        """Where it runs."""
        return "cpu"

    @property
    def devices(self) -> Sequence[str]:
        """What the installed build of ONNX Runtime offers to `auto`, the best first."""
        return offered_devices()

    def on(self, device: str, cache_dir: Path, *, spec: ModelSpec | None = None) -> Backend:
        """Return the same model run on a device; see `Movable`.

        `openvino` is the package of that name where it is installed, and else what ONNX Runtime offers.
        """
        spec = spec or self._spec
        name, _ = devices.split_device(device)
        if name == "cpu":
            return self
        reload = partial(_moved, self._reload, device, cache_dir, spec)
        if name == "openvino" and (openvino.is_installed() or name not in offered_devices()):
            return openvino.OpenVinoBackend(spec, self._model, reload=reload)
        return DeviceBackend(spec, self._model, device=device, cache_dir=cache_dir, reload=reload)

    def idle_device(self) -> str:
        """Say that a GPU stands idle, and how to use it; or nothing."""
        return devices.idle_gpu(_providers())

    @property
    def spec(self) -> ModelSpec:
        """The model's facts."""
        return self._spec

    @property
    def decode_px(self) -> int | None:
        """Shorter side, in pixels, that a decoded image must have at least; None for full size."""
        return decode_px(self._spec)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one upright RGB image to (H, W, 3) uint8.

        Normalization waits for `embed`: bytes are a quarter of the size while they queue.
        """
        return fit(image, self._spec)

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the vectors of prepared images.

        Parameters
        ----------
        prepared : sequence of ndarray of uint8, each of shape (H, W, 3)
            What `prepare` returned.

        Returns
        -------
        ndarray of float32, shape (n, dim)
            In order, of length 1 where `spec.normalize` says so. An image in which the network sees
            nothing at all, so that every feature is 0, has no direction: its vector stays 0, and its
            similarity to anything is 0.

        Raises
        ------
        WeightsError
            The network gave a number that is not finite.
        """
        vectors = np.empty((len(prepared), self._spec.dim), np.float32)
        pixels = np.empty((1, 3, *self._spec.input_px), np.float32)
        for vector, image in zip(vectors, prepared, strict=True):
            normalize(image, self._spec, pixels[0])
            vector[:] = pooled(self._run(pixels)[0], self._spec)
        return finished(vectors, self._spec)

    def _run(self, pixels: NDArray[np.float32]) -> NDArray[Any]:
        given = {self._input: pixels.astype(self._dtype, copy=False)}
        output: NDArray[Any] = self._session.run([self._spec.layer], given)[0]
        return output

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reload, ()


class DeviceBackend(OnnxBackend):
    """An image tower in an ONNX file, run on an accelerator.

    An accelerator wants batches: one session serves all threads, and what several of them want at a time
    goes through it together, see `Batches`. Batches are filled up to a few sizes, because many runtimes
    tune or compile for each size they meet.

    Parameters
    ----------
    spec, model
        As for `OnnxBackend`.
    device : str
        A name in `devices.PROVIDERS`, with a number where there are several.
    cache_dir : Path
        Where what is compiled for the device may be kept.
    reload : callable
        Returns the same backend; what a pickle holds.

    Raises
    ------
    DeviceError
        The device is not there, or cannot run the model.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: Path | bytes,
        *,
        device: str,
        cache_dir: Path,
        reload: Callable[[], Backend],
    ) -> None:
        self._spec = spec
        self._model = model
        self._device = device
        self._reload = reload
        self._session = _open_on(spec, model, device, cache_dir)
        self._input, self._dtype = _checked_input(spec, self._session)
        self._sizes = self._usable_sizes()
        self._batches = Batches(self._run_together, self._sizes[-1])

    @property
    def device(self) -> str:
        """Where it runs."""
        return self._device

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of prepared images, as `OnnxBackend.embed` does."""
        vectors = np.empty((len(prepared), self._spec.dim), np.float32)
        for vector, row in zip(vectors, self._batches(prepared), strict=True):
            vector[:] = row
        return finished(vectors, self._spec)

    def _run_together(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        size = next(size for size in self._sizes if size >= len(images))
        pixels = np.zeros((size, 3, *self._spec.input_px), np.float32)
        for place, image in zip(pixels, images, strict=False):
            normalize(image, self._spec, place)
        output = self._run(pixels)
        return np.stack([pooled(values, self._spec) for values in output[: len(images)]])

    def _usable_sizes(self) -> tuple[int, ...]:
        """Return the sizes of batches that the graph takes; a session that cannot run is found out here."""
        blank = np.zeros((MOST, 3, *self._spec.input_px), np.float32)
        try:
            self._run(blank[:1])
        # The runtime's own exceptions share no base but this one.
        except Exception as error:
            raise DeviceError(
                f"{self._device} cannot run {self._spec.id}: {error}. Use device='cpu'"
            ) from error
        # Core ML is slow with sizes that change, and some graphs are made for one image, declared or not.
        if self._device.startswith("coreml") or isinstance(self._session.get_inputs()[0].shape[0], int):
            return (1,)
        try:
            fits = len(self._run(blank[:8])) == 8
        except Exception:
            fits = False
        return (1, 8, MOST) if fits else (1,)


def _moved(reload: Callable[[], Backend], device: str, cache_dir: Path, spec: ModelSpec) -> Backend:
    backend = reload()
    return backend.on(device, cache_dir, spec=spec) if isinstance(backend, Movable) else backend


class Network:
    """A graph of any inputs, run on the calling thread; several threads may share it.

    Parameters
    ----------
    name : str
        What errors call it.
    model : Path or bytes
        The file, or its content.

    Raises
    ------
    WeightsError
        It is not a sound ONNX model.
    """

    def __init__(self, name: str, model: Path | bytes) -> None:
        self.name = name
        self._session = _open_session(name, model)

    @property
    def inputs(self) -> dict[str, list[Any]]:
        """Shapes by name; an axis that takes any length is no number."""
        return {value.name: list(value.shape) for value in self._session.get_inputs()}

    @property
    def outputs(self) -> dict[str, list[Any]]:
        """Shapes by name, as for `inputs`."""
        return {value.name: list(value.shape) for value in self._session.get_outputs()}

    def run(self, output: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return one output."""
        return self.run_all([output], inputs)[output]

    def run_all(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return some outputs by name."""
        found = self._session.run(list(outputs), dict(inputs)) if outputs else []
        return dict(zip(outputs, found, strict=True))


def offered_devices() -> list[str]:
    """Return the devices that the installed build of ONNX Runtime offers to `auto`, the best first."""
    offered = _providers()
    return [
        name
        for name, provider in devices.PROVIDERS.items()
        if provider in offered and name not in devices.BY_NAME_ONLY
    ]


def _providers() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _open_session(name: str, model: Path | bytes) -> Any:
    # Here, since listing models must not pay for a runtime.
    import onnxruntime

    options = _options(onnxruntime)
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    # The runtime's own exceptions share no base but this one.
    except Exception as error:
        place = "its content" if isinstance(model, bytes) else model
        raise WeightsError(
            f"ONNX Runtime cannot load {name} from {place}: {error}. Fetch or export it again"
        ) from error


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are about graph details nobody here can act on
    for pool in ("intra", "inter"):
        options.add_session_config_entry(f"session.{pool}_op.allow_spinning", "0")
    return options


def _open_on(spec: ModelSpec, model: Path | bytes, device: str, cache_dir: Path) -> Any:
    import onnxruntime

    name = spec.id
    kind, number = devices.split_device(device)
    if kind not in devices.PROVIDERS:
        raise DeviceError(f"{name} cannot run on {kind}; ONNX Runtime knows {', '.join(devices.PROVIDERS)}")
    provider = devices.PROVIDERS[kind]
    if provider not in _providers():
        raise DeviceError(
            f"this onnxruntime has no {provider}, which {device} needs: {devices.way_out(kind)}"
        )
    if kind in ("cuda", "tensorrt") and hasattr(onnxruntime, "preload_dlls"):
        # Finds CUDA's libraries in their Python packages. What it prints, the session below says better.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    options = _options(onnxruntime)
    if kind == "directml":
        options.enable_mem_pattern = False
    source = model if isinstance(model, bytes) else str(model)
    wanted = [(provider, _provider_options(kind, number, cache_dir / "tensorrt" / _content(spec, model)))]
    try:
        # Its own way of falling back prints to stdout, and tells nobody else.
        session = onnxruntime.InferenceSession(source, options, providers=wanted, enable_fallback=0)
    except Exception as error:
        raise DeviceError(f"{device} cannot open {name}: {str(error).strip()}. Use device='cpu'") from error
    if provider not in session.get_providers():
        raise DeviceError(
            f"onnxruntime offers {device} but cannot open it (it has said why on stderr): "
            f"{devices.way_out(kind)}; or use device='cpu'"
        )
    return session


def _provider_options(kind: str, number: int, engines: Path) -> dict[str, Any]:
    if kind == "cuda":
        # Without TensorFloat-32, which keeps ten bits only; and without trying each algorithm for each size.
        return {"device_id": number, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
    if kind == "tensorrt":
        engines.mkdir(parents=True, exist_ok=True)
        return {
            "device_id": number,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": True,
        }
    if kind == "directml":
        return {"device_id": number}
    if kind == "coreml":
        return {"ModelFormat": "MLProgram"}
    # Its plugin for GPUs would take 16 bits.
    return {"precision": "FP32"}


def _content(spec: ModelSpec, model: Path | bytes) -> str:
    """Name what is in a model: TensorRT knows engines by names in the graph, whatever the weights are."""
    made = model if isinstance(model, bytes) else b""
    return hashlib.sha256(spec.weights_sha256.encode() + made).hexdigest()[:16]


def _checked_input(spec: ModelSpec, session: Any) -> tuple[str, str]:
    """Return name and dtype of the graph's input once the graph is known to fit the spec."""
    inputs, outputs = session.get_inputs(), {output.name: output for output in session.get_outputs()}
    if len(inputs) != 1 or not _fits(inputs[0].shape, (3, *spec.input_px)):
        found = ", ".join(f"{i.name} {i.shape}" for i in inputs)
        raise WeightsError(f"{spec.id} should take one input (n, 3, {spec.input_px}), but takes {found}.")
    if spec.layer not in outputs:
        raise WeightsError(f"{spec.id} has no output {spec.layer!r}; it has {', '.join(sorted(outputs))}.")
    shape = outputs[spec.layer].shape
    # A layer inside the graph may be declared without any shape; its vectors are then checked as they come.
    if shape and not any(_fits(shape, wanted) for wanted in _vector_shapes(spec)):
        raise misshapen(spec, shape)
    return str(inputs[0].name), "float16" if inputs[0].type == "tensor(float16)" else "float32"


def _vector_shapes(spec: ModelSpec) -> list[tuple[int | None, ...]]:
    shapes: list[tuple[int | None, ...]] = [(spec.dim,), (None, spec.dim)]
    # Places have no first one that stands for all.
    return shapes if spec.pooling == "cls" else [*shapes, (spec.dim, None, None)]


def _fits(shape: list[Any], wanted: tuple[int | None, ...]) -> bool:
    """Whether the graph takes or gives one image of that shape; an axis without a number takes any."""
    return len(shape) == 1 + len(wanted) and all(
        not isinstance(n, int) or m is None or n == m for n, m in zip(shape, (1, *wanted), strict=True)
    )
