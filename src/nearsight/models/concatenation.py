"""Several models whose vectors of an image stand one after the other, as one model."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.errors import DeviceError, UnknownModelError
from nearsight.models.base import Backend, ModelEntry, MultiDeviceBackend, TextEncoder
from nearsight.models.pooling import unit_length
from nearsight.models.spec import ModelSpec


@dataclass(frozen=True)
class ConcatenatedBackend:
    """Models whose vectors stand one after the other; the cosine is the mean of their cosines.

    Attributes
    ----------
    parts : tuple of Backend
        Each returns vectors of unit length.
    spec : ModelSpec
        The facts of the whole.
    """

    parts: tuple[Backend, ...]
    spec: ModelSpec

    @property
    def device(self) -> str:
        """Device that the models run on."""
        return getattr(self.parts[0], "device", "cpu")

    @property
    def offered_devices(self) -> Sequence[str]:
        """Devices that the runtime of every model offers."""
        first, *others = (
            [*part.offered_devices] if isinstance(part, MultiDeviceBackend) else [] for part in self.parts
        )
        return [device for device in first if all(device in other for other in others)]

    def to_device(
        self, device: str, cache_dir: Path, *, spec: ModelSpec | None = None
    ) -> "ConcatenatedBackend":
        """Return the same with all models on a device; see `MultiDeviceBackend`."""
        movable = [part for part in self.parts if isinstance(part, MultiDeviceBackend)]
        if spec is not None or len(movable) < len(self.parts):
            raise DeviceError(f"{self.spec.id} cannot run on {device}; remove the device")
        return ConcatenatedBackend(tuple(part.to_device(device, cache_dir) for part in movable), self.spec)

    def idle_gpu_hint(self) -> str:
        """Name a GPU that is not used; empty if there is none."""
        first = self.parts[0]
        return first.idle_gpu_hint() if isinstance(first, MultiDeviceBackend) else ""

    @property
    def decode_px(self) -> int | None:
        """Minimum length of a decoded image's shorter side in pixels; None for full size."""
        sides = [part.decode_px for part in self.parts]
        known = [side for side in sides if side is not None]
        return max(known) if len(known) == len(sides) else None

    def prepare(self, image: Image.Image) -> tuple[Any, ...]:
        """Turn one upright RGB image into an item for `embed`."""
        return tuple(part.prepare(image) for part in self.parts)

    def embed(self, prepared: Sequence[tuple[Any, ...]]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of prepared images."""
        vectors = [part.embed([items[i] for items in prepared]) for i, part in enumerate(self.parts)]
        return unit_length(np.concatenate(vectors, axis=1))


@dataclass(frozen=True)
class FirstPartTextEncoder:
    """Compares texts with the first model's vectors, which stand at the start of the concatenated ones.

    Attributes
    ----------
    encoder : TextEncoder
        Of the first model.
    spec : ModelSpec
        The facts of the whole.
    """

    encoder: TextEncoder
    spec: ModelSpec

    @property
    def shares_space(self) -> bool:
        """Always false: texts have no vector of the other models."""
        return False

    @property
    def prompt(self) -> str:
        """Template that turns a label into a text; ``{}`` stands for the label."""
        return self.encoder.prompt

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, d) vectors of texts, unit length."""
        return self.encoder.embed(texts)

    def to_text_space(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (n, dim) image vectors to the space of text vectors: (n, d), unit length."""
        return self.encoder.to_text_space(self._first(X))

    def to_image_space(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map text vectors to (n, dim) image vectors whose neighbors are good candidates for the texts."""
        first = self.encoder.to_image_space(queries)
        rest = np.zeros((len(first), self.spec.dim - first.shape[1]), np.float32)
        return np.concatenate([first, rest], axis=1)

    def logits(self, X: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, m) log-odds that texts describe images, up to a constant per image."""
        return self.encoder.logits(self._first(X), queries)

    def _first(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return unit_length(np.asarray(X[:, : self.encoder.spec.dim], np.float32))


def concatenated_entry(id: str, parts: Sequence[ModelEntry], *, accuracy: str = "") -> ModelEntry:
    """Return the entry of several models as one.

    *Method*: vectors of unit length are concatenated, so that the cosine is the mean of the models' cosines.
    Models that err on different images correct each other.

    Parameters
    ----------
    id : str
    parts : sequence of ModelEntry
        At least two, whose vectors have unit length. Texts are compared with the first.
    accuracy : str
        For users, see `ModelSpec`.
    """
    first = parts[0]
    installs = dict.fromkeys(part.install for part in parts if part.install and not part.available())
    return ModelEntry(
        _spec(id, [part.spec for part in parts], accuracy),
        partial(_load, id, tuple(parts), accuracy),
        lambda: all(part.available() for part in parts),
        " && ".join(installs) or parts[-1].install,
        partial(_load_text, first) if first.load_text_encoder is not None else None,
    )


def _spec(id: str, parts: Sequence[ModelSpec], accuracy: str) -> ModelSpec:
    facts = [{**part.fingerprint.to_dict(), "decoder": None} for part in parts]
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    largest = max(parts, key=lambda part: part.resize_px)
    return replace(
        largest,
        id=id,
        identity="",
        dim=sum(part.dim for part in parts),
        # Every fact of every model, except the decoder's, which the whole has itself.
        weights_sha256=hashlib.sha256(canonical.encode()).hexdigest(),
        layer=" | ".join(part.layer for part in parts),
        normalize=True,
        source=" and ".join(dict.fromkeys(part.source for part in parts)),
        license=" and ".join(dict.fromkeys(part.license for part in parts)),
        training_data=" and ".join(dict.fromkeys(part.training_data for part in parts)),
        accuracy=accuracy,
        size_bytes=sum(part.size_bytes for part in parts),
        draft=all(part.draft for part in parts),
        matryoshka_dims=(),
    )


def _load(id: str, parts: Sequence[ModelEntry], accuracy: str, cache_dir: Path) -> ConcatenatedBackend:
    backends = tuple(part.load(cache_dir) for part in parts)
    return ConcatenatedBackend(backends, _spec(id, [part.spec for part in parts], accuracy))


def _load_text(first: ModelEntry, cache_dir: Path, spec: ModelSpec) -> TextEncoder:
    if first.load_text_encoder is None:  # pragma: no cover - bound only where there is one
        raise UnknownModelError(f"{first.spec.id} has no text encoder")
    return FirstPartTextEncoder(first.load_text_encoder(cache_dir, first.spec), spec)
