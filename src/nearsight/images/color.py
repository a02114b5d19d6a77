"""Conversion of any image to 8-bit sRGB on white."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from nearsight.images.strict_decoding import DecodingError

_DEEP_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
_PROFILE_SPACE_OF_MODE = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_16_TO_8_BITS = ((np.arange(65536) + 128) // 257).astype(np.uint8)
_SRGB = ImageCms.createProfile("sRGB")


def to_rgb(
    image: Image.Image, icc: bytes | None = None, *, gray_scale: int | None = None, inverted: bool = False
) -> Image.Image:
    """Convert a loaded image to mode RGB.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode.
    icc : bytes or None
        Its color profile. A profile that is damaged or of another color space is ignored.
    gray_scale : int or None
        White of a gray image of more than 8 bits. None takes values up to 255 as 8 bits and values up to
        65,535 as 16 bits.
    inverted : bool
        Whether 0 is white in a gray image of more than 8 bits.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, same size; the image itself if it needs no conversion.

    Raises
    ------
    DecodingError
        The values of an integer or floating-point image are outside the known scales.
    """
    alpha = None
    if image.mode in _DEEP_MODES:
        base, alpha = _deep_gray(image, gray_scale, inverted)
    elif image.mode == "F":
        base = _float_gray(image)
    elif image.has_transparency_data:
        base, alpha = _split_alpha(image)
    else:
        base = image
    base = _to_srgb(base, icc)
    return base if alpha is None else _on_white(base, alpha)


def _deep_gray(
    image: Image.Image, scale: int | None, inverted: bool
) -> tuple[Image.Image, Image.Image | None]:
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DecodingError(
            f"gray values from {low} to {high} have no known scale; convert the image to 8 or 16 bits"
        )
    transparent = image.info.get("transparency")
    if scale is None:
        scale = 255 if high <= 255 else 65535
    if scale == 65535:
        eight = _16_TO_8_BITS[values]
    elif scale == 255:
        eight = values.astype(np.uint8)
    else:
        eight = (np.minimum(values, scale).astype(np.uint32) * 510 // scale + 1 >> 1).astype(np.uint8)
    if inverted:
        eight = 255 - eight
    alpha = None
    if isinstance(transparent, int):
        alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.fromarray(eight), alpha


def _float_gray(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # NaN fails this too
        raise DecodingError(
            f"floating-point values from {low:g} to {high:g} have no known scale; convert the image to 0..1"
        )
    return Image.fromarray(np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8))


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if image.mode in ("LA", "La"):
        image = image.convert("LA")
        base, alpha = image.getchannel("L"), image.getchannel("A")
    else:
        image = image.convert("RGBA")
        base, alpha = image.convert("RGB"), image.getchannel("A")
    opaque = alpha.getextrema()[0] == 255
    return base, None if opaque else alpha


def _on_white(base: Image.Image, alpha: Image.Image) -> Image.Image:
    white = Image.new("RGB", base.size, (255, 255, 255))
    white.paste(base, mask=alpha)
    return white


def _to_srgb(base: Image.Image, icc: bytes | None) -> Image.Image:
    if icc:
        if base.mode in ("1", "P", "YCbCr", "RGBX", "HSV"):
            base = base.convert("L" if base.mode == "1" else "RGB")
        space = _profile_space(icc)
        if base.mode == "L" and space == "RGB":
            base = base.convert("RGB")
        if (
            space == _PROFILE_SPACE_OF_MODE.get(base.mode)
            and (transform := _srgb_transform(icc, base.mode)) is not None
        ):
            return transform.apply(base)
    return base if base.mode == "RGB" else base.convert("RGB")


@lru_cache(maxsize=64)
def _profile_space(icc: bytes) -> str | None:
    try:
        return str(ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space).strip()
    except (OSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=64)
def _srgb_transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB; None if it is sRGB already or is damaged."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(icc)),
            _SRGB,
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.PERCEPTUAL,
            # A transform without its one-pixel cache can be used by several threads at once.
            flags=ImageCms.Flags.NOCACHE,
        )
        if mode != "CMYK" and _is_nearly_srgb(transform, mode):
            return None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return transform


def _is_nearly_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    # Dozens of profiles mean sRGB under different names, so the transform is tried on a grid of colors.
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    if mode == "L":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    else:
        probe = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3))
    before = np.asarray(probe.convert("RGB"), np.int16)
    after = np.asarray(transform.apply(probe), np.int16)
    return bool(np.abs(before - after).max() <= 1)
