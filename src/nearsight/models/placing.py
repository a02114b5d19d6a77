"""Puts a model onto a device, where its vectors there are those of the processor; or says why not."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nearsight.errors import DeviceError, NearsightError
from nearsight.models.backend import Backend, Movable
from nearsight.models.devices import split_device
from nearsight.models.parity import LEAST, SAME, measure_parity, require_parity, too_far
from nearsight.models.spec import ModelSpec
from nearsight.models.variant import Variant

# What has been said in this process; a remark that comes with each picture helps nobody.
_told: set[str] = set()


def place(backend: Backend, device: str, cache_dir: Path, *, own: Callable[[str], Backend]) -> Backend:
    """Return a backend on the device that is asked for.

    At the first use on a machine, the built-in pictures are embedded there and on the processor. Where each
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
    return own(name)


def place_for_good(backend: Movable, device: str, cache_dir: Path, spec: ModelSpec) -> Backend:
    """Return a backend on a device under a fingerprint of its own, once it is near enough."""
    moved = backend.on(device, cache_dir, spec=spec)
    require_parity(moved, backend, cache_dir, runtime=device)
    return moved


def computed_by(spec: ModelSpec, device: str) -> ModelSpec:
    """Return the facts of a model whose vectors are what a device makes of it."""
    return replace(_named(spec, device), precision=f"{spec.precision}-{device}")


def _named(spec: ModelSpec, device: str) -> ModelSpec:
    id = Variant(precision=device).applied_to(spec.id)
    return replace(spec, id=id, identity=spec.identity or spec.id)


def _best(backend: Backend, cache_dir: Path) -> Backend:
    if not isinstance(backend, Movable) or getattr(backend, "device", "cpu") != "cpu":
        return backend
    for device in backend.devices:
        try:
            moved = backend.on(device, cache_dir)
            parity, is_new = measure_parity(moved, backend, cache_dir, runtime=device)
        except NearsightError as error:
            _tell(f"{device} is not used, the processor is: {error}")
            continue
        if parity.smallest >= SAME:
            return moved
        if is_new:
            asked = f"device={device!r} uses it, with vectors of their own; " * (parity.smallest >= LEAST)
            _tell(
                f"{device} is not used for {backend.spec.id}, the processor is. {asked}measured once on this "
                f"machine: {parity}"
            )
        return backend
    if idle := backend.idle_device():
        _tell(idle)
    return backend


def _tell(text: str) -> None:
    if text not in _told:
        _told.add(text)
        warnings.warn(text, stacklevel=4)
