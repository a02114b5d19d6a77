"""Runs PyTorch modules: ``torch:PACKAGE.MODULE:FACTORY``.

The factory takes no arguments and returns a `torch.nn.Module` with its weights, alone or in a pair with a
dict of facts of `ModelSpec`. It must return the same weights each time: the fingerprint contains their hash.
"""

import copy
import difflib
import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight import processor
from nearsight.errors import (
    DeviceError,
    InvalidParameterError,
    MissingExtraError,
    NearsightError,
    UnknownModelError,
    WeightsError,
)
from nearsight.models.base import Backend, ModelEntry, MultiDeviceBackend
from nearsight.models.model_name import ModelVariant
from nearsight.models.pooling import check_and_normalize, decode_px, pool_output
from nearsight.models.precision.parity import require_parity
from nearsight.models.preprocess import normalize, resize_and_crop
from nearsight.models.runtimes import devices
from nearsight.models.runtimes.batching import DynamicBatcher
from nearsight.models.runtimes.placement import device_specific_spec, pin_to_device, pinned_device
from nearsight.models.spec import ModelSpec

#: Values of the fact `precision`.
PRECISIONS = ("float32", "float16", "bfloat16")

# Required, because a wrong guess would give worse vectors without an error.
_REQUIRED = ("input_px", "mean", "std")
_READ_FROM_FILE = ("id", "weights_sha256", "size_bytes")
# On the processor, larger batches are not faster.
_MAX_BATCH_ON_PROCESSOR = 8
_MAX_BATCH_ON_DEVICE = 32


