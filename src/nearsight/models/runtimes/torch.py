"""A PyTorch module of your own by name: ``torch:PACKAGE.MODULE:FACTORY``.

The factory takes nothing and returns a `torch.nn.Module` with its weights in it, alone or in a pair with the
facts of `ModelSpec`, by name. It must return the same weights each time: their hash is in the fingerprint.
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
from nearsight.models.base import Backend, ModelEntry, Movable
from nearsight.models.model_name import Variant
from nearsight.models.pooling import decode_px, finished, pooled
from nearsight.models.precision.parity import require_parity
from nearsight.models.preprocess import fit, normalize
from nearsight.models.runtimes import devices
from nearsight.models.runtimes.batching import MOST, Batches
from nearsight.models.runtimes.placement import computed_by, device_within, place_for_good
from nearsight.models.spec import ModelSpec

#: Arithmetic that a module can be asked for with the fact `precision`.
PRECISIONS = ("float32", "float16", "bfloat16")

# Nobody can guess these, and a wrong guess gives vectors that are merely worse.
_REQUIRED = ("input_px", "mean", "std")
_MEASURED = ("id", "weights_sha256", "size_bytes")
# On the processor more at once is no faster.
_MOST_ON_CORES = 8


class TorchBackend:
    """A `torch.nn.Module` as a model.

    It is copied, so that training it further changes no vector here; set to evaluation; and run without
    gradients. Batches go through it one at a time, each on all the threads that torch has: a module need
    not know that several threads call.

    Parameters
    ----------
    module : torch.nn.Module
        Takes (n, 3, H, W) and gives (n, dim), or tokens (n, t, dim), or places (n, dim, h, w), which are
        pooled as `spec.pooling` says. Out of several outputs, `spec.layer` names the one.
    spec : ModelSpec
        The model's facts; the weights' hash and size are measured. `precision` is one of `PRECISIONS`.
    device : str, default "cpu"
        As torch calls it.
    reload : callable, optional
        Returns the same backend; what a pickle holds. Without it the pickle holds the module.

    Raises
    ------
    MissingExtraError
        PyTorch is not installed.
    WeightsError
        The module does not take such images, or gives something else than the spec says.
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
                f"precision is {spec.precision!r}; of torch: it is one of {', '.join(PRECISIONS)}"
            )
        sha256, size_bytes = _weights(module)
        self._spec = replace(spec, weights_sha256=sha256, size_bytes=size_bytes)
        self._dtype = getattr(torch, spec.precision.partition("-")[0])
        self._device = device
        self._module = copy.deepcopy(module).to(device=device, dtype=self._dtype).eval().requires_grad_(False)
        self._reload = reload
        self._given = module
        self._batches = Batches(self._run, _MOST_ON_CORES if device == "cpu" else MOST)
        self.embed([np.zeros((*spec.input_px, 3), np.uint8)])

    @property
    def spec(self) -> ModelSpec:
        """The model's facts."""
        return self._spec

    @property
    def device(self) -> str:
        """Where it runs."""
        return self._device

    @property
    def devices(self) -> Sequence[str]:
        """What this build of torch offers to `auto`."""
        torch = _torch()
        offered = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        return [name for name, is_there in offered.items() if is_there]

    def on(self, device: str, cache_dir: Path, *, spec: ModelSpec | None = None) -> "TorchBackend":
        """Return the same model run on a device; see `Movable`."""
        name, _ = devices.split_device(device)
        if name == "cpu":
            return self
        if name not in self.devices:
            offered = ", ".join(["cpu", *self.devices])
            raise DeviceError(
                f"this torch cannot run {self._spec.id} on {device}; it offers {offered}. {_INSTALL}"
            )
        reload = partial(_moved, self._reload, device, cache_dir, spec) if self._reload else None
        try:
            return TorchBackend(self._given, spec or self._spec, device=device, reload=reload)
        except NearsightError:
            raise
        # Of a device that is there and does not work; torch's own errors share no base but this one.
        except Exception as error:
            raise DeviceError(f"{device} cannot run {self._spec.id}: {error}. Use device='cpu'") from error

    def idle_device(self) -> str:
        """Say that a GPU stands idle, and how to use it; or nothing."""
        if not processor.has_nvidia_gpu():
            return ""
        return f"there is an NVIDIA GPU, and it stands idle: this torch cannot open it. {_INSTALL}"

    @property
    def decode_px(self) -> int | None:
        """Shorter side, in pixels, that a decoded image must have at least; None for full size."""
        return decode_px(self._spec)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one upright RGB image to (H, W, 3) uint8."""
        return fit(image, self._spec)

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of prepared images, as `OnnxBackend.embed` does."""
        vectors = np.empty((len(prepared), self._spec.dim), np.float32)
        for vector, row in zip(vectors, self._batches(prepared), strict=True):
            vector[:] = row
        return finished(vectors, self._spec)

    def _run(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        pixels = np.stack([normalize(image, self._spec) for image in images])
        values = _outputs(self._module, pixels, self._spec, self._device, self._dtype)
        return np.stack([pooled(row, self._spec) for row in values])

    def __reduce__(self) -> tuple[Any, ...]:
        if self._reload is not None:
            return self._reload, ()
        return partial(TorchBackend, device=self._device), (self._given, self._spec)


@dataclass(frozen=True)
class TorchForms:
    """The forms of a module: pooled otherwise, or as a device computes it.

    Attributes
    ----------
    name : str
        ``PACKAGE.MODULE:FACTORY``.
    spec : ModelSpec
        As the name alone stands for it.
    """

    name: str
    spec: ModelSpec

    def vary(self, variant: Variant) -> ModelEntry:
        """Return the model in that form.

        Raises
        ------
        UnknownModelError
            It is one that the factory decides on.
        """
        if variant.layer or variant.precision or variant.device == "cpu":
            raise UnknownModelError(
                f"{self.spec.id} has no form {variant}; its factory decides on layer and precision, as facts"
            )
        spec = replace(
            self.spec, id=variant.applied_to(self.spec.id), identity=self.spec.identity or self.spec.id
        )
        if variant.pooling:
            spec = replace(spec, pooling=variant.pooling)
        if not variant.device:
            return ModelEntry(spec, partial(_load, self.name, spec=spec), lambda: True)
        spec = computed_by(spec, variant.device)
        load_on = partial(self.load_on, spec, variant.device)
        return ModelEntry(spec, partial(load_on, device="auto"), lambda: True, load_on=load_on)

    def load_on(self, spec: ModelSpec, home: str, cache_dir: Path, device: str) -> Backend:
        """Return a form that belongs to one kind of device."""
        backend = _load(self.name, cache_dir, replace(spec, precision=self.spec.precision))
        return place_for_good(backend, device_within(spec.id, home, device), cache_dir, spec)

    def layers(self) -> Mapping[str, tuple[int | None, ...]]:
        """Return the one there is."""
        return {self.spec.layer: (1, self.spec.dim)}


def torch_module(name: str) -> ModelEntry:
    """Return a module by the name of its factory, as the registry asks for it.

    Parameters
    ----------
    name : str
        ``PACKAGE.MODULE:FACTORY``, where Python finds it.

    Raises
    ------
    MissingExtraError
        PyTorch is not installed.
    UnknownModelError
        There is no such module or factory.
    InvalidParameterError
        The facts are missing or wrong.
    WeightsError
        The factory failed, or returned something else.
    """
    spec = _built(name)[1]
    return ModelEntry(spec, partial(_load, name, spec=spec), lambda: True, forms=TorchForms(name, spec))


def _load(name: str, cache_dir: Path, spec: ModelSpec) -> TorchBackend:
    module, _ = _built(name)
    backend = TorchBackend(module, spec, reload=partial(_load, name, cache_dir, spec))
    if backend.spec.weights_sha256 != spec.weights_sha256:
        raise WeightsError(
            f"torch:{name} has other weights than when it was named; its factory must return the same ones "
            "each time"
        )
    if spec.precision != "float32":
        require_parity(backend, TorchBackend(module, replace(spec, precision="float32")), cache_dir)
    return backend


def _moved(reload: Callable[[], Backend], device: str, cache_dir: Path, spec: ModelSpec | None) -> Backend:
    backend = reload()
    return backend.on(device, cache_dir, spec=spec) if isinstance(backend, Movable) else backend


# Asked for three times while a collection is made; the last one is kept, since it may be large.
@lru_cache(maxsize=1)
def _built(name: str) -> tuple[Any, ModelSpec]:
    """Call the factory; return its module and all facts."""
    torch = _torch()
    found = _factory(name)()
    module, facts = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
    if not isinstance(module, torch.nn.Module):
        raise WeightsError(
            f"torch:{name} returns {type(module).__name__}; it must return a torch.nn.Module, or a pair of "
            "one and facts"
        )
    given: dict[str, Any] = {"draft": False, "layer": "output"}
    for source in (_of_timm(module), getattr(module, "nearsight", {}), facts):
        given |= _as_facts(name, source)
    if missing := [key for key in _REQUIRED if key not in given]:
        raise InvalidParameterError(
            f"torch:{name} tells no {' and no '.join(missing)}: how images are prepared. Return (module, "
            "{'input_px': (224, 224), 'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}), or set "
            "such facts as the module's attribute `nearsight`"
        )
    given.setdefault("resize_px", max(given["input_px"]))
    spec = ModelSpec(**{**given, "id": f"torch:{name}", "dim": 1, "weights_sha256": ""})
    blank = normalize(np.zeros((*spec.input_px, 3), np.uint8), spec)[None]
    exact = copy.deepcopy(module).float().eval()
    shape = _outputs(exact, blank, spec, "cpu", torch.float32).shape
    sha256, size_bytes = _weights(module)
    dim = shape[1] if len(shape) == 4 else shape[-1]
    if given.get("dim", dim) != dim:
        raise InvalidParameterError(f"torch:{name} says that dim is {given['dim']}, but gives {list(shape)}")
    return module, replace(spec, dim=dim, weights_sha256=sha256, size_bytes=size_bytes)


def _factory(name: str) -> Callable[[], Any]:
    place, colon, attribute = name.partition(":")
    if not (place and colon and attribute):
        raise UnknownModelError(
            f"{name!r} names no factory; the name is torch:PACKAGE.MODULE:FACTORY, such as torch:my_nets:make"
        )
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise
        raise UnknownModelError(
            f"Python finds no module {error.name!r}; install it, or name its folder in PYTHONPATH: "
            f"PYTHONPATH=. nearsight ... --model torch:{name}"
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        near = difflib.get_close_matches(attribute, [n for n in dir(module) if n[0] != "_"], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it lies in {module.__file__}."
        raise UnknownModelError(f"{place} has no factory {attribute!r}; {hint}")
    return partial(_called, name, factory)


def _called(name: str, factory: Callable[[], Any]) -> Any:
    try:
        return factory()
    except NearsightError:
        raise
    # A stranger's code.
    except Exception as error:
        raise WeightsError(f"torch:{name} failed: {type(error).__name__}: {error}") from error


def _as_facts(name: str, source: Any) -> dict[str, Any]:
    if isinstance(source, ModelSpec):
        return {f.name: getattr(source, f.name) for f in fields(source) if f.name not in _MEASURED}
    if not isinstance(source, Mapping):
        raise InvalidParameterError(
            f"torch:{name} returns {type(source).__name__} as facts; it must be a dict or a ModelSpec"
        )
    known = {field.name for field in fields(ModelSpec)} - set(_MEASURED)
    for key in source:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}."
            raise InvalidParameterError(f"torch:{name} tells a fact {key!r}; {hint}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in source.items()}


def _of_timm(module: Any) -> dict[str, Any]:
    """Return what a model of timm tells of how images are prepared."""
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
    """Run the module and return the output that the vector is taken from, a row for each image."""
    torch = _torch()
    with torch.inference_mode():
        try:
            output = module(torch.from_numpy(pixels).to(device=device, dtype=dtype))
        # Shapes that do not fit, missing arguments: whatever a stranger's code may raise.
        except Exception as error:
            if device != "cpu":
                raise
            raise WeightsError(
                f"{spec.id} does not take images of shape {list(pixels.shape)}: "
                f"{type(error).__name__}: {error}"
            ) from error
    output = _chosen(output, spec, torch)
    if len(output) != len(pixels) or output.ndim not in (2, 3, 4):
        raise WeightsError(
            f"{spec.id} gives shape {list(output.shape)} for {len(pixels)} images; it must be (n, dim), "
            "(n, t, dim) or (n, dim, h, w)"
        )
    values: NDArray[np.float32] = output.float().cpu().numpy()
    return values


def _chosen(output: Any, spec: ModelSpec, torch: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output
    found = None
    if isinstance(output, Mapping):
        names = list(output)
        found = output.get(spec.layer)
    elif isinstance(output, (tuple, list)):
        names = [str(i) for i in range(len(output))]
        found = output[int(spec.layer)] if spec.layer in names else None
    else:
        names = [name for name in dir(output) if isinstance(getattr(output, name, None), torch.Tensor)]
        found = getattr(output, spec.layer, None)
    if not isinstance(found, torch.Tensor):
        raise WeightsError(
            f"{spec.id} gives {type(output).__name__} without a tensor {spec.layer!r}; name one with the "
            f"fact layer: {', '.join(names) or 'there is none'}"
        )
    return found


def _weights(module: Any) -> tuple[str, int]:
    """Return hash and size of all parameters and buffers, by name, type, shape and bytes."""
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
