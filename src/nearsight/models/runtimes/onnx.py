"""Runs ONNX models with ONNX Runtime, on the processor or on an accelerator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.errors import DeviceError, WeightsError
from nearsight.models.base import Backend, MultiDeviceBackend
from nearsight.models.onnx_graph import read_graph_facts
from nearsight.models.pooling import check_and_normalize, decode_px, output_shape_error, pool_output
from nearsight.models.preprocess import Preprocessing, normalize, resize_and_crop
from nearsight.models.resize_matrices import LEVELS, PIXELS, normalize_graph
from nearsight.models.runtimes import devices, openvino
from nearsight.models.runtimes.batching import DynamicBatcher
from nearsight.models.runtimes.onnx_session import (
    MEMORY,
    BoundGraph,
    DeviceArray,
    DeviceMemory,
    offered_devices,
    open_on_device,
    open_session,
    providers,
)
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
        self._session = open_session(spec.id, model)
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
        return devices.idle_gpu_hint(providers())

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


# Batches are padded to these sizes, because runtimes tune or compile for each size that they meet. Each of
# them runs once when the model is loaded.
_SIZES = (1, 8, 32)
_SIZES_IN_MEMORY = (1, 8, 32, 64, 128, 256)
# One batch is copied while another one is computed.
_N_SLOTS = 2


class OnnxDeviceBackend(OnnxBackend):
    """An image encoder in an ONNX file, run on an accelerator.

    One session serves all threads. `DynamicBatcher` gathers the images of several threads into one batch,
    which is padded to one of a few sizes. On an NVIDIA GPU, bytes are copied from page-locked memory, and
    normalized there; two batches are under way at a time.

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
        self._session = open_on_device(spec, model, device, cache_dir)
        self._input, self._dtype = _checked_input(spec, self._session)
        # What others open once for this model, such as the decoder of its GPU.
        self.opened: dict[str, Any] = {}
        name, _ = devices.split_device(device)
        self.memory = DeviceMemory(device) if name in MEMORY else None
        self._slots: SimpleQueue[_NetworkSlot] = SimpleQueue()
        if self.memory is not None:
            graph = normalize_graph(spec, half=self._dtype == "float16")
            normalizing = open_on_device(replace(spec, id="normalization"), graph, device, cache_dir)
            self._normalize = BoundGraph(normalizing, self.memory)
            self._network = BoundGraph(self._session, self.memory)
            for _ in range(_N_SLOTS):
                self._slots.put(_NetworkSlot(self.memory, spec, self._dtype))
        self._sizes = self._usable_sizes()
        n_slots = 1 if self.memory is None else _N_SLOTS
        self._batches: DynamicBatcher[NDArray[np.float32]] = DynamicBatcher(
            self._run_together, self._sizes, n_slots=n_slots
        )

    @property
    def device(self) -> str:
        """Device that the model runs on."""
        return self._device

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of prepared images, as `OnnxBackend.embed` does."""
        return self._vectors(self._batches(prepared))

    def embed_on_device(self, levels: DeviceArray, n: int) -> NDArray[np.float32]:
        """Return the vectors of the first `n` of prepared images that are in the device's memory.

        Parameters
        ----------
        levels : DeviceArray of uint8, shape (size, H, W, 3)
            `size` is one of `batch_sizes`.
        n : int
        """
        slot = self._slots.get()
        try:
            output = self._run_in_memory(levels, slot)
        finally:
            self._slots.put(slot)
        return self._vectors(self._pooled(output, n))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Sizes that batches are padded to, in increasing order."""
        return self._sizes

    def _vectors(self, rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        vectors = np.empty((len(rows), self._spec.dim), np.float32)
        for vector, row in zip(vectors, rows, strict=True):
            vector[:] = row
        return check_and_normalize(vectors, self._spec)

    def _pooled(self, output: NDArray[Any], n: int) -> list[NDArray[np.float32]]:
        return [pool_output(values, self._spec) for values in output[:n]]

    def _run_together(self, images: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        size = next(size for size in self._sizes if size >= len(images))
        if self.memory is None:
            pixels = np.zeros((size, 3, *self._spec.input_px), np.float32)
            for row, image in zip(pixels, images, strict=False):
                normalize(image, self._spec, row)
            return self._pooled(self._run(pixels), len(images))
        slot = self._slots.get()
        try:
            return self._pooled(self._run_in_memory(slot.upload(images, size), slot), len(images))
        finally:
            self._slots.put(slot)

    def _run_in_memory(self, levels: DeviceArray, slot: "_NetworkSlot") -> NDArray[Any]:
        pixels = slot.pixels(levels.shape[0])
        self._normalize.run({LEVELS: levels}, {PIXELS: pixels})
        [output] = self._network.run({self._input: pixels}, to_host=[self._spec.layer])
        return output

    def _run_blank(self, size: int) -> int:
        """Run a batch, so that the runtime is tuned for its size; return the number of results."""
        blank = np.zeros((*self._spec.input_px, 3), np.uint8)
        if self.memory is None:
            return len(self._run(np.zeros((size, 3, *self._spec.input_px), np.float32)))
        slot = self._slots.get()
        try:
            return len(self._run_in_memory(slot.upload([blank] * size, size), slot))
        finally:
            self._slots.put(slot)

    def _usable_sizes(self) -> tuple[int, ...]:
        """Return the batch sizes that the graph accepts; raise if the session cannot run at all."""
        try:
            self._run_blank(1)
        # The runtime's exceptions have no other common base.
        except Exception as error:
            raise DeviceError(
                f"{self._device} cannot run {self._spec.id}: {error}. Use device='cpu'"
            ) from error
        # Core ML is slow with changing sizes, and some graphs accept one image only, declared or not.
        if self._device.startswith("coreml") or isinstance(self._session.get_inputs()[0].shape[0], int):
            return (1,)
        if read_graph_facts(self._model).depends_on_batch:
            return (1,)
        usable = [1]
        for size in (_SIZES if self.memory is None else _SIZES_IN_MEMORY)[1:]:
            try:
                fits = self._run_blank(size) == size
            except Exception:  # also where the device's memory is too small
                fits = False
            if not fits:
                break
            usable.append(size)
        return tuple(usable)


class _NetworkSlot:
    """Memory of one batch under way: bytes on the host and on the device, and the network's input."""

    def __init__(self, memory: DeviceMemory, spec: ModelSpec, dtype: str) -> None:
        self._memory = memory
        self._image_shape = (*spec.input_px, 3)
        self._input_shape = (3, *spec.input_px)
        self._dtype = dtype
        self._staged = np.empty((0, *self._image_shape), np.uint8)
        self._levels: dict[int, DeviceArray] = {}
        self._pixels: dict[int, DeviceArray] = {}

    def upload(self, images: Sequence[NDArray[np.uint8]], size: int) -> DeviceArray:
        """Copy images to the device, in a batch of `size`; the rest of it holds anything."""
        if len(self._staged) < size:
            self._staged = self._memory.host_array((size, *self._image_shape), np.uint8)
        for row, image in zip(self._staged, images, strict=False):
            row[:] = image
        if size not in self._levels:
            self._levels[size] = self._memory.allocate((size, *self._image_shape), np.uint8)
        self._levels[size].write(self._staged[:size])
        return self._levels[size]

    def pixels(self, size: int) -> DeviceArray:
        """Return the memory of the network's input."""
        if size not in self._pixels:
            self._pixels[size] = self._memory.allocate((size, *self._input_shape), self._dtype)
        return self._pixels[size]


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
        self._session = open_session(name, model)

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