class TorchBackend:
    """A `torch.nn.Module` as a model.

    The module is copied, so that further training does not change vectors here. The copy is in evaluation
    mode and runs without gradients. Batches run one at a time on all of torch's threads, so the module need
    not be thread-safe.

    Parameters
    ----------
    module : torch.nn.Module
        Takes (n, 3, H, W) and returns (n, dim), tokens (n, t, dim) or a feature map (n, dim, h, w), which are
        pooled as `spec.pooling` says. Of several outputs, `spec.layer` names the one to use.
    spec : ModelSpec
        The model's facts; hash and size of the weights are computed. `precision` is one of `PRECISIONS`.
    device : str, default "cpu"
        Torch's name of the device.
    reload : callable, optional
        Returns the same backend; used to unpickle it. Without it the pickle contains the module.

    Raises
    ------
    MissingExtraError
        PyTorch is not installed.
    WeightsError
        The module fails on such images, or its output does not fit the spec.
    """

    def __init__(
        self,
        module: Any,
        spec: ModelSpec,
        *,
        device: str = "cpu",
        reload: Callable[[], Backend] | None = None,
    ) -> None:
        torch = _torch()
        if spec.precision.partition("-")[0] not in PRECISIONS:
            raise InvalidParameterError(
                f"precision is {spec.precision!r}; for torch: it must be one of {', '.join(PRECISIONS)}"
            )
        sha256, size_bytes = _hash_weights(module)
        self._spec = replace(spec, weights_sha256=sha256, size_bytes=size_bytes)
        self._dtype = getattr(torch, spec.precision.partition("-")[0])
        self._device = device
        self._module = copy.deepcopy(module).to(device=device, dtype=self._dtype).eval().requires_grad_(False)
        self._reload = reload
        self._original = module
        largest = _MAX_BATCH_ON_PROCESSOR if device == "cpu" else _MAX_BATCH_ON_DEVICE
        self._batches: DynamicBatcher[NDArray[np.float32]] = DynamicBatcher(
            lambda images: list(self._run(images)), range(1, largest + 1)
        )
        self.embed([np.zeros((*spec.input_px, 3), np.uint8)])

    @property
    def spec(self) -> ModelSpec:
        """The model's facts."""
        return self._spec

    @property
    def device(self) -> str:
        """Device that the module runs on."""
        return self._device

    @property
    def offered_devices(self) -> Sequence[str]:
        """Devices of the installed torch that ``auto`` may use."""
        torch = _torch()
        offered = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        return [name for name, is_there in offered.items() if is_there]

    def to_device(self, device: str, cache_dir: Path, *, spec: ModelSpec | None = None) -> "TorchBackend":
        """Return the same model on a device; see `MultiDeviceBackend`."""
        name, _ = devices.split_device(device)
        if name == "cpu":
            return self
        if name not in self.offered_devices:
            offered = ", ".join(["cpu", *self.offered_devices])
            raise DeviceError(
                f"this torch cannot run {self._spec.id} on {device}; it offers {offered}. {_INSTALL}"
            )
        reload = partial(_reload_on_device, self._reload, device, cache_dir, spec) if self._reload else None
        try:
            return TorchBackend(self._original, spec or self._spec, device=device, reload=reload)
        except NearsightError:
            raise
        # Torch's errors have no other common base.
        except Exception as error:
            raise DeviceError(f"{device} cannot run {self._spec.id}: {error}. Use device='cpu'") from error

    def idle_gpu_hint(self) -> str:
        """Name a GPU that is not used, and how to use it; empty if there is none."""
        if not processor.has_nvidia_gpu():
            return ""
        return f"the NVIDIA GPU is not used: this torch cannot open it. {_INSTALL}"

    @property
    def decode_px(self) -> int | None:
        """Minimum length of a decoded image's shorter side in pixels; None for full size."""
        return decode_px(self._spec)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one upright RGB image to (H, W, 3) uint8."""
        return resize_and_crop(image, self._spec)

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of prepared images, as `OnnxBackend.embed` does."""
        vectors = np.empty((len(prepared), self._spec.dim), np.float32)
        for vector, row in zip(vectors, self._batches(prepared), strict=True):
            vector[:] = row
        return check_and_normalize(vectors, self._spec)

    def _run(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        pixels = np.stack([normalize(image, self._spec) for image in images])
        values = _outputs(self._module, pixels, self._spec, self._device, self._dtype)
        return np.stack([pool_output(row, self._spec) for row in values])

    def __reduce__(self) -> tuple[Any, ...]:
        if self._reload is not None:
            return self._reload, ()
        return partial(TorchBackend, device=self._device), (self._original, self._spec)


@dataclass(frozen=True)
class TorchVariants:
    """The variants of a module: other pooling, or computed by a device.

    Attributes
    ----------
    name : str
        ``PACKAGE.MODULE:FACTORY``.
    spec : ModelSpec
        The facts of the module without a variant.
    """

    name: str
    spec: ModelSpec

    def variant_entry(self, variant: ModelVariant) -> ModelEntry:
        """Return the entry of a variant.

        Raises
        ------
        UnknownModelError
            Layer and precision are set by the factory, not by the name.
        """
        if variant.layer or variant.layers or variant.precision or variant.device == "cpu":
            raise UnknownModelError(
                f"{self.spec.id} has no variant {variant}; its factory sets layer and precision as facts"
            )
        spec = replace(
            self.spec, id=variant.applied_to(self.spec.id), identity=self.spec.identity or self.spec.id
        )
        if variant.pooling:
            spec = replace(spec, pooling=variant.pooling)
        if variant.decode:
            spec = replace(spec, draft=False)
        if not variant.device:
            return ModelEntry(spec, partial(_load, self.name, spec=spec), lambda: True)
        spec = device_specific_spec(spec, variant.device)
        load_on_device = partial(self.load_on_device, spec, variant.device)
        return ModelEntry(
            spec, partial(load_on_device, device="auto"), lambda: True, load_on_device=load_on_device
        )

    def load_on_device(self, spec: ModelSpec, home: str, cache_dir: Path, device: str) -> Backend:
        """Return a variant that belongs to one kind of device."""
        backend = _load(self.name, cache_dir, replace(spec, precision=self.spec.precision))
        return pin_to_device(backend, pinned_device(spec.id, home, device), cache_dir, spec)

    def layers(self) -> Mapping[str, tuple[int | None, ...]]:
        """Return the shape of the only layer."""
        return {self.spec.layer: (1, self.spec.dim)}


def torch_module(name: str) -> ModelEntry:
    """Return the entry of a module by the name of its factory.

    Parameters
    ----------
    name : str
        ``PACKAGE.MODULE:FACTORY`` on Python's import path.

    Raises
    ------
    MissingExtraError
        PyTorch is not installed.
    UnknownModelError
        There is no such module or factory.
    InvalidParameterError
        The facts are missing or wrong.
    WeightsError
        The factory failed or did not return a module.
    """
    spec = _build_module(name)[1]
    return ModelEntry(spec, partial(_load, name, spec=spec), lambda: True, variants=TorchVariants(name, spec))


def _load(name: str, cache_dir: Path, spec: ModelSpec) -> TorchBackend:
    module, _ = _build_module(name)
    backend = TorchBackend(module, spec, reload=partial(_load, name, cache_dir, spec))
    if backend.spec.weights_sha256 != spec.weights_sha256:
        raise WeightsError(
            f"torch:{name} has other weights than before; its factory must return the same weights each time"
        )
    if spec.precision != "float32":
        require_parity(backend, TorchBackend(module, replace(spec, precision="float32")), cache_dir)
    return backend


def _reload_on_device(
    reload: Callable[[], Backend], device: str, cache_dir: Path, spec: ModelSpec | None
) -> Backend:
    backend = reload()
    return (
        backend.to_device(device, cache_dir, spec=spec)
        if isinstance(backend, MultiDeviceBackend)
        else backend
    )


# Called three times while a collection is created. One entry, because a module may be large.
@lru_cache(maxsize=1)
def _build_module(name: str) -> tuple[Any, ModelSpec]:
    """Call the factory; return its module and its facts."""
    torch = _torch()
    result = _factory(name)()
    module, facts = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    if not isinstance(module, torch.nn.Module):
        raise WeightsError(
            f"torch:{name} returns {type(module).__name__}; it must return a torch.nn.Module, or a pair of "
            "a module and facts"
        )
    all_facts: dict[str, Any] = {"draft": False, "layer": "output"}
    for source in (_timm_facts(module), getattr(module, "nearsight", {}), facts):
        all_facts |= _check_facts(name, source)
    if missing := [key for key in _REQUIRED if key not in all_facts]:
        raise InvalidParameterError(
            f"torch:{name} lacks {' and '.join(missing)} for the preparation of images. Return (module, "
            "{'input_px': (224, 224), 'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}), or set "
            "the facts as the module's attribute `nearsight`"
        )
    all_facts.setdefault("resize_px", max(all_facts["input_px"]))
    spec = ModelSpec(**{**all_facts, "id": f"torch:{name}", "dim": 1, "weights_sha256": ""})
    blank = normalize(np.zeros((*spec.input_px, 3), np.uint8), spec)[None]
    exact = copy.deepcopy(module).float().eval()
    shape = _outputs(exact, blank, spec, "cpu", torch.float32).shape
    sha256, size_bytes = _hash_weights(module)
    dim = shape[1] if len(shape) == 4 else shape[-1]
    if all_facts.get("dim", dim) != dim:
        raise InvalidParameterError(
            f"torch:{name} has the fact dim={all_facts['dim']}, but its output has shape {list(shape)}"
        )
    return module, replace(spec, dim=dim, weights_sha256=sha256, size_bytes=size_bytes)


def _factory(name: str) -> Callable[[], Any]:
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise UnknownModelError(
            f"{name!r} is not the name of a factory; give torch:PACKAGE.MODULE:FACTORY, such as "
            "torch:my_nets:make"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UnknownModelError(
            f"Python finds no module {error.name!r}; install it, or add its folder to PYTHONPATH: "
            f"PYTHONPATH=. nearsight ... --model torch:{name}"
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        near = difflib.get_close_matches(attribute, [n for n in dir(module) if n[0] != "_"], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"its file is {module.__file__}."
        raise UnknownModelError(f"{module_name} has no factory {attribute!r}; {hint}")
    return partial(_call_factory, name, factory)


def _call_factory(name: str, factory: Callable[[], Any]) -> Any:
    try:
        return factory()
    except NearsightError:
        raise
    # The user's code may raise anything.
    except Exception as error:
        raise WeightsError(f"torch:{name} failed: {type(error).__name__}: {error}") from error


def _check_facts(name: str, source: Any) -> dict[str, Any]:
    if isinstance(source, ModelSpec):
        return {f.name: getattr(source, f.name) for f in fields(source) if f.name not in _READ_FROM_FILE}
    if not isinstance(source, Mapping):
        raise InvalidParameterError(
            f"torch:{name} returns {type(source).__name__} as facts; it must be a dict or a ModelSpec"
        )
    known = {field.name for field in fields(ModelSpec)} - set(_READ_FROM_FILE)
    for key in source:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}."
            raise InvalidParameterError(f"torch:{name} has an unknown fact {key!r}; {hint}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in source.items()}


def _timm_facts(module: Any) -> dict[str, Any]:
    """Return the facts about preprocessing in the configuration of a timm model."""
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if not isinstance(config, Mapping) or not {"input_size", "mean", "std"} <= set(config):
        return {}
    _, height, width = config["input_size"]
    facts: dict[str, Any] = {
        "input_px": (height, width),
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
    }
    facts["resize_px"] = int(max(height, width) / (config.get("crop_pct") or 0.875))
    if config.get("crop_mode", "center") == "squash":
        facts["resize_mode"] = "squash"
    if config.get("interpolation") in ("bicubic", "bilinear", "nearest", "lanczos"):
        facts["interpolation"] = config["interpolation"]
    return {**facts, "license": config.get("license") or "unknown"}


def _outputs(
    module: Any, pixels: NDArray[np.float32], spec: ModelSpec, device: str, dtype: Any
) -> NDArray[np.float32]:
    """Run the module and return the output that gives the vectors, a row for each image."""
    torch = _torch()
    with torch.inference_mode():
        try:
            output = module(torch.from_numpy(pixels).to(device=device, dtype=dtype))
        # Shapes that do not resize_and_crop, missing arguments: whatever a user's code may raise.
        except Exception as error:
            if device != "cpu":
                raise
            raise WeightsError(
                f"{spec.id} fails on images of shape {list(pixels.shape)}: {type(error).__name__}: {error}"
            ) from error
    output = _select_output(output, spec, torch)
    if len(output) != len(pixels) or output.ndim not in (2, 3, 4):
        raise WeightsError(
            f"{spec.id} returns shape {list(output.shape)} for {len(pixels)} images; it must be (n, dim), "
            "(n, t, dim) or (n, dim, h, w)"
        )
    values: NDArray[np.float32] = output.float().cpu().numpy()
    return values


def _select_output(output: Any, spec: ModelSpec, torch: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output
    selected = None
    if isinstance(output, Mapping):
        names = list(output)
        selected = output.get(spec.layer)
    elif isinstance(output, (tuple, list)):
        names = [str(i) for i in range(len(output))]
        selected = output[int(spec.layer)] if spec.layer in names else None
    else:
        names = [name for name in dir(output) if isinstance(getattr(output, name, None), torch.Tensor)]
        selected = getattr(output, spec.layer, None)
    if not isinstance(selected, torch.Tensor):
        raise WeightsError(
            f"{spec.id} returns {type(output).__name__} without a tensor {spec.layer!r}; give one of these "
            f"as the fact layer: {', '.join(names) or 'there is none'}"
        )
    return selected


def _hash_weights(module: Any) -> tuple[str, int]:
    """Return SHA-256 and size of all parameters and buffers: their names, types, shapes and bytes."""
    torch = _torch()
    digest, size = hashlib.sha256(), 0
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, torch.Tensor):
            continue
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(flat.tobytes())
        size += flat.nbytes
    return digest.hexdigest(), size


_INSTALL = "Install a build of torch with it: see https://pytorch.org/get-started/locally"


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch: models need PyTorch. Run: pip install 'nearsight[torch]'") from error
    return torch
