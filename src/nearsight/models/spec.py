"""Frozen facts about a model, and the fingerprint that says which vectors may be compared."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, get_args

from nearsight.errors import FingerprintMismatchError, InvalidParameterError
from nearsight.images import DECODER_RULES, DRAFT_FACTOR

ResizeMode = Literal["short-side", "squash", "squash-crop", "shrink"]
CropRounding = Literal["nearest", "down"]
Pooling = Literal["mean", "cls", "patches"]
Interpolation = Literal["bicubic", "bilinear", "lanczos", "nearest"]


@dataclass(frozen=True)
class Fingerprint:
    """What made a vector: two vectors are comparable exactly when their fingerprints match.

    Attributes
    ----------
    model : str
        The model's id, or its `identity` where the id is only a place.
    weights_sha256 : str
        Hash of the weights as their publisher ships them.
    preprocessing, decoder : mapping
        Every rule between a file's bytes and the numbers the network sees.
    output : mapping
        Layer, dimension, normalization and precision of the vector.
    """

    model: str
    weights_sha256: str
    preprocessing: Mapping[str, Any]
    decoder: Mapping[str, Any]
    output: Mapping[str, Any]

    def __post_init__(self) -> None:
        # Through JSON once, so that a fingerprint read back from a manifest equals the one written.
        for name in ("preprocessing", "decoder", "output"):
            object.__setattr__(
                self, name, MappingProxyType(json.loads(json.dumps(dict(getattr(self, name)))))
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a manifest."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Fingerprint":
        """Read what `to_dict` wrote."""
        return cls(**{f.name: data[f.name] for f in fields(cls)})

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return Fingerprint, tuple(_plain(getattr(self, f.name)) for f in fields(self))

    def differences(self, other: "Fingerprint") -> list[str]:
        """Name each fact in which the two differ, as ``"model: a, there b"``."""
        mine, theirs = _flat(self.to_dict()), _flat(other.to_dict())
        return [
            f"{key}: {mine.get(key, 'unset')}, there {theirs.get(key, 'unset')}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]

    def require_same(self, other: "Fingerprint", fitted: str, remedy: str) -> None:
        """Refuse to use something that was fitted on vectors of this fingerprint with those of another.

        Parameters
        ----------
        other : Fingerprint
            Of the vectors at hand.
        fitted, remedy : str
            What was fitted, such as "the map", and how to get one for the vectors at hand.

        Raises
        ------
        FingerprintMismatchError
            The two differ.
        """
        if self != other:
            differences = "; ".join(self.differences(other))
            raise FingerprintMismatchError(
                f"{fitted} was learned on vectors of {self.model} (fingerprint {self.digest}), and these are"
                f" of {other.model} ({other.digest}), which cannot be compared. They differ in:"
                f" {differences}. {remedy}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Frozen facts about one model.

    Attributes
    ----------
    id : str
        The name it is asked for by.
    identity : str
        What the fingerprint calls the model, where that is not the id: a file or folder is asked for by its
        place, but its vectors are the same in any place.
    dim : int
        Length of its vectors.
    input_px : tuple of int
        Height and width of the network's input, in pixels; for ``shrink`` the most they may be.
    resize_px : int
        Length the shorter side is resized to before the crop, in pixels; used where there is a crop.
    resize_mode : {"short-side", "squash", "squash-crop", "shrink"}
        ``short-side`` keeps the aspect ratio and makes the shorter side `resize_px`;
        ``squash`` stretches to `input_px`; ``squash-crop`` stretches to a square of `resize_px`, and crops;
        ``shrink``, for what takes images of any size, keeps the aspect ratio and makes an image fit into
        `input_px`, without cropping or enlarging it.
    crop_rounding : {"nearest", "down"}
        Where the crop starts when the margin is odd: torchvision takes the nearest pixel, transformers
        the one before.
    interpolation : {"bicubic", "bilinear", "lanczos", "nearest"}
        Pillow's filter of that name, antialiased.
    draft : bool
        Whether a large JPEG may be decoded at reduced size. That takes a fraction of the time, but the
        vector is no longer to four digits what the model's own reference gives.
    mean, std : tuple of float
        Per channel, on values in 0..1.
    layer : str
        The output of the network that the vector is taken from.
    pooling : {"mean", "cls", "patches"}
        How a layer that has a vector for each token or place becomes one: their mean, the first token, or
        the mean of those that stand for places: the last tokens, as many as make a square. A layer that
        has one vector is taken as it is.
    normalize : bool
        Whether vectors are scaled to unit L2 length.
    precision : str
        Arithmetic of the network.
    weights_sha256 : str
        Hash of the weights as published.
    source, license, training_data, accuracy : str
        For people: where it comes from and on what terms.
    size_bytes : int
        Size of the weights.
    matryoshka_dims : tuple of int
        Lengths to which the model's vectors were trained to be cut; empty for most models. Any length from
        the least of them on will do.

    Raises
    ------
    InvalidParameterError
        A crop larger than the resized image, an unknown word, or a zero where a size belongs.
    """

    id: str
    dim: int
    weights_sha256: str
    input_px: tuple[int, int] = (224, 224)
    resize_px: int = 256
    resize_mode: ResizeMode = "short-side"
    crop_rounding: CropRounding = "nearest"
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    layer: str = "pooled"
    pooling: Pooling = "mean"
    normalize: bool = True
    precision: str = "float32"
    source: str = ""
    license: str = "unknown"
    training_data: str = ""
    accuracy: str = ""
    size_bytes: int = 0
    identity: str = ""
    draft: bool = True
    matryoshka_dims: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            allowed = get_args(words)
            if getattr(self, name) not in allowed:
                raise InvalidParameterError(
                    f"{name} is {getattr(self, name)!r}; it must be {' or '.join(allowed)}"
                )
        for name, n in (("input_px", 2), ("mean", 3), ("std", 3)):
            if len(getattr(self, name)) != n:
                raise InvalidParameterError(f"{name} is {getattr(self, name)!r}; it must be {n} numbers")
        if min(self.dim, self.resize_px, *self.input_px, *self.std) <= 0:
            raise InvalidParameterError(f"{self.id}: dim, resize_px, input_px and std must be greater than 0")
        if self._crops and self.resize_px < max(self.input_px):
            raise InvalidParameterError(
                f"resize_px is {self.resize_px}, but a crop of {self.input_px} needs at least "
                f"{max(self.input_px)}; give a larger resize_px, or resize_mode='squash'"
            )

    @property
    def _crops(self) -> bool:
        return self.resize_mode in ("short-side", "squash-crop")

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes this model's vectors comparable; prose facts such as the license are left out."""
        preprocessing: dict[str, Any] = {
            "input_px": self.input_px,
            # Without a crop, images go straight to input_px, and it changes nothing.
            "resize_px": self.resize_px if self._crops else None,
            "resize_mode": self.resize_mode,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
        }
        output: dict[str, Any] = {
            "layer": self.layer,
            "dim": self.dim,
            "normalize": self.normalize,
            "precision": self.precision,
        }
        # Facts younger than the first collections: at the value they had then, they must not change a digest.
        if self._crops and self.crop_rounding != "nearest":
            preprocessing["crop_rounding"] = self.crop_rounding
        if self.pooling != "mean":
            output["pooling"] = self.pooling
        return Fingerprint(
            model=self.identity or self.id,
            weights_sha256=self.weights_sha256,
            preprocessing=preprocessing,
            decoder={**DECODER_RULES, "draft_factor": DRAFT_FACTOR if self.draft else None},
            output=output,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a manifest."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ModelSpec":
        """Read what `to_dict` wrote; facts added by later versions are ignored."""
        known = {f.name for f in fields(cls)}
        # Manifests of 0.1 spelled it so.
        data = {"license" if name == "licence" else name: value for name, value in data.items()}
        facts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in data.items()
            if name in known
        }
        return cls(**facts)


_WORDS = {
    "resize_mode": ResizeMode,
    "crop_rounding": CropRounding,
    "interpolation": Interpolation,
    "pooling": Pooling,
}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[key] = value
    return flat
