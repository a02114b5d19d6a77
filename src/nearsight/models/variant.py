"""A model in another form: ``NAME#PART,PART``, such as ``efficientnet-lite0#bf16``."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from nearsight.errors import UnknownModelError
from nearsight.models.devices import ACCELERATORS
from nearsight.models.spec import Pooling

#: Arithmetic that a runtime can be asked for; files of other precisions are a folder's matter.
PRECISIONS = ("bf16",)


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
        Arithmetic: one of `PRECISIONS`, or a device whose arithmetic is not quite that of the processor;
        empty for the model's own.
    """

    layer: str = ""
    pooling: Pooling | Literal[""] = ""
    precision: str = ""

    def __bool__(self) -> bool:
        return bool(self.layer or self.pooling or self.precision)

    def __str__(self) -> str:
        named = [f"{key}={value}" for key in ("layer", "pooling") if (value := getattr(self, key))]
        return ",".join([*named, *filter(None, [self.precision])])

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
        both = Variant(**chosen)
        return f"{base}#{both}" if both else base


def split_variant(name: str) -> tuple[str, Variant]:
    """Split a name into the model and its form; a ``#`` before anything else belongs to the model.

    Raises
    ------
    UnknownModelError
        A form that contradicts itself, or a pooling that is none.

    Examples
    --------
    >>> split_variant("onnx:/models/#1.onnx")[0], split_variant("dir:/clip#quantized")[0]
    ('onnx:/models/#1.onnx', 'dir:/clip#quantized')
    """
    base, sign, rest = name.rpartition("#")
    found: dict[str, Any] = {}
    for part in rest.split(",") if sign and base else ():
        key, equals, value = part.partition("=")
        if not equals and (part in PRECISIONS or part in ACCELERATORS):
            key, value = "precision", part
        elif key not in ("layer", "pooling") or not value:
            return name, Variant()
        if key in found:
            raise UnknownModelError(f"{name!r} names its {key} twice; name it once")
        found[key] = value
    if found.get("pooling", "mean") not in get_args(Pooling):
        raise UnknownModelError(f"{name!r}: pooling is {' or '.join(get_args(Pooling))}")
    return (base, Variant(**found)) if found else (name, Variant())
