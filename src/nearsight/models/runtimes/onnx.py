"""Runs ONNX models with ONNX Runtime, on the processor or on an accelerator."""

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
from nearsight.models.base import Backend, MultiDeviceBackend
from nearsight.models.pooling import check_and_normalize, decode_px, output_shape_error, pool_output
from nearsight.models.preprocess import Preprocessing, normalize, resize_and_crop
from nearsight.models.runtimes import devices, openvino
from nearsight.models.runtimes.batching import MAX_BATCH_SIZE, DynamicBatcher
from nearsight.models.spec import ModelSpec


class OnnxBackend:
    """An image encoder in an ONNX file, run on the calling thread.

    One session serves all threads. Each call computes on its own thread only, because n threads with an image
    each finish more images than n threads that share one. The images of a batch are computed one by one: on a
    processor this is as fast as any batch, since the intermediate arrays stay in its cache, and a vector does
    not depend on its batch to the last bit.

    Parameters
    ----------
    spec : ModelSpec
        The model's facts. `spec.layer` names the graph's output.
    model : Path or bytes
        The file, or its content: one input (n, 3, H, W), and an output (n, dim), a feature map (n, dim, h, w)
        or tokens (n, t, dim), which are pooled as `spec.pooling` says.
    reload : callable, optional
        Returns the same backend; used to unpickle it. Without it the pickle contains `model`.

    Raises
    ------
    WeightsError
        The file is not a valid ONNX model, or does not fit `spec`.
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
        """Device that the model runs on."""
        return "cpu"

    @property
    def offered_devices(self) -> Sequence[str]:
        """Devices of the installed ONNX Runtime that ``auto`` may use, the best first."""
        return offered_devices()

    def to_device(self, device: str, cache_dir: Path, *, spec: ModelSpec | None = None) -> Backend:
        """Return the same model on a device; see `MultiDeviceBackend`.

        ``openvino`` uses the package of that name if it is installed, otherwise ONNX Runtime's provider.
        """
        spec = spec or self._spec
        name, _ = devices.split_device(device)
        if name == "cpu":
            return self
        reload = partial(_reload_on_device, self._reload, device, cache_dir, spec)
        if name == "openvino" and (openvino.is_installed() or name not in offered_devices()):
            return openvino.OpenVinoBackend(spec, self._model, reload=reload)
        return OnnxDeviceBackend(spec, self._model, device=device, cache_dir=cache_dir, reload=reload)

    def idle_gpu_hint(self) -> str:
        """Name a GPU that is not used, and how to use it; empty if there is none."""
        return devices.idle_gpu_hint(_providers())

    @property
    def spec(self) -> ModelSpec:
        """The model's facts."""
        return self._spec

    @property
    def decode_px(self) -> int | None:
        """Minimum length of a decoded image's shorter side in pixels; None for full size."""
        return decode_px(self._spec)

    @property
    def preparation(self) -> Preprocessing:
        """What `prepare` does, for other processes."""
        return Preprocessing(self._spec, self.decode_px)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one upright RGB image to (H, W, 3) uint8.

        `embed` normalizes: queued bytes take a quarter of the memory of floats.
        """
        return resize_and_crop(image, self._spec)

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the vectors of prepared images.

        Parameters
        ----------
        prepared : sequence of ndarray of uint8, each of shape (H, W, 3)
            Results of `prepare`.

        Returns
        -------
        ndarray of float32, shape (n, dim)
            In order, of unit length where `spec.normalize` says so. If all features of an image are 0, its
            vector is 0, and its similarity to any image is 0.

        Raises
        ------
        WeightsError
            The network computed a number that is not finite.
        """
        vectors = np.empty((len(prepared), self._spec.dim), np.float32)
        pixels = np.empty((1, 3, *self._spec.input_px), np.float32)
        for vector, image in zip(vectors, prepared, strict=True):
            normalize(image, self._spec, pixels[0])
            vector[:] = pool_output(self._run(pixels)[0], self._spec)
        return check_and_normalize(vectors, self._spec)

    def _run(self, pixels: NDArray[np.float32]) -> NDArray[Any]:
        inputs = {self._input: pixels.astype(self._dtype, copy=False)}
        output: NDArray[Any] = self._session.run([self._spec.layer], inputs)[0]
        return output

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reload, ()


