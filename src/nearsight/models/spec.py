"""Frozen facts about a model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from nearsight.errors import InvalidParameterError
from nearsight.images import DECODER_RULES, DRAFT_FACTOR
from nearsight.models.fingerprint import Fingerprint, plain_data

ResizeMode = Literal["short-side", "squash", "squash-crop", "shrink"]
CropRounding = Literal["nearest", "down"]
Pooling = Literal["mean", "cls", "patches"]
Interpolation = Literal["bicubic", "bilinear", "lanczos", "nearest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Frozen facts about one model.

    Attributes
    ----------
    id : str
        The name that loads the model.
    identity : str
        Name of the model in the fingerprint, if it is not the id: the id of a file or folder is its path,
        but its vectors do not depend on the path.
    dim : int
        Length of the vectors.
    input_px : tuple of int
        Height and width of the network's input, in pixels; for ``shrink`` their maximum.
    resize_px : int
        Length of the shorter side after resizing and before the crop, in pixels; unused without a crop.
    resize_mode : {"short-side", "squash", "squash-crop", "shrink"}
        ``short-side`` keeps the aspect ratio and resizes the shorter side to `resize_px`; ``squash``
        stretches to `input_px`; ``squash-crop`` stretches to a square of `resize_px` and crops; ``shrink``,
        for models that take images of any size, keeps the aspect ratio and fits an image into `input_px`
        without cropping or enlarging it.
    crop_rounding : {"nearest", "down"}
        Start of the crop if the margin is odd: torchvision rounds to the nearest pixel, transformers down.
    interpolation : {"bicubic", "bilinear", "lanczos", "nearest"}
        Pillow's filter of that name, antialiased.
    draft : bool
        Whether a large JPEG may be decoded at reduced size. That takes a fraction of the time, but the vector
        agrees with the model's reference implementation to fewer than four digits.
    mean, std : tuple of float
        Per channel, on values in 0..1.
    layer : str
        The output of the network that gives the vector.
    pooling : {"mean", "cls", "patches"}
        How several vectors of a layer become one: their mean, the class token (the first), or the mean of the
        patch tokens (the last ones, as many as form a square). Unused if the layer has one vector.
    normalize : bool
        Whether vectors are scaled to unit L2 length.
    precision : str
        Numeric precision of the network.
    weights_sha256 : str
        SHA-256 of the weights as published.
    source, license, training_data, accuracy : str
        Information for users; not part of the fingerprint.
    size_bytes : int
        Size of the weights.
    matryoshka_dims : tuple of int
        Lengths to which the model was trained to truncate its vectors; empty for most models. Any length from
        the smallest of them on is supported.

    Raises
    ------
    InvalidParameterError
        The crop is larger than the resized image, a value is unknown, or a size is 0.
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
        for name, choices in _CHOICES.items():
            allowed = get_args(choices)
            if getattr(self, name) not in allowed:
                raise InvalidParameterError(
                    f"{name} is {getattr(self, name)!r}; it must be {' or '.join(allowed)}"
                )
        for name, n in (("input_px", 2), ("mean", 3), ("std", 3)):
            if len(getattr(self, name)) != n:
                raise InvalidParameterError(f"{name} is {getattr(self, name)!r}; it must have {n} numbers")
        if min(self.dim, self.resize_px, *self.input_px, *self.std) <= 0:
            raise InvalidParameterError(f"{self.id}: dim, resize_px, input_px and std must be greater than 0")
        if self._crops and self.resize_px < max(self.input_px):
            raise InvalidParameterError(
                f"resize_px is {self.resize_px}; for a crop of {self.input_px} it must be at least "
                f"{max(self.input_px)}. Give a larger resize_px, or resize_mode='squash'"
            )

    @property
    def _crops(self) -> bool:
        return self.resize_mode in ("short-side", "squash-crop")

    @property
    def fingerprint(self) -> Fingerprint:
        """The facts that determine this model's vectors, without those for users such as the license."""
        preprocessing: dict[str, Any] = {
            "input_px": self.input_px,
            # Without a crop, resize_px is not used.
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
        # Facts added later: at the value that applied before, they must not change a digest.
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
        return {name: plain_data(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ModelSpec":
        """Read the result of `to_dict`; unknown facts of later versions are ignored."""
        known = {f.name for f in fields(cls)}
        # The spelling in manifests of 0.1.
        data = {"license" if name == "licence" else name: value for name, value in data.items()}
        facts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in data.items()
            if name in known
        }
        return cls(**facts)


_CHOICES = {
    "resize_mode": ResizeMode,
    "crop_rounding": CropRounding,
    "interpolation": Interpolation,
    "pooling": Pooling,
}
