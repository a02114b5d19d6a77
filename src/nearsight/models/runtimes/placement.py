"""Puts a model onto a device, where its vectors there are those of the processor; or says why not."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nearsight.errors import DeviceError, NearsightError
from nearsight.models.base import Backend, Movable
from nearsight.models.model_name import Variant
from nearsight.models.precision.parity import LEAST, SAME, measure_parity, require_parity, too_far
from nearsight.models.runtimes.devices import split_device
from nearsight.models.spec import ModelSpec

# What has been said in this process; a remark that comes with each image helps nobody.
_told: set[str] = set()


def place(backend: Backend, device: str, cache_dir: Path, *, own: Callable[[str], Backend]) -> Backend:
    """Return a backend on the device that is asked for.

    At the first use on a machine, the built-in images are embedded there and on the processor. Where each
    vector is the same (a cosine of .9999), the device is used and nothing more is said of it. Where it is
    not quite, only somebody who asks for that device by name gets it, with vectors of their own fingerprint.

    Parameters
    ----------
    backend : Backend
        On the processor.
    device : str
        See `devices.DEVICES`. ``auto`` takes the first device that the runtime offers, that opens, and that
        gives the same vectors; and else the processor, telling about a GPU that stands idle then.
    cache_dir : Path
        What was measured and compiled is kept there.
    own : callable
        Given the device, returns the form of the model that has a fingerprint of its own.

    Raises
    ------
    InvalidParameterError
        There is no device of that name.
    DeviceError
        It is not there, or cannot run the model.
    ParityError
        What it computes is too far from the model.
    """
    name, _ = split_device(device)
    if name == "auto":
        return _best(backend, cache_dir)
    here = getattr(backend, "device", "cpu")
    # A form that is computed by a device, or in bfloat16, has its place.
    if name in ("cpu", split_device(here)[0]):
        return backend
    if here != "cpu" or not isinstance(backend, Movable):
        place = "the processor" if here == "cpu" else here
        raise DeviceError(f"{backend.spec.id} runs on {place} only; leave device={device!r} away")
    moved = backend.on(device, cache_dir)
    parity, _ = measure_parity(moved, backend, cache_dir, runtime=device)
    if parity.smallest >= SAME:
        return moved
    if parity.smallest < LEAST:
        raise too_far(_named(backend.spec, name), parity, backend.spec)
    return own(device)


def place_arithmetic(
    spec: ModelSpec,
    run: Callable[[str], Backend],
    exact: Movable,
    device: str,
    cache_dir: Path,
    *,
    own: Callable[[str], Backend],
    on_cores: str = "",
) -> Backend:
    """Return a model in another arithmetic, on the device that is asked for.

    It is judged as a device is, see `place`: where each vector is the same as in full precision on the
    processor, it is the same model; where it is not quite, it has a fingerprint of its own.

    Parameters
    ----------
    spec : ModelSpec
        What it is called, and its arithmetic.
    run : callable
        Given the device, returns the model in that arithmetic there, with the facts of `exact`.
    exact : Movable
        The model in full precision, on the processor.
    device, cache_dir, own
        As for `place`.
    on_cores : str
        What is told besides where it comes to run on the processor.

    Raises
    ------
    InvalidParameterError, DeviceError, ParityError
        As for `place`.
    """
    if split_device(device)[0] == "auto":
        moved = _first_same(spec, run, exact.devices, exact, cache_dir)
        if moved is not None:
            return moved
        device = "cpu"
    moved = run(device)
    parity, is_new = measure_parity(moved, exact, cache_dir, runtime=f"{spec.precision}-{device}")
    if parity.smallest < LEAST:
        raise too_far(spec, parity, exact.spec)
    if is_new and on_cores and device == "cpu":
        _tell(f"{spec.id}: {on_cores}")
    if parity.smallest < SAME:
        return own(device)
    if is_new:
        _tell(f"{spec.id} on {device} gives the vectors of {exact.spec.id}; measured once: {parity}")
    return moved


def device_within(id: str, home: str, device: str) -> str:
    """Return which device a form that belongs to one kind of them runs on, with the number asked for.

    Raises
    ------
    DeviceError
        Another kind is asked for.
    """
    name, _ = split_device(device)
    if name in ("auto", "cpu"):
        return home
    if name != home:
        raise DeviceError(f"{id} runs on {home} only; leave device={device!r} away")
    return device


def place_for_good(backend: Movable, device: str, cache_dir: Path, spec: ModelSpec) -> Backend:
    """Return a backend on a device under a fingerprint of its own, once it is near enough."""
    moved = backend.on(device, cache_dir, spec=spec)
    require_parity(moved, backend, cache_dir, runtime=device)
    return moved


def computed_by(spec: ModelSpec, device: str) -> ModelSpec:
    """Return the facts of a model whose vectors are what a device makes of it."""
    return replace(_named(spec, device), precision=f"{spec.precision}-{device}")


def _named(spec: ModelSpec, device: str) -> ModelSpec:
    id = Variant(device=device).applied_to(spec.id)
    return replace(spec, id=id, identity=spec.identity or spec.id)


def _best(backend: Backend, cache_dir: Path) -> Backend:
    if not isinstance(backend, Movable) or getattr(backend, "device", "cpu") != "cpu":
        return backend
    moved = _first_same(
        backend.spec, lambda device: backend.on(device, cache_dir), backend.devices, backend, cache_dir
    )
    return backend if moved is None else moved


def _first_same(
    spec: ModelSpec,
    run: Callable[[str], Backend],
    offered: Sequence[str],
    exact: Movable,
    cache_dir: Path,
) -> Backend | None:
    """Return the model on the first device that opens, if it gives the exact vectors there."""
    arithmetic = "" if spec.precision == exact.spec.precision else f"{spec.precision}-"
    for device in offered:
        try:
            moved = run(device)
            parity, is_new = measure_parity(moved, exact, cache_dir, runtime=f"{arithmetic}{device}")
        except NearsightError as error:
            _tell(f"{device} is not used, the processor is: {error}")
            continue
        if parity.smallest >= SAME:
            return moved
        if is_new:
            asked = f"device={device!r} uses it, with vectors of their own; " * (parity.smallest >= LEAST)
            _tell(
                f"{device} is not used for {spec.id}, the processor is. {asked}measured once on this "
                f"machine: {parity}"
            )
        return None
    if idle := exact.idle_device():
        _tell(idle)
    return None


def _tell(text: str) -> None:
    if text not in _told:
        _told.add(text)
        warnings.warn(text, stacklevel=5)