class OnnxDeviceBackend(OnnxBackend):
    """An image encoder in an ONNX file, run on an accelerator.

    One session serves all threads. `DynamicBatcher` gathers the images of several threads into one batch.
    Batches are padded to a few sizes, because many runtimes tune or compile for each size they meet.

    Parameters
    ----------
    spec, model
        As for `OnnxBackend`.
    device : str
        A name in `devices.PROVIDERS`, with a number where there are several.
    cache_dir : Path
        Directory for what is compiled for the device.
    reload : callable
        Returns the same backend; used to unpickle it.

    Raises
    ------
    DeviceError
        The device is missing or cannot run the model.
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
        self._batches = DynamicBatcher(self._run_together, self._sizes[-1])

    @property
    def device(self) -> str:
        """Device that the model runs on."""
        return self._device

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of prepared images, as `OnnxBackend.embed` does."""
        vectors = np.empty((len(prepared), self._spec.dim), np.float32)
        for vector, row in zip(vectors, self._batches(prepared), strict=True):
            vector[:] = row
        return check_and_normalize(vectors, self._spec)

    def _run_together(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        size = next(size for size in self._sizes if size >= len(images))
        pixels = np.zeros((size, 3, *self._spec.input_px), np.float32)
        for row, image in zip(pixels, images, strict=False):
            normalize(image, self._spec, row)
        output = self._run(pixels)
        return np.stack([pool_output(values, self._spec) for values in output[: len(images)]])

    def _usable_sizes(self) -> tuple[int, ...]:
        """Return the batch sizes that the graph accepts; raise if the session cannot run at all."""
        blank = np.zeros((MAX_BATCH_SIZE, 3, *self._spec.input_px), np.float32)
        try:
            self._run(blank[:1])
        # The runtime's exceptions have no other common base.
        except Exception as error:
            raise DeviceError(
                f"{self._device} cannot run {self._spec.id}: {error}. Use device='cpu'"
            ) from error
        # Core ML is slow with changing sizes, and some graphs accept one image only, declared or not.
        if self._device.startswith("coreml") or isinstance(self._session.get_inputs()[0].shape[0], int):
            return (1,)
        try:
            fits = len(self._run(blank[:8])) == 8
        except Exception:
            fits = False
        return (1, 8, MAX_BATCH_SIZE) if fits else (1,)


def _reload_on_device(
    reload: Callable[[], Backend], device: str, cache_dir: Path, spec: ModelSpec
) -> Backend:
    backend = reload()
    return (
        backend.to_device(device, cache_dir, spec=spec)
        if isinstance(backend, MultiDeviceBackend)
        else backend
    )


class OnnxNetwork:
    """An ONNX graph with any inputs, run on the calling thread; threads may share it.

    Parameters
    ----------
    name : str
        Name in error messages.
    model : Path or bytes
        The file, or its content.

    Raises
    ------
    WeightsError
        It is not a valid ONNX model.
    """

    def __init__(self, name: str, model: Path | bytes) -> None:
        self.name = name
        self._session = _open_session(name, model)

    @property
    def inputs(self) -> dict[str, list[Any]]:
        """Shapes by name; an axis of any length is not a number."""
        return {value.name: list(value.shape) for value in self._session.get_inputs()}

    @property
    def outputs(self) -> dict[str, list[Any]]:
        """Shapes by name, like `inputs`."""
        return {value.name: list(value.shape) for value in self._session.get_outputs()}

    def run(self, output: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return one output."""
        return self.run_all([output], inputs)[output]

    def run_all(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return several outputs by name."""
        values = self._session.run(list(outputs), dict(inputs)) if outputs else []
        return dict(zip(outputs, values, strict=True))


def offered_devices() -> list[str]:
    """Return the devices of the installed ONNX Runtime that ``auto`` may use, the best first."""
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
    # Imported here, because listing models needs no runtime.
    import onnxruntime

    options = _options(onnxruntime)
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    # The runtime's exceptions have no other common base.
    except Exception as error:
        source_name = "its content" if isinstance(model, bytes) else model
        raise WeightsError(
            f"ONNX Runtime cannot load {name} from {source_name}: {error}. Download or export it again"
        ) from error


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings concern graph details that users cannot change
    for pool in ("intra", "inter"):
        options.add_session_config_entry(f"session.{pool}_op.allow_spinning", "0")
    return options


def _open_on(spec: ModelSpec, model: Path | bytes, device: str, cache_dir: Path) -> Any:
    import onnxruntime

    name = spec.id
    kind, number = devices.split_device(device)
    if kind not in devices.PROVIDERS:
        raise DeviceError(
            f"{name} cannot run on {kind}; ONNX Runtime supports {', '.join(devices.PROVIDERS)}"
        )
    provider = devices.PROVIDERS[kind]
    if provider not in _providers():
        raise DeviceError(f"this onnxruntime has no {provider}, which {device} needs: {devices.remedy(kind)}")
    if kind in ("cuda", "tensorrt") and hasattr(onnxruntime, "preload_dlls"):
        # Finds CUDA's libraries in their Python packages. Its output is hidden; the session reports errors.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    options = _options(onnxruntime)
    if kind == "directml":
        options.enable_mem_pattern = False
    source = model if isinstance(model, bytes) else str(model)
    providers = [(provider, _provider_options(kind, number, cache_dir / "tensorrt" / _content(spec, model)))]
    try:
        # The runtime's own fallback prints to stdout only.
        session = onnxruntime.InferenceSession(source, options, providers=providers, enable_fallback=0)
    except Exception as error:
        raise DeviceError(f"{device} cannot open {name}: {str(error).strip()}. Use device='cpu'") from error
    if provider not in session.get_providers():
        raise DeviceError(
            f"onnxruntime offers {device} but cannot open it (see its message on stderr): "
            f"{devices.remedy(kind)}; or use device='cpu'"
        )
    return session


def _provider_options(kind: str, number: int, engines: Path) -> dict[str, Any]:
    if kind == "cuda":
        # Without TensorFloat-32 (ten bits of precision), and without a search of algorithms for each size.
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
    # Its GPU plugin would compute in 16 bits by default.
    return {"precision": "FP32"}


def _content(spec: ModelSpec, model: Path | bytes) -> str:
    """Return a hash of the model: TensorRT identifies engines by names in the graph, not by weights."""
    content = model if isinstance(model, bytes) else b""
    return hashlib.sha256(spec.weights_sha256.encode() + content).hexdigest()[:16]


def _checked_input(spec: ModelSpec, session: Any) -> tuple[str, str]:
    """Return name and dtype of the graph's input; raise if the graph does not fit the spec."""
    inputs, outputs = session.get_inputs(), {output.name: output for output in session.get_outputs()}
    if len(inputs) != 1 or not _fits(inputs[0].shape, (3, *spec.input_px)):
        shapes = ", ".join(f"{i.name} {i.shape}" for i in inputs)
        raise WeightsError(f"{spec.id} must have one input (n, 3, {spec.input_px}); it has {shapes}.")
    if spec.layer not in outputs:
        raise WeightsError(f"{spec.id} has no output {spec.layer!r}; it has {', '.join(sorted(outputs))}.")
    shape = outputs[spec.layer].shape
    # An inner layer may have no declared shape; `pool_output` then checks each vector.
    if shape and not any(_fits(shape, expected) for expected in _vector_shapes(spec)):
        raise output_shape_error(spec, shape)
    return str(inputs[0].name), "float16" if inputs[0].type == "tensor(float16)" else "float32"


def _vector_shapes(spec: ModelSpec) -> list[tuple[int | None, ...]]:
    shapes: list[tuple[int | None, ...]] = [(spec.dim,), (None, spec.dim)]
    # A feature map has no class token.
    return shapes if spec.pooling == "cls" else [*shapes, (spec.dim, None, None)]


def _fits(shape: list[Any], expected: tuple[int | None, ...]) -> bool:
    """Whether a declared shape fits the one for an image; an axis without a number fits any length."""
    return len(shape) == 1 + len(expected) and all(
        not isinstance(n, int) or m is None or n == m for n, m in zip(shape, (1, *expected), strict=True)
    )
