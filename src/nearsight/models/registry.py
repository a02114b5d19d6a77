"""Finds models by name: the built-in ones and anybody's plugins take the same road.

A plugin registers an entry point in one of two groups, each naming a callable that returns a `ModelEntry`:

``nearsight.models``
    One model. The entry point's name is the model's id; the callable takes nothing.
``nearsight.model_schemes``
    A family. ``hub:ORG/REPO`` calls the entry point named ``hub`` with ``"ORG/REPO"``.
"""

import difflib
import warnings
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from nearsight.errors import NearsightError, ParityError, UnknownModelError
from nearsight.models.base import Backend, ModelEntry, TextTower
from nearsight.models.cache import user_cache
from nearsight.models.huggingface.model_card import warn_of_terms
from nearsight.models.matryoshka import shortened
from nearsight.models.model_name import Variant, split_variant
from nearsight.models.runtimes.devices import split_device
from nearsight.models.runtimes.placement import place

DEFAULT_MODEL = "efficientnet-lite0"

MODELS_GROUP = "nearsight.models"
SCHEMES_GROUP = "nearsight.model_schemes"


def list_models() -> list[ModelEntry]:
    """Return every registered model, sorted by id.

    A plugin that fails is left out with a `RuntimeWarning`. Nothing is loaded.

    Examples
    --------
    >>> from nearsight.models import list_models
    >>> [(entry.spec.id, entry.spec.dim) for entry in list_models()]
    [('efficientnet-lite0', 1280), ('efficientnet-lite2', 1280), ('sift-vlad', 8192)]
    """
    entries = (_entry_or_warning(point) for point in _points(MODELS_GROUP).values())
    return sorted(filter(None, entries), key=lambda entry: entry.spec.id)


def find_model(name: str) -> ModelEntry:
    """Return the model of that name without loading it.

    Parameters
    ----------
    name : str
        A model's id, or ``SCHEME:REST`` where a plugin registers that scheme. ``#`` and parts with commas
        between ask for another form: ``layer=VALUE``, ``pooling=mean|cls|patches``, ``bf16``, ``fp16``,
        ``int8``, ``int8=DIGITS`` of a calibration, and ``dim=D`` for a model that can be cut. A folder or a
        hub may hold files called fp16 and int8: ``fp16=builtin`` and ``int8=builtin`` are made here.

    Raises
    ------
    UnknownModelError
        Nothing of that name is registered, or its plugin fails; the message lists what there is.
    NearsightError
        What a scheme finds wrong with the name, file or folder.
    """
    name, variant = split_variant(name)
    if variant.dim:
        return shortened(find_model(replace(variant, dim=0).applied_to(name)), variant.dim)
    if variant:
        entry = find_model(name)
        if entry.forms is None:
            raise UnknownModelError(f"{name} has only one form; leave #{variant} away")
        # A form is there where the model is. Texts are compared with what the model was trained to give.
        is_own_layer = not (variant.layer or variant.pooling)
        return replace(
            entry.forms.vary(variant),
            available=entry.available,
            install=entry.install,
            load_text_encoder=entry.load_text_encoder if is_own_layer else None,
        )
    points, schemes = _points(MODELS_GROUP), _points(SCHEMES_GROUP)
    scheme, colon, rest = name.partition(":")
    point = points.get(name) or (schemes.get(scheme) if colon else None)
    if point is None:
        raise UnknownModelError(_unknown(name, [*points, *(f"{s}:…" for s in schemes)]))
    try:
        return _entry(point) if name in points else _checked(point.load()(rest))
    except NearsightError:
        # A scheme that works and says what is wrong with this name.
        raise
    except Exception as error:
        raise UnknownModelError(_complaint(point, error)) from error


