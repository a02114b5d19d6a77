"""Finds models by name; built-in models and plugins register in the same way.

A plugin registers an entry point in one of two groups, each naming a callable that returns a `ModelEntry`:

``nearsight.models``
    One model. The entry point's name is the model's id; the callable takes nothing.
``nearsight.model_schemes``
    A family of models. ``hub:ORG/REPO`` calls the entry point ``hub`` with ``"ORG/REPO"``.
"""

import difflib
import sys
import warnings
from dataclasses import replace
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from nearsight.errors import NearsightError, ParityError, UnknownModelError
from nearsight.models.base import Backend, ModelEntry, TextEncoder
from nearsight.models.cache import user_cache_dir
from nearsight.models.huggingface.known_models import KNOWN_MODELS, hub_name
from nearsight.models.huggingface.model_card import warn_non_commercial
from nearsight.models.matryoshka import truncated_entry
from nearsight.models.model_name import ModelVariant, split_model_name
from nearsight.models.runtimes.devices import split_device
from nearsight.models.runtimes.placement import place_on_device

DEFAULT_MODEL = "efficientnet-lite0"

MODELS_GROUP = "nearsight.models"
SCHEMES_GROUP = "nearsight.model_schemes"


def list_models() -> list[ModelEntry]:
    """Return every registered model, sorted by id.

    A plugin that fails is skipped with a `RuntimeWarning`. No model is loaded.

    Examples
    --------
    >>> from nearsight.models import list_models
    >>> for entry in list_models():
    ...     print(entry.spec.id, entry.spec.dim)
    efficientnet-lite0 1280
    efficientnet-lite0+lite2 2560
    efficientnet-lite2 1280
    sift-vlad 8192
    """
    entries = (_entry_or_warning(point) for point in _entry_points(MODELS_GROUP).values())
    return sorted(filter(None, entries), key=lambda entry: entry.spec.id)


def find_model(name: str) -> ModelEntry:
    """Return the model of that name without loading it.

    Parameters
    ----------
    name : str
        A model's id, a short name of `KNOWN_MODELS` on a hub, or ``SCHEME:REST`` of a registered scheme.
        ``#`` and parts separated by commas name a variant: ``layer=VALUE``, ``pooling=mean|cls|patches``,
        ``bf16``, ``fp16``, ``int8``, ``int8=DIGITS`` of a calibration, ``dim=D`` for a model trained for
        truncation, ``layers`` for the mean and spread of inner layers beside the vector, and ``decode=full``
        for JPEGs that are decoded at full size. In a folder or on a hub,
        ``fp16`` and ``int8`` name files; nearsight computes ``fp16=builtin`` and ``int8=builtin``.
        ``centered`` is refused: it is a form of a collection.

    Raises
    ------
    UnknownModelError
        No model of that name is registered, or its plugin fails; the message lists the known names.
    NearsightError
        A scheme cannot use the name, file or folder.
    """
    name, variant = split_model_name(hub_name(name))
    if variant.centered:
        raise UnknownModelError(
            f"{variant.applied_to(name)} needs the mean of a collection's images; only a collection has it."
            " Make one: nearsight index PATH --model NAME#centered, or from one that is there: nearsight"
            " reduce-dim --center"
        )
    if variant.dim:
        return truncated_entry(find_model(replace(variant, dim=0).applied_to(name)), variant.dim)
    if variant.decode:
        plain = find_model(replace(variant, decode="").applied_to(name))
        if not plain.spec.draft:
            return plain
    if variant:
        entry = find_model(name)
        if entry.variants is None:
            raise UnknownModelError(f"{name} has no variants; remove #{variant}")
        # Texts can be compared only with the output that the model was trained for.
        is_default_output = not (variant.layer or variant.pooling or variant.layers)
        found = entry.variants.variant_entry(variant)
        if variant.decode and found.spec.draft:
            raise UnknownModelError(f"{name} decodes JPEGs at reduced size only; remove decode=full")
        return replace(
            found,
            available=entry.available,
            install=entry.install,
            load_text_encoder=entry.load_text_encoder if is_default_output else None,
        )
    points, schemes = _entry_points(MODELS_GROUP), _entry_points(SCHEMES_GROUP)
    scheme, colon, rest = name.partition(":")
    point = points.get(name) or (schemes.get(scheme) if colon else None)
    if point is None:
        raise UnknownModelError(
            _unknown(name, [*points, *(model.name for model in KNOWN_MODELS), *(f"{s}:…" for s in schemes)])
        )
    try:
        return _entry(point) if name in points else _checked(point.load()(rest))
    except NearsightError:
        raise
    except Exception as error:
        raise UnknownModelError(_plugin_error(point, error)) from error


