"""Reads the preprocessing of transformers' image processors from ``preprocessor_config.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from nearsight.errors import WeightsError

_HALF = (0.5, 0.5, 0.5)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# From this size on, ConvNeXt stretches images and does not crop.
_CONVNEXT_WARPS_PX = 384


@dataclass(frozen=True, slots=True)
class _Kind:
    """Defaults of an image processor; older files omit many values."""

    resample: int
    size: int
    square: bool
    crop_px: int | None
    mean: tuple[float, float, float] = _HALF
    std: tuple[float, float, float] = _HALF


_KINDS = {
    "CLIP": _Kind(3, 224, False, 224, _CLIP_MEAN, _CLIP_STD),
    "Bit": _Kind(3, 224, False, 224, _CLIP_MEAN, _CLIP_STD),
    "ViT": _Kind(2, 224, True, None),
    "Siglip": _Kind(3, 224, True, None),
    "DeiT": _Kind(3, 256, True, 224),
    "Beit": _Kind(3, 224, True, None),
    "ConvNext": _Kind(3, 384, False, None),
    "DINOv3ViT": _Kind(2, 224, True, None, _IMAGENET_MEAN, _IMAGENET_STD),
}
_UNSUPPORTED = ("do_pad", "rescale_offset", "do_flip_channel_order")


def preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of `ModelSpec` in the configuration of an image processor.

    *Method*: the rules of transformers 5 on Pillow images: ``shortest_edge`` or an exact size, then a
    center crop that starts on the pixel before an odd margin, rescaling and normalization. ConvNeXt's
    ``crop_pct`` is followed.

    Parameters
    ----------
    config : mapping
        Content of ``preprocessor_config.json``.

    Returns
    -------
    dict
        `input_px`, `resize_px`, `resize_mode`, `crop_rounding`, `interpolation`, `mean` and `std`.

    Raises
    ------
    WeightsError
        The processor or one of its steps is not supported; a guess would give wrong vectors without an
        error.
    """
    # null means the processor's default, as in transformers.
    values = {key: value for key, value in config.items() if value is not None}
    name, kind = _kind(values)
    for key in _UNSUPPORTED:
        if values.get(key):
            _refuse(f"{name} with {key}")
    if not values.get("do_resize", True):
        _refuse(f"{name} without resizing")
    resample = values.get("resample", kind.resample)
    if resample not in _RESAMPLE:
        _refuse(f"resample {resample!r}")
    shape = _convnext(values, kind) if name == "ConvNext" else _shape(values, kind, name)
    return {
        **shape,
        "crop_rounding": "down",
        "interpolation": _RESAMPLE[resample],
        **_scale(values, kind),
    }


def _kind(values: Mapping[str, Any]) -> tuple[str, _Kind]:
    full = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    name = full
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(ending)
    if name not in _KINDS:
        _refuse(f"image_processor_type {full!r}, known are {', '.join(_KINDS)}")
    return name, _KINDS[name]


def _shape(values: Mapping[str, Any], kind: _Kind, name: str) -> dict[str, Any]:
    size = values.get("size", kind.size)
    if isinstance(size, int):
        size = {"height": size, "width": size} if kind.square else {"shortest_edge": size}
    crop = _crop(values, kind) if values.get("do_center_crop", kind.crop_px is not None) else None
    if set(size) == {"shortest_edge"}:
        if crop is None:
            _refuse(f"{name} with shortest_edge and no crop, whose input has no fixed size,")
        return {"input_px": crop, "resize_px": size["shortest_edge"], "resize_mode": "short-side"}
    if set(size) != {"height", "width"}:
        _refuse(f"size {size!r}")
    exact = (size["height"], size["width"])
    if crop is None or crop == exact:
        return {"input_px": exact, "resize_px": max(exact), "resize_mode": "squash"}
    if exact[0] != exact[1]:
        _refuse(f"a crop of {crop} from {exact}, which is not a square,")
    return {"input_px": crop, "resize_px": exact[0], "resize_mode": "squash-crop"}


def _crop(values: Mapping[str, Any], kind: _Kind) -> tuple[int, int]:
    crop = values.get("crop_size", kind.crop_px or kind.size)
    if isinstance(crop, int):
        return crop, crop
    if not isinstance(crop, dict) or set(crop) != {"height", "width"}:
        _refuse(f"crop_size {crop!r}")
    return crop["height"], crop["width"]


def _convnext(values: Mapping[str, Any], kind: _Kind) -> dict[str, Any]:
    size = values.get("size", kind.size)
    side = size if isinstance(size, int) else size.get("shortest_edge")
    if not isinstance(side, int) or values.get("do_center_crop"):
        _refuse(f"ConvNext with size {size!r} and do_center_crop {values.get('do_center_crop')!r}")
    if side >= _CONVNEXT_WARPS_PX:
        return {"input_px": (side, side), "resize_px": side, "resize_mode": "squash"}
    resize_px = int(side / values.get("crop_pct", 224 / 256))
    return {"input_px": (side, side), "resize_px": resize_px, "resize_mode": "short-side"}


def _scale(values: Mapping[str, Any], kind: _Kind) -> dict[str, Any]:
    """Return mean and standard deviation for values in 0..1, for any rescaling of the processor."""
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if values.get("do_normalize", True):
        mean, std = _channels(values, "image_mean", kind.mean), _channels(values, "image_std", kind.std)
    factor = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0
    # Files round 1/255 to different numbers of digits; the fingerprint must be the same for all.
    top = 1.0 if abs(255 * factor - 1) < 1e-6 else 255 * factor
    return {"mean": tuple(m / top for m in mean), "std": tuple(s / top for s in std)}


def _channels(values: Mapping[str, Any], key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    value = values.get(key, default)
    channels = tuple(value) if isinstance(value, (list, tuple)) else (value,) * 3
    if len(channels) != 3:
        _refuse(f"{key} {value!r}, which is not one number for each of red, green and blue,")
    return channels


def _refuse(what: str) -> NoReturn:
    raise WeightsError(
        f"preprocessor_config.json has {what} which nearsight does not support. "
        "Write the model's facts into FILE.json and use onnx:FILE instead."
    )