def load_model(name: str = DEFAULT_MODEL, *, device: str = "auto", cache_dir: Path | None = None) -> Backend:
    """Load a model by name.

    Parameters
    ----------
    name : str
        A model's id, see `list_models`, or ``SCHEME:REST``.
    device : str, default "auto"
        Where it runs: ``cpu``, ``cuda``, ``tensorrt``, ``directml``, ``coreml``, ``openvino`` or ``mps``,
        with a number where there are several (``cuda:1``). ``auto`` takes the best that gives the same
        vectors as the processor. See `placing.place`.
    cache_dir : Path, optional
        Where converted models are kept; by default the user's cache directory of this system.

    Returns
    -------
    Backend
        Ready to use from any number of threads.

    Raises
    ------
    UnknownModelError
        Nothing of that name is registered.
    MissingExtraError
        The model comes with an extra that is not installed; the message holds the command.
    WeightsError
        The weights are missing or damaged; the message holds the way out.
    DeviceError, ParityError
        The device is not there, or does not give this model's vectors.

    Warns
    -----
    UserWarning
        Once: its license forbids commercial use; a device is not used that could be.

    Examples
    --------
    >>> from PIL import Image
    >>> from nearsight.models import load_model
    >>> model = load_model()
    >>> image = Image.radial_gradient("L").convert("RGB")
    >>> model.embed([model.prepare(image)]).shape
    (1, 1280)
    """
    cache_dir = cache_dir or user_cache()
    entry = find_model(name)
    warn_of_terms(entry.spec)
    if entry.load_on is not None:
        return entry.load_on(cache_dir, device)
    return place(entry.load(cache_dir), device, cache_dir, own=partial(_own, name, cache_dir))


def _own(name: str, cache_dir: Path, device: str) -> Backend:
    """Load the form of a model whose vectors are what a device makes of it."""
    base, given = split_variant(name)
    if given.precision:
        raise ParityError(
            f"{name} on {device} gives neither the vectors of {given.precision} nor those of float32; use "
            "device='cpu'"
        )
    if find_model(base).forms is None:
        raise ParityError(
            f"{name} has only one form, and {device} does not quite give its vectors; use device='cpu'"
        )
    kind, _ = split_device(device)
    form = find_model(Variant(device=kind).applied_to(name))
    return form.load(cache_dir) if form.load_on is None else form.load_on(cache_dir, device)


def load_text_encoder(name: str = DEFAULT_MODEL, *, cache_dir: Path | None = None) -> TextTower:
    """Load what compares texts with a model's image vectors.

    CLIP and its like bring a text tower. For an ImageNet classifier, ConSE leads from its classes to
    words, with the sentence encoder all-MiniLM-L6-v2.

    Parameters
    ----------
    name : str
        The model, as for `load_model`.
    cache_dir : Path, optional
        Where converted models are kept.

    Raises
    ------
    UnknownModelError
        No such model, or one that knows no texts.
    MissingExtraError
        What reads texts is not installed; the message holds the command.
    """
    entry = find_model(name)
    if entry.load_text_encoder is None:
        raise UnknownModelError(
            f"{name} knows no texts. Use a model with a text tower (dir: or hub: with a CLIP or SigLIP), "
            f"or a classifier such as {DEFAULT_MODEL}"
        )
    return entry.load_text_encoder(cache_dir or user_cache(), entry.spec)


def _points(group: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        # Two packages with one name: the first found stays, as with imports.
        found.setdefault(point.name, point)
    return dict(sorted(found.items()))


def _entry_or_warning(point: EntryPoint) -> ModelEntry | None:
    try:
        return _entry(point)
    # A stranger's code runs here; whatever it does wrong must not take the other models along.
    except Exception as error:
        warnings.warn(_complaint(point, error), RuntimeWarning, stacklevel=3)
        return None


def _entry(point: EntryPoint) -> ModelEntry:
    entry = _checked(point.load()())
    if entry.spec.id != point.name:
        raise ValueError(f"it returns a model with the id {entry.spec.id!r}")
    return entry


def _checked(entry: object) -> ModelEntry:
    if not isinstance(entry, ModelEntry):
        raise TypeError(f"it returns {type(entry).__name__}, not ModelEntry")
    return entry


def _complaint(point: EntryPoint, error: Exception) -> str:
    return f"Model plugin {point.name!r} ({point.value}) does not work: {type(error).__name__}: {error}"


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"There is no model {name!r}.{hint} Known: {', '.join(known) or 'none'}."