def load_model(name: str = DEFAULT_MODEL, *, device: str = "auto", cache_dir: Path | None = None) -> Backend:
    """Load a model by name.

    Parameters
    ----------
    name : str
        A model's id, see `list_models`, or ``SCHEME:REST``.
    device : str, default "auto"
        ``cpu``, ``cuda``, ``tensorrt``, ``directml``, ``coreml``, ``openvino`` or ``mps``, with a number
        where there are several (``cuda:1``). ``auto`` takes the best device that gives the same vectors as
        the processor. See `placement.place_on_device`.
    cache_dir : Path, optional
        Directory for converted models; by default the user's cache directory.

    Returns
    -------
    Backend
        Threads may share it.

    Raises
    ------
    UnknownModelError
        No model of that name is registered.
    MissingExtraError
        The model needs an extra that is not installed; the message gives the command.
    WeightsError
        The weights are missing or damaged; the message gives the remedy.
    DeviceError, ParityError
        The device is missing, or its vectors differ too much.

    Warns
    -----
    UserWarning
        Once, if the license forbids commercial use, or if a GPU is not used.

    Examples
    --------
    >>> from PIL import Image
    >>> from nearsight.models import load_model
    >>> model = load_model()
    >>> image = Image.radial_gradient("L").convert("RGB")
    >>> model.embed([model.prepare(image)]).shape
    (1, 1280)
    """
    cache_dir = cache_dir or user_cache_dir()
    entry = find_model(name)
    warn_non_commercial(entry.spec)
    if entry.load_on_device is not None:
        return entry.load_on_device(cache_dir, device)
    return place_on_device(
        entry.load(cache_dir),
        device,
        cache_dir,
        load_device_specific=partial(_load_device_specific, name, cache_dir),
    )


def _load_device_specific(name: str, cache_dir: Path, device: str) -> Backend:
    """Load the variant of a model that belongs to a device."""
    base, variant = split_model_name(hub_name(name))
    if variant.precision:
        raise ParityError(
            f"{name} on {device} computes neither the vectors of {variant.precision} nor those of float32; "
            "use device='cpu'"
        )
    if find_model(base).variants is None:
        raise ParityError(
            f"{name} has no variants, and {device} computes slightly different vectors; use device='cpu'"
        )
    kind, _ = split_device(device)
    entry = find_model(ModelVariant(device=kind).applied_to(name))
    return entry.load(cache_dir) if entry.load_on_device is None else entry.load_on_device(cache_dir, device)


def load_text_encoder(name: str = DEFAULT_MODEL, *, cache_dir: Path | None = None) -> TextEncoder:
    """Load the text encoder that compares texts with a model's image vectors.

    CLIP and similar models have their own. For an ImageNet classifier, ConSE combines its classes with the
    sentence encoder all-MiniLM-L6-v2.

    Parameters
    ----------
    name : str
        The model, as for `load_model`.
    cache_dir : Path, optional
        Directory for converted models.

    Raises
    ------
    UnknownModelError
        There is no such model, or it has no text encoder.
    MissingExtraError
        The text encoder is not installed; the message gives the command.
    """
    entry = find_model(name)
    if entry.load_text_encoder is None:
        raise UnknownModelError(
            f"{name} has no text encoder. Use a CLIP or SigLIP model (dir: or hub:), or a classifier such as "
            f"{DEFAULT_MODEL}"
        )
    return entry.load_text_encoder(cache_dir or user_cache_dir(), entry.spec)


def _entry_points(group: str) -> dict[str, EntryPoint]:
    places = map(Path, sys.path)
    # What is installed or removed meanwhile changes its folder.
    state = tuple((place, place.stat().st_mtime_ns) for place in places if place.exists())
    return _entry_points_of(group, state)


# Reading the metadata of every installed package takes as long as a search.
@lru_cache(maxsize=2)
def _entry_points_of(group: str, state: tuple[tuple[Path, int], ...]) -> dict[str, EntryPoint]:
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        # The first of two packages with the same name wins, as with imports.
        points.setdefault(point.name, point)
    return dict(sorted(points.items()))


def _entry_or_warning(point: EntryPoint) -> ModelEntry | None:
    try:
        return _entry(point)
    # A plugin's errors must not affect the other models.
    except Exception as error:
        warnings.warn(_plugin_error(point, error), RuntimeWarning, stacklevel=3)
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


def _plugin_error(point: EntryPoint, error: Exception) -> str:
    return f"Model plugin {point.name!r} ({point.value}) does not work: {type(error).__name__}: {error}"


def _unknown(name: str, known: list[str]) -> str:
    containing = [other for other in known if name.lower() in other] if len(name) > 2 else []
    near = list(dict.fromkeys([*containing, *difflib.get_close_matches(name, known, n=3)]))[:3]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"There is no model {name!r}.{hint} nearsight models and nearsight.list_models() list them."
