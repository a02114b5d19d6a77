"""Truncates the vectors of models that were trained for it: ``NAME#dim=D``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.errors import DeviceError, UnknownModelError
from nearsight.models.base import Backend, ModelEntry, MultiDeviceBackend, TextEncoder
from nearsight.models.model_name import ModelVariant
from nearsight.models.pooling import unit_length
from nearsight.models.spec import ModelSpec


def truncate(X: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Return the first `dim` numbers of (n, d) vectors, at unit length.

    *Method*: Matryoshka representation learning (Kusupati et al. 2022, arXiv 2205.13147, section 3): a model
    trained with additional losses on the first numbers puts most information there.

    Examples
    --------
    >>> import numpy as np
    >>> truncate(np.array([[3, 4, 12]], np.float32) / 13, 2).round(3).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    return unit_length(np.asarray(X[:, :dim], np.float32))


def truncated_entry(entry: ModelEntry, dim: int) -> ModelEntry:
    """Return the entry of a model whose vectors are truncated to `dim` numbers.

    Raises
    ------
    UnknownModelError
        The model was not trained for truncation, or not to so few numbers.
    """
    spec = entry.spec
    if dim == spec.dim:
        return entry
    if not spec.matryoshka_dims:
        raise UnknownModelError(
            f"{spec.id} was not trained for vectors truncated to {dim} numbers. Reduce them by PCA of your"
            f" images: nearsight index PATH --dim {dim}"
        )
    if not min(spec.matryoshka_dims) <= dim < spec.dim:
        raise UnknownModelError(
            f"dim is {dim}; {spec.id} supports {min(spec.matryoshka_dims)} to {spec.dim} numbers"
        )
    short = _spec(spec, dim)
    load_text_encoder = entry.load_text_encoder
    return replace(
        entry,
        spec=short,
        load=partial(_load, entry, dim),
        load_on_device=None if entry.load_on_device is None else partial(_load_on, entry.load_on_device, dim),
        load_text_encoder=None if load_text_encoder is None else partial(_load_text, entry),
    )


@dataclass(frozen=True)
class TruncatedBackend:
    """A model with truncated vectors.

    Attributes
    ----------
    backend : Backend
        The model.
    spec : ModelSpec
        The facts of the model with truncated vectors.
    """

    backend: Backend
    spec: ModelSpec

    @property
    def device(self) -> str:
        """Device that the model runs on."""
        return getattr(self.backend, "device", "cpu")

    @property
    def offered_devices(self) -> Sequence[str]:
        """Devices that the model's runtime offers."""
        return self.backend.offered_devices if isinstance(self.backend, MultiDeviceBackend) else ()

    def to_device(self, device: str, cache_dir: Path, *, spec: ModelSpec | None = None) -> "TruncatedBackend":
        """Return the same with the model on a device; see `MultiDeviceBackend`."""
        if not isinstance(self.backend, MultiDeviceBackend) or spec is not None:
            raise DeviceError(f"{self.spec.id} cannot run on {device}; remove the device")
        return TruncatedBackend(self.backend.to_device(device, cache_dir), self.spec)

    def idle_gpu_hint(self) -> str:
        """Name a GPU that is not used; empty if there is none."""
        return self.backend.idle_gpu_hint() if isinstance(self.backend, MultiDeviceBackend) else ""

    @property
    def decode_px(self) -> int | None:
        """Minimum length of a decoded image's shorter side in pixels; None for full size."""
        return self.backend.decode_px

    def prepare(self, image: Image.Image) -> Any:
        """Turn one upright RGB image into an item for `embed`."""
        return self.backend.prepare(image)

    def embed(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of prepared images."""
        return truncate(self.backend.embed(prepared), self.spec.dim)


@dataclass(frozen=True)
class TruncatedTextEncoder:
    """A text encoder with vectors truncated like those of its images.

    Attributes
    ----------
    encoder : TextEncoder
        The encoder with full vectors; texts and images share one space.
    spec : ModelSpec
        The facts of the model with truncated vectors.
    """

    encoder: TextEncoder
    spec: ModelSpec

    @property
    def shares_space(self) -> bool:
        """Always true."""
        return True

    @property
    def prompt(self) -> str:
        """Template that turns a label into a text; ``{}`` stands for the label."""
        return self.encoder.prompt

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of texts, unit length."""
        return truncate(self.encoder.embed(texts), self.spec.dim)

    def to_text_space(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return image vectors as they are."""
        return X

    def to_image_space(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return text vectors as they are."""
        return queries

    def logits(self, X: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, m) log-odds that texts describe images, up to a constant per image."""
        return self.encoder.logits(X, queries)


def _spec(spec: ModelSpec, dim: int) -> ModelSpec:
    return replace(
        spec,
        id=ModelVariant(dim=dim).applied_to(spec.id),
        identity=spec.identity or spec.id,
        dim=dim,
        # `truncate` always returns unit length.
        normalize=True,
        matryoshka_dims=(),
    )


def _load(entry: ModelEntry, dim: int, cache_dir: Path) -> TruncatedBackend:
    return _truncate(entry.load(cache_dir), dim)


def _load_on(
    load_on_device: Callable[[Path, str], Backend], dim: int, cache_dir: Path, device: str
) -> TruncatedBackend:
    return _truncate(load_on_device(cache_dir, device), dim)


def _truncate(backend: Backend, dim: int) -> TruncatedBackend:
    # The facts of the loaded backend: its fingerprint may depend on the device.
    return TruncatedBackend(backend, _spec(backend.spec, dim))


def _load_text(entry: ModelEntry, cache_dir: Path, spec: ModelSpec) -> TextEncoder:
    if entry.load_text_encoder is None:  # pragma: no cover - bound only where there is one
        raise UnknownModelError(f"{entry.spec.id} has no text encoder")
    encoder = entry.load_text_encoder(cache_dir, entry.spec)
    if not encoder.shares_space:
        raise UnknownModelError(
            f"texts and images of {entry.spec.id} do not share one space, so text vectors cannot be"
            " truncated; search by text in a collection with full vectors"
        )
    return TruncatedTextEncoder(encoder, spec)
