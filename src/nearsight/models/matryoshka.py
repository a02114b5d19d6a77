"""Shorter vectors of models that were trained for it: the first numbers of each, ``NAME#dim=D``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.errors import DeviceError, UnknownModelError
from nearsight.models.base import Backend, ModelEntry, Movable, TextTower
from nearsight.models.model_name import Variant
from nearsight.models.pooling import unit
from nearsight.models.spec import ModelSpec


def cut(X: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Return the first `dim` numbers of (n, d) vectors, brought to unit length again.

    *Method*: Matryoshka representation learning (Kusupati et al. 2022, arXiv 2205.13147, section 3): a model
    trained with losses on the first numbers too puts most of what it knows there.

    Examples
    --------
    >>> import numpy as np
    >>> cut(np.array([[3, 4, 12]], np.float32) / 13, 2).round(3).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    return unit(np.asarray(X[:, :dim], np.float32))


def shortened(entry: ModelEntry, dim: int) -> ModelEntry:
    """Return a model that gives `dim` numbers an image.

    Raises
    ------
    UnknownModelError
        The model was not trained to be cut, or not to so few numbers.
    """
    spec = entry.spec
    if dim == spec.dim:
        return entry
    if not spec.matryoshka_dims:
        raise UnknownModelError(
            f"the vectors of {spec.id} were not trained to be cut to {dim} numbers. Project them onto the"
            f" directions in which your images differ: nearsight index PATH --dim {dim}"
        )
    if not min(spec.matryoshka_dims) <= dim < spec.dim:
        raise UnknownModelError(
            f"dim is {dim}; {spec.id} can be cut to {min(spec.matryoshka_dims)} to {spec.dim} numbers"
        )
    short = _spec(spec, dim)
    load_text_encoder = entry.load_text_encoder
    return replace(
        entry,
        spec=short,
        load=partial(_load, entry, dim),
        load_on=None if entry.load_on is None else partial(_load_on, entry.load_on, dim),
        load_text_encoder=None if load_text_encoder is None else partial(_load_text, entry),
    )


@dataclass(frozen=True)
class CutBackend:
    """A model whose vectors are cut.

    Attributes
    ----------
    backend : Backend
        The model.
    spec : ModelSpec
        The facts of the model with its vectors cut.
    """

    backend: Backend
    spec: ModelSpec

    @property
    def device(self) -> str:
        """Where the model runs."""
        return getattr(self.backend, "device", "cpu")

    @property
    def devices(self) -> Sequence[str]:
        """What the model's runtime offers."""
        return self.backend.devices if isinstance(self.backend, Movable) else ()

    def on(self, device: str, cache_dir: Path, *, spec: ModelSpec | None = None) -> "CutBackend":
        """Return the same with the model on a device; see `Movable`."""
        if not isinstance(self.backend, Movable) or spec is not None:
            raise DeviceError(f"{self.spec.id} cannot run on {device}; leave the device away")
        return CutBackend(self.backend.on(device, cache_dir), self.spec)

    def idle_device(self) -> str:
        """Say what stands idle; or nothing."""
        return self.backend.idle_device() if isinstance(self.backend, Movable) else ""

    @property
    def decode_px(self) -> int | None:
        """Shorter side, in pixels, that a decoded image must have at least; None for full size."""
        return self.backend.decode_px

    def prepare(self, image: Image.Image) -> Any:
        """Turn one upright RGB image into what `embed` takes a sequence of."""
        return self.backend.prepare(image)

    def embed(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of prepared images."""
        return cut(self.backend.embed(prepared), self.spec.dim)


@dataclass(frozen=True)
class CutText:
    """A text tower whose vectors are cut like those of its images.

    Attributes
    ----------
    tower : TextTower
        Of the model with vectors in full; texts and images share one space.
    spec : ModelSpec
        The facts of the model with its vectors cut.
    """

    tower: TextTower
    spec: ModelSpec

    @property
    def is_shared(self) -> bool:
        """Whether texts and images share one space: they do."""
        return True

    @property
    def prompt(self) -> str:
        """How a bare name is best put, with ``{}`` for the name."""
        return self.tower.prompt

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of texts, unit length."""
        return cut(self.tower.embed(texts), self.spec.dim)

    def project(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return image vectors as they are."""
        return X

    def aim(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return text vectors as they are."""
        return queries

    def logits(self, X: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, m) log-odds, up to a constant an image, that texts name images."""
        return self.tower.logits(X, queries)


def _spec(spec: ModelSpec, dim: int) -> ModelSpec:
    return replace(
        spec,
        id=Variant(dim=dim).applied_to(spec.id),
        identity=spec.identity or spec.id,
        dim=dim,
        # Unit length after the cut, whatever it was before.
        normalize=True,
        matryoshka_dims=(),
    )


def _load(entry: ModelEntry, dim: int, cache_dir: Path) -> CutBackend:
    return _cut(entry.load(cache_dir), dim)


def _load_on(load_on: Callable[[Path, str], Backend], dim: int, cache_dir: Path, device: str) -> CutBackend:
    return _cut(load_on(cache_dir, device), dim)


def _cut(backend: Backend, dim: int) -> CutBackend:
    # Only what was loaded knows whose vectors it gives.
    return CutBackend(backend, _spec(backend.spec, dim))


def _load_text(entry: ModelEntry, cache_dir: Path, form: ModelSpec) -> TextTower:
    if entry.load_text_encoder is None:  # pragma: no cover - bound only where there is one
        raise UnknownModelError(f"{entry.spec.id} knows no texts")
    tower = entry.load_text_encoder(cache_dir, entry.spec)
    if not tower.is_shared:
        raise UnknownModelError(
            f"texts are not in one space with the images of {entry.spec.id}, so they cannot be cut along;"
            " search with words in a collection of its vectors in full"
        )
    return CutText(tower, form)
