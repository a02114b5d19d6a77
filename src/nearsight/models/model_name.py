"""A model in another form: ``NAME#PART,PART``, such as ``efficientnet-lite0#bf16``."""

import re
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from nearsight.errors import UnknownModelError
from nearsight.models.runtimes.devices import ACCELERATORS
from nearsight.models.spec import Pooling

#: Arithmetic that a runtime can be asked for; files of other precisions are a folder's matter.
PRECISIONS = ("bf16", "int8", "fp16")
#: A precision as nearsight makes it without images of the user's: `int8` and `fp16` for short.
BUILTIN = "builtin"

_CALIBRATION = re.compile(r"[0-9a-f]{8}")
# Their folders hold files in precisions of their own, which "#int8" and "#fp16" name there.
_WITH_FILES = ("dir:", "hub:")
_FILES = ("int8", "fp16")


@dataclass(frozen=True, slots=True)
class Variant:
    """How a model is to differ from what its name alone stands for.

    Attributes
    ----------
    layer : str
        The value inside the network that the vector is taken from; empty for the model's own choice.
    pooling : {"", "mean", "cls", "patches"}
        How a layer with many vectors becomes one; empty for the model's own choice.
    precision : str
        Arithmetic: ``bf16``; ``fp16``; ``int8``, calibrated on built-in images; ``int8=DIGITS``,
        calibrated by `models.quantize`; empty for the model's own.
    device : str
        Where it is computed for good, because vectors are not quite the same elsewhere; empty where they are,
        or where nobody has looked yet.
    dim : int
        How many of a vector's numbers are kept, for models trained to be cut; 0 for all.
    """

    layer: str = ""
    pooling: Pooling | Literal[""] = ""
    precision: str = ""
    device: str = ""
    dim: int = 0

    def __bool__(self) -> bool:
        return self != Variant()

    def __str__(self) -> str:
        named = [f"{key}={value}" for key in ("layer", "pooling", "dim") if (value := getattr(self, key))]
        return ",".join([*named, *filter(None, [self.precision, self.device])])

    def applied_to(self, name: str) -> str:
        """Return the name of a model in this form; the same form has one name.

        Examples
        --------
        >>> Variant(layer="block9", precision="bf16").applied_to("efficientnet-lite0")
        'efficientnet-lite0#layer=block9,bf16'
        """
        base, given = split_variant(name)
        chosen: dict[str, Any] = {
            f.name: getattr(self, f.name) or getattr(given, f.name) for f in fields(self)
        }
        if _is_file(base, chosen["precision"]):
            chosen["precision"] += f"={BUILTIN}"
        both = Variant(**chosen)
        return f"{base}#{both}" if both else base


def split_variant(name: str) -> tuple[str, Variant]:
    """Split a name into the model and its form; a ``#`` before anything else belongs to the model.

    Raises
    ------
    UnknownModelError
        A form that contradicts itself, a pooling or calibration that is none, or a dim that is no number.

    Examples
    --------
    >>> split_variant("onnx:/models/#1.onnx")[0], split_variant("dir:/clip#quantized")[0]
    ('onnx:/models/#1.onnx', 'dir:/clip#quantized')
    """
    base, sign, rest = name.rpartition("#")
    found: dict[str, Any] = {}
    for part in rest.split(",") if sign and base else ():
        key, equals, value = part.partition("=")
        if not equals and part in PRECISIONS and not _is_file(base, part):
            key, value = "precision", part
        elif not equals and part in ("cpu", *ACCELERATORS):
            key, value = "device", part
        elif key in _FILES and value == BUILTIN:
            key, value = "precision", key
        elif key == "int8" and value:
            key, value = "precision", _calibration(name, value)
        elif key not in ("layer", "pooling", "dim") or not value:
            return name, Variant()
        if key in found:
            raise UnknownModelError(f"{name!r} names its {key} twice; name it once")
        found[key] = _dim(name, value) if key == "dim" else value
    if found.get("pooling", "mean") not in get_args(Pooling):
        raise UnknownModelError(f"{name!r}: pooling is {' or '.join(get_args(Pooling))}")
    return (base, Variant(**found)) if found else (name, Variant())


def _is_file(base: str, precision: str) -> bool:
    return precision in _FILES and base.startswith(_WITH_FILES)


def _calibration(name: str, calibration: str) -> str:
    if not _CALIBRATION.fullmatch(calibration):
        raise UnknownModelError(
            f"{name!r}: int8={calibration} is no calibration; nearsight models quantize makes one and tells"
            " its 8 digits"
        )
    return f"int8={calibration}"


def _dim(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()) or int(value) < 1:
        raise UnknownModelError(f"{name!r}: dim is {value!r}; it must be a whole number of at least 1")
    return int(value)
