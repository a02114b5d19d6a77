"""Names of model variants: ``NAME#PART,PART``, such as ``efficientnet-lite0#bf16``."""

import re
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from nearsight.errors import UnknownModelError
from nearsight.models.runtimes.devices import ACCELERATORS
from nearsight.models.spec import Pooling

#: Precisions that nearsight computes. Folders can hold files in other precisions.
PRECISIONS = ("bf16", "int8", "fp16")
#: Marks `int8` and `fp16` as computed by nearsight where a folder has files of these names.
BUILTIN = "builtin"
#: Marks vectors from which the mean of the collection's images is subtracted.
CENTERED = "centered"
#: Marks vectors with the mean and spread of inner layers beside the model's own.
LAYERS = "layers"

_KEYS = ("layer", "pooling", "dim", "decode")
_CALIBRATION = re.compile(r"[0-9a-f]{8}")
# In these schemes, "#int8" and "#fp16" name files.
_FOLDER_SCHEMES = ("dir:", "hub:")
_FILE_PRECISIONS = ("int8", "fp16")


@dataclass(frozen=True, slots=True)
class ModelVariant:
    """How a variant differs from the model that the name without ``#`` stands for.

    Attributes
    ----------
    layer : str
        Output inside the network that gives the vector; empty for the model's default.
    pooling : {"", "mean", "cls", "patches"}
        How a layer with several vectors becomes one; empty for the model's default.
    precision : str
        ``bf16``; ``fp16``; ``int8``, calibrated on synthetic images; ``int8=DIGITS``, calibrated by
        `int8_calibration.calibrate`; empty for the model's default.
    device : str
        Device that the variant belongs to, because its vectors differ on other devices; empty where they do
        not, or where this was not measured.
    dim : int
        Length of the vectors, for models trained for truncation; 0 for the full length.
    decode : {"", "full"}
        ``full``: JPEGs are decoded at full size, although the model's rule allows a reduced size; empty for
        the model's own rule.
    layers : bool
        Whether the mean and spread of inner layers stand beside the model's vector.
    centered : bool
        Whether the mean of the collection's images is subtracted. Such a name loads no model, since the mean
        belongs to a collection.
    """

    layer: str = ""
    pooling: Pooling | Literal[""] = ""
    precision: str = ""
    device: str = ""
    dim: int = 0
    decode: Literal["", "full"] = ""
    layers: bool = False
    centered: bool = False

    def __bool__(self) -> bool:
        return self != ModelVariant()

    def __str__(self) -> str:
        named = [f"{key}={value}" for key in _KEYS if (value := getattr(self, key))]
        flags = [self.precision, self.device, LAYERS * self.layers, CENTERED * self.centered]
        return ",".join([*named, *filter(None, flags)])

    def applied_to(self, name: str) -> str:
        """Return the name of a model in this variant; each variant has exactly one name.

        Examples
        --------
        >>> ModelVariant(layer="block9", precision="bf16").applied_to("efficientnet-lite0")
        'efficientnet-lite0#layer=block9,bf16'
        """
        base, variant = split_model_name(name)
        parts: dict[str, Any] = {
            f.name: getattr(self, f.name) or getattr(variant, f.name) for f in fields(self)
        }
        if _is_file(base, parts["precision"]):
            parts["precision"] += f"={BUILTIN}"
        combined = ModelVariant(**parts)
        return f"{base}#{combined}" if combined else base


def split_model_name(name: str) -> tuple[str, ModelVariant]:
    """Split a name into the model and its variant; a ``#`` before anything else belongs to the model.

    Raises
    ------
    UnknownModelError
        A part is variant twice, or a pooling, calibration or dim is not valid.

    Examples
    --------
    >>> split_model_name("onnx:/models/#1.onnx")[0], split_model_name("dir:/clip#quantized")[0]
    ('onnx:/models/#1.onnx', 'dir:/clip#quantized')
    """
    base, sign, rest = name.rpartition("#")
    parts: dict[str, Any] = {}
    for part in rest.split(",") if sign and base else ():
        key, equals, value = part.partition("=")
        if not equals and part in PRECISIONS and not _is_file(base, part):
            key, value = "precision", part
        elif not equals and part in ("cpu", *ACCELERATORS):
            key, value = "device", part
        elif part in (CENTERED, LAYERS):
            key, value = part, "yes"
        elif key in _FILE_PRECISIONS and value == BUILTIN:
            key, value = "precision", key
        elif key == "int8" and value:
            key, value = "precision", _calibration(name, value)
        elif key not in _KEYS or not value:
            return name, ModelVariant()
        if key in parts:
            raise UnknownModelError(f"{name!r} gives {key} twice; give it once")
        parts[key] = (
            _dim(name, value) if key == "dim" else value == "yes" if key in (CENTERED, LAYERS) else value
        )
    if parts.get("pooling", "mean") not in get_args(Pooling):
        raise UnknownModelError(f"{name!r}: pooling must be {' or '.join(get_args(Pooling))}")
    if parts.get("decode", "full") != "full":
        raise UnknownModelError(f"{name!r}: decode must be full; leave it away for the model's own rule")
    return (base, ModelVariant(**parts)) if parts else (name, ModelVariant())


def without_centering(name: str) -> tuple[str, bool]:
    """Return the name of the model itself, and whether its vectors are to be centered.

    Examples
    --------
    >>> without_centering("efficientnet-lite0#layer=block9,centered")
    ('efficientnet-lite0#layer=block9', True)
    """
    base, variant = split_model_name(name)
    if not variant.centered:
        return name, False
    return replace(variant, centered=False).applied_to(base), True


def _is_file(base: str, precision: str) -> bool:
    return precision in _FILE_PRECISIONS and base.startswith(_FOLDER_SCHEMES)


def _calibration(name: str, calibration: str) -> str:
    if not _CALIBRATION.fullmatch(calibration):
        raise UnknownModelError(
            f"{name!r}: int8={calibration} must have 8 hex digits; nearsight models quantize prints them"
        )
    return f"int8={calibration}"


def _dim(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()) or int(value) < 1:
        raise UnknownModelError(f"{name!r}: dim is {value!r}; it must be a whole number of at least 1")
    return int(value)
