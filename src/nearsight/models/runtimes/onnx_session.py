"""Opens ONNX Runtime's sessions, and the memory of the devices that they run on."""

import contextlib
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import DeviceError, WeightsError
from nearsight.models.runtimes import cuda_runtime, devices
from nearsight.models.spec import ModelSpec

#: Devices whose memory is shared between sessions, by ONNX Runtime's name of that memory.
MEMORY = {"cuda": "cuda"}


def offered_devices() -> list[str]:
    """Return the devices of the installed ONNX Runtime that ``auto`` may use, the best first."""
    offered = providers()
    return [
        name
        for name, provider in devices.PROVIDERS.items()
        if provider in offered and name not in devices.BY_NAME_ONLY
    ]


def providers() -> list[str]:
    """Return the providers of the installed ONNX Runtime."""
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def open_session(name: str, model: Path | bytes) -> Any:
    """Open a session that computes on the calling thread.

    Raises
    ------
    WeightsError
        It is not a valid ONNX model.
    """
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


def open_on_device(spec: ModelSpec, model: Path | bytes, device: str, cache_dir: Path) -> Any:
    """Open a session on a device; see `OnnxDeviceBackend`.

    Raises
    ------
    DeviceError
        The device is missing or cannot run the model.
    """
    import onnxruntime

    name = spec.id
    kind, number = devices.split_device(device)
    if kind not in devices.PROVIDERS:
        raise DeviceError(
            f"{name} cannot run on {kind}; ONNX Runtime supports {', '.join(devices.PROVIDERS)}"
        )
    provider = devices.PROVIDERS[kind]
    if provider not in providers():
        raise DeviceError(f"this onnxruntime has no {provider}, which {device} needs: {devices.remedy(kind)}")
    if kind in ("cuda", "tensorrt") and hasattr(onnxruntime, "preload_dlls"):
        # Finds CUDA's libraries in their Python packages. Its output is hidden; the session reports errors.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    options = _options(onnxruntime)
    if kind == "directml":
        options.enable_mem_pattern = False
    source = model if isinstance(model, bytes) else str(model)
    chosen = (provider, _provider_options(kind, number, cache_dir / "tensorrt" / _content(spec, model)))
    try:
        # The runtime's own fallback prints to stdout only.
        session = onnxruntime.InferenceSession(source, options, providers=[chosen], enable_fallback=0)
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


class DeviceArray:
    """An array in the memory of a device.

    Attributes
    ----------
    pointer : int
        Address in that memory.
    shape : tuple of int
    dtype : dtype
    """

    def __init__(self, pointer: int, shape: Sequence[int], dtype: Any, owner: Any) -> None:
        self.pointer = pointer
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        # Keeps the memory.
        self._owner = owner

    def part(self, start: int, n: int) -> "DeviceArray":
        """Return `n` items of the first axis from `start` on; they share the memory."""
        item_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        return DeviceArray(self.pointer + start * item_bytes, (n, *self.shape[1:]), self.dtype, self._owner)

    def write(self, values: NDArray[Any]) -> None:
        """Copy values of the same shape and dtype to the device; only into what `DeviceMemory` allocated."""
        self._owner.update_inplace(values)


class DeviceMemory:
    """The memory of a device, and that part of the host's memory from which it copies fastest.

    Parameters
    ----------
    device : str
        A device in `MEMORY`.
    """

    def __init__(self, device: str) -> None:
        kind, self.number = devices.split_device(device)
        self.kind = MEMORY[kind]

    def allocate(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """Return an array whose values are not set."""
        import onnxruntime

        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, self.kind, self.number)
        return DeviceArray(value.data_ptr(), shape, dtype, value)

    def upload(self, values: NDArray[Any]) -> DeviceArray:
        """Return a copy of an array."""
        import onnxruntime

        value = onnxruntime.OrtValue.ortvalue_from_numpy(values, self.kind, self.number)
        return DeviceArray(value.data_ptr(), values.shape, values.dtype, value)

    def host_array(self, shape: Sequence[int], dtype: Any) -> NDArray[Any]:
        """Return an array of the host, page-locked where that is possible."""
        return cuda_runtime.pin(np.empty(shape, dtype))

    def wait(self) -> None:
        """Wait for what other libraries have begun on the device: they write in an order of their own."""
        cuda_runtime.wait(self.number)


class BoundGraph:
    """A network that reads and writes a device's memory, so that nothing is copied between networks.

    Several threads may run it.

    Parameters
    ----------
    session : InferenceSession
        On a device in `MEMORY`.
    memory : DeviceMemory
        Of that device.
    """

    def __init__(self, session: Any, memory: DeviceMemory) -> None:
        self._session = session
        self._memory = memory

    def run(
        self,
        inputs: Mapping[str, DeviceArray],
        outputs: Mapping[str, DeviceArray] | None = None,
        to_host: Sequence[str] = (),
    ) -> list[NDArray[Any]]:
        """Run it, and return the outputs in `to_host`.

        Parameters
        ----------
        inputs, outputs : mapping of str to DeviceArray
            The arrays that are read and written, by name.
        to_host : sequence of str
            Other outputs, which are copied to the host.
        """
        binding = self._session.io_binding()
        kind, number = self._memory.kind, self._memory.number
        for name, array in inputs.items():
            binding.bind_input(name, kind, number, array.dtype.type, array.shape, array.pointer)
        for name, array in (outputs or {}).items():
            binding.bind_output(name, kind, number, array.dtype.type, array.shape, array.pointer)
        for name in to_host:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        values = dict(zip([*(outputs or ()), *to_host], binding.get_outputs(), strict=True))
        # Copies: what `numpy` returns may be the memory of a value that is gone.
        return [np.array(values[name].numpy()) for name in to_host]
