"""How far JPEGs are decoded: a choice of the user, and part of a model's name."""

from nearsight.errors import InvalidParameterError
from nearsight.models.model_name import ModelVariant, split_model_name
from nearsight.models.registry import find_model
from nearsight.models.runtimes import gpu_decode
from nearsight.models.spec import ModelSpec

#: ``draft``: a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size. ``full``: at full size. ``auto``:
#: ``full`` where a GPU decodes, else the model's own rule.
DECODE_MODES = ("auto", "draft", "full")


def named_with_decode(name: str, decode: str, *, device: str = "auto") -> str:
    """Return the name of a model whose JPEGs are decoded in some way.

    Parameters
    ----------
    name : str
        The model; see `load_model`.
    decode : {"auto", "draft", "full"}
        See `DECODE_MODES`. Vectors of full and of reduced decoding have different fingerprints. Models of
        folders and hubs decode in full, as their references do.
    device : str
        The requested device; see `load_model`.

    Raises
    ------
    InvalidParameterError
        There is no such mode, or the model does not decode so.

    Examples
    --------
    >>> named_with_decode("efficientnet-lite0", "full")
    'efficientnet-lite0#decode=full'
    >>> named_with_decode("efficientnet-lite0", "draft")
    'efficientnet-lite0'
    """
    if decode not in DECODE_MODES:
        raise InvalidParameterError(f"decode is {decode!r}; it must be {', '.join(DECODE_MODES)}")
    if decode == "auto" and not gpu_decode.is_usable(device):
        return name
    entry = find_model(name)
    mode = decode_mode(entry.spec)
    if mode == decode or (decode == "auto" and (mode == "full" or entry.variants is None)):
        return name
    if decode == "draft":
        if split_model_name(name)[1].decode:
            raise InvalidParameterError(f"{name} is decoded in full; remove decode=full, or decode='draft'")
        raise InvalidParameterError(
            f"{name} decodes JPEGs in full, as the model's reference does; remove decode='draft'"
        )
    if entry.variants is None:
        raise InvalidParameterError(f"{name} decodes JPEGs at reduced size only; remove decode='full'")
    return ModelVariant(decode="full").applied_to(name)


def decode_mode(spec: ModelSpec) -> str:
    """Return ``draft`` if a large JPEG may be decoded at reduced size, else ``full``."""
    return "draft" if spec.draft else "full"
