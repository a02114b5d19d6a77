"""Runs a model on a device if its vectors there are those of the processor; explains why not otherwise."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from weakref import WeakKeyDictionary

from nearsight.errors import DeviceError, NearsightError
from nearsight.models.base import Backend, MultiDeviceBackend
from nearsight.models.model_name import ModelVariant
from nearsight.models.precision.parity import (
    EQUIVALENT_COSINE,
    MIN_COSINE,
    measure_parity,
    parity_error,
    require_parity,
)
from nearsight.models.runtimes.devices import split_device
from nearsight.models.spec import ModelSpec

# Backends that `auto` has put on a device, with the same models on the processor.
_on_processor: WeakKeyDictionary[Backend, Backend] = WeakKeyDictionary()

# Warnings of this process, so that each is shown once and not with every image.
_warned: set[str] = set()


def place_on_device(
    backend: Backend, device: str, cache_dir: Path, *, load_device_specific: Callable[[str], Backend]
) -> Backend:
    """Return a backend on the requested device.

    At the first use on a machine, the synthetic images are embedded on the device and on the processor. If
    all vectors are equivalent (cosine of at least 0.9999), the device is used. If they are only similar
    (0.99), ``auto`` stays on the processor, and a device requested by name is used under a fingerprint of its
    own.

    Parameters
    ----------
    backend : Backend
        The model on the processor.
    device : str
        See `devices.DEVICES`. ``auto`` takes the first device that the runtime offers, that opens, and that
        gives equivalent vectors; otherwise the processor, with a warning about a GPU that is not used.
    cache_dir : Path
        Directory for measurements and compiled models.
    load_device_specific : callable
        Given the device, returns the variant of the model with a fingerprint of its own.

    Raises
    ------
    InvalidParameterError
        There is no device of that name.
    DeviceError
        The device is missing or cannot run the model.
    ParityError
        The device's vectors are too different.
    """
    name, _ = split_device(device)
    if name == "auto":
        return _place_automatically(backend, cache_dir)
    current = getattr(backend, "device", "cpu")
    # A variant that belongs to a device, or runs in bfloat16, stays where it is.
    if name in ("cpu", split_device(current)[0]):
        return backend
    if current != "cpu" or not isinstance(backend, MultiDeviceBackend):
        only = "the processor" if current == "cpu" else current
        raise DeviceError(f"{backend.spec.id} runs on {only} only; leave device={device!r} away")
    moved = backend.to_device(device, cache_dir)
    parity, _ = measure_parity(moved, backend, cache_dir, runtime=device)
    if parity.smallest >= EQUIVALENT_COSINE:
        return moved
    if parity.smallest < MIN_COSINE:
        raise parity_error(_named(backend.spec, name), parity, backend.spec)
    return load_device_specific(device)


def place_precision(
    spec: ModelSpec,
    run: Callable[[str], Backend],
    exact: MultiDeviceBackend,
    device: str,
    cache_dir: Path,
    *,
    load_device_specific: Callable[[str], Backend],
    processor_note: str = "",
) -> Backend:
    """Return a model in another precision on the requested device.

    Its vectors are compared with those in full precision on the processor, as `place_on_device` does: if they
    are equivalent, it is the same model; if they are only similar, it has a fingerprint of its own.

    Parameters
    ----------
    spec : ModelSpec
        Name and precision of the variant.
    run : callable
        Given the device, returns the model in that precision there, with the facts of `exact`.
    exact : MultiDeviceBackend
        The model in full precision, on the processor.
    device, cache_dir, load_device_specific
        As for `place_on_device`.
    processor_note : str
        Added as a warning if the model runs on the processor.

    Raises
    ------
    InvalidParameterError, DeviceError, ParityError
        As for `place_on_device`.
    """
    if split_device(device)[0] == "auto":
        moved = _first_equivalent(spec, run, exact.offered_devices, exact, cache_dir)
        if moved is not None:
            return moved
        device = "cpu"
    moved = run(device)
    parity, is_new = measure_parity(moved, exact, cache_dir, runtime=f"{spec.precision}-{device}")
    if parity.smallest < MIN_COSINE:
        raise parity_error(spec, parity, exact.spec)
    if is_new and processor_note and device == "cpu":
        _warn_once(f"{spec.id}: {processor_note}")
    if parity.smallest < EQUIVALENT_COSINE:
        return load_device_specific(device)
    if is_new:
        _warn_once(f"{spec.id} on {device} gives the vectors of {exact.spec.id}; measured once: {parity}")
    return moved


def pinned_device(id: str, home: str, device: str) -> str:
    """Return the device, with the requested number, of a variant that belongs to the kind `home`.

    Raises
    ------
    DeviceError
        Another kind is requested.
    """
    name, _ = split_device(device)
    if name in ("auto", "cpu"):
        return home
    if name != home:
        raise DeviceError(f"{id} runs on {home} only; leave device={device!r} away")
    return device


def pin_to_device(backend: MultiDeviceBackend, device: str, cache_dir: Path, spec: ModelSpec) -> Backend:
    """Return a backend on a device under a fingerprint of its own, if its vectors are similar enough."""
    moved = backend.to_device(device, cache_dir, spec=spec)
    require_parity(moved, backend, cache_dir, runtime=device)
    return moved


def device_specific_spec(spec: ModelSpec, device: str) -> ModelSpec:
    """Return the facts of a model whose vectors depend on the device."""
    return replace(_named(spec, device), precision=f"{spec.precision}-{device}")


def _named(spec: ModelSpec, device: str) -> ModelSpec:
    id = ModelVariant(device=device).applied_to(spec.id)
    return replace(spec, id=id, identity=spec.identity or spec.id)


def _place_automatically(backend: Backend, cache_dir: Path) -> Backend:
    if not isinstance(backend, MultiDeviceBackend) or getattr(backend, "device", "cpu") != "cpu":
        return backend
    moved = _first_equivalent(
        backend.spec,
        lambda device: backend.to_device(device, cache_dir),
        backend.offered_devices,
        backend,
        cache_dir,
    )
    if moved is None:
        return backend
    _on_processor[moved] = backend
    return moved


def on_processor(backend: Backend) -> Backend | None:
    """Return the same model on the processor, with the same vectors, if ``auto`` has put it on a device."""
    return _on_processor.get(backend)


def _first_equivalent(
    spec: ModelSpec,
    run: Callable[[str], Backend],
    offered: Sequence[str],
    exact: MultiDeviceBackend,
    cache_dir: Path,
) -> Backend | None:
    """Return the model on the first device that opens, if its vectors there are equivalent."""
    precision = "" if spec.precision == exact.spec.precision else f"{spec.precision}-"
    for device in offered:
        try:
            moved = run(device)
            parity, is_new = measure_parity(moved, exact, cache_dir, runtime=f"{precision}{device}")
        except NearsightError as error:
            _warn_once(f"{device} is not used; the model runs on the processor: {error}")
            continue
        if parity.smallest >= EQUIVALENT_COSINE:
            return moved
        if is_new:
            by_name = (
                f"device={device!r} uses it under a fingerprint of its own; "
                if parity.smallest >= MIN_COSINE
                else ""
            )
            _warn_once(
                f"{device} is not used for {spec.id}; the model runs on the processor. {by_name}"
                f"measured once on this machine: {parity}"
            )
        return None
    if hint := exact.idle_gpu_hint():
        _warn_once(hint)
    return None


def _warn_once(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, stacklevel=5)
