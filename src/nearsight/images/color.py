"""Conversion of any image to 8-bit sRGB without transparency.

Whatever is converted, something must be left to see. So transparent images lie on white, and only where that
would leave nothing, on black; transparency that hides everything is ignored; and so is a profile that turns
everything into one color.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageCms

from nearsight.images.gray_levels import GrayScale, deep_color_white, scaled_to, to_8_bits
from nearsight.images.strict_decoding import DecodingError

ON_BLACK: Final = "transparency lies on black, since on white nothing would be left to see"
OPAQUE: Final = "transparency is ignored, since it hides everything"

DEEP_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
_PROFILE_SPACE_OF_MODE = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_SRGB = ImageCms.createProfile("sRGB")
# Levels of 256 between the darkest and the brightest pixel below which nothing is to see.
_MIN_CONTRAST = 8
_HIGHEST_OF_12_BITS = 15
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Converted:
    """An image of mode RGB, and what was decided so that something is left to see."""

    image: Image.Image
    notes: tuple[str, ...] = ()


def to_rgb(image: Image.Image, icc: bytes | None = None) -> Image.Image:
    """Return a loaded image as mode RGB; see `convert`."""
    return convert(image, icc).image


def convert(image: Image.Image, icc: bytes | None = None, scale: GrayScale | None = None) -> Converted:
    """Convert a loaded image to mode RGB.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode.
    icc : bytes or None
        Its color profile. A profile that is damaged or of another color space is ignored.
    scale : GrayScale or None
        What the file says about the values of a gray image of more than 8 bits.

    Returns
    -------
    Converted
        Mode RGB, same size; the image itself if it needs no conversion.

    Raises
    ------
    DecodingError
        The content of the image does not survive the conversion.
    """
    alpha, notes = None, list[str]()
    if image.mode in DEEP_MODES:
        gray = to_8_bits(image, scale or GrayScale())
        base, alpha = gray.image, gray.alpha
        notes += [gray.note] if gray.note else []
    elif scale is not None and scale.dtype is not None:
        base = to_8_bits(image, scale).image
    elif image.has_transparency_data:
        base, alpha = _split_alpha(image)
    else:
        base = image
    rgb = _to_srgb(base, icc)
    if alpha is not None:
        rgb, note = _without_alpha(rgb, alpha)
        notes += [note] if note else []
    if rgb is not base and base.mode != "1" and _contrast(rgb) == 0 and _has_content(base):
        raise DecodingError(
            f"the image is of one color when its mode {base.mode} is converted to sRGB, so nothing is left to"
            " see; convert it to RGB first"
        )
    return Converted(rgb, tuple(notes))


def with_low_bytes(image: Image.Image, low_bytes: Callable[[], Image.Image]) -> Image.Image:
    """Return a color image of 16 bits so that its content shows, if it uses a sixteenth of them or less.

    Parameters
    ----------
    image : PIL.Image.Image
        The high bytes: mode RGB or RGBA.
    low_bytes : callable
        Returns the low bytes; called only if they are needed.
    """
    high = np.asarray(image)
    if "transparency" in image.info or np.percentile(high[::7, ::7, :3], 99.9) > _HIGHEST_OF_12_BITS:
        return image
    deep = high.astype(np.uint16) << 8 | np.asarray(low_bytes())
    white = deep_color_white(deep[..., :3])
    if white == 65535:
        return image
    channels = high.copy()
    channels[..., :3] = scaled_to(deep[..., :3], white)
    return Image.fromarray(channels)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if image.mode in ("LA", "La"):
        image = image.convert("LA")
        base, alpha = image.getchannel("L"), image.getchannel("A")
    else:
        image = image.convert("RGBA")
        base, alpha = image.convert("RGB"), image.getchannel("A")
    opaque = alpha.getextrema()[0] == 255
    return base, None if opaque else alpha


def _without_alpha(base: Image.Image, alpha: Image.Image) -> tuple[Image.Image, str | None]:
    """Return the image on white, or else on black or opaque, whichever is the first that shows something."""
    on_white = _on(_WHITE, base, alpha)
    if _contrast(on_white) >= _MIN_CONTRAST:
        return on_white, None
    if alpha.getextrema() != (0, 0):
        on_black = _on(_BLACK, base, alpha)
        if _contrast(on_black) >= _MIN_CONTRAST:
            return on_black, ON_BLACK
    if _contrast(base) >= _MIN_CONTRAST:
        return base, OPAQUE
    return on_white, None


def _on(color: tuple[int, int, int], base: Image.Image, alpha: Image.Image) -> Image.Image:
    ground = Image.new("RGB", base.size, color)
    ground.paste(base, mask=alpha)
    return ground


def _contrast(image: Image.Image) -> int:
    """Return the levels between the darkest and the brightest pixel of the channel that has most.

    A few pixels are looked at first: they suffice for nearly every image.
    """
    few = image.resize((min(16, image.width), min(16, image.height)), Image.Resampling.NEAREST)
    contrast = _range(few)
    return contrast if contrast >= _MIN_CONTRAST else _range(image)


def _range(image: Image.Image) -> int:
    extrema = image.getextrema()
    pairs = [extrema] if isinstance(extrema[0], (int, float)) else list(extrema)
    return int(max(high - low for low, high in pairs))


def _has_content(image: Image.Image) -> bool:
    """Whether an image that became one color had something to see; numbers of a palette say nothing."""
    return image.mode != "P" and _range(image) >= _MIN_CONTRAST


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
            converted = transform.apply(base)
            # A damaged profile may turn everything into one color.
            if _contrast(converted) > 0 or _range(base) < _MIN_CONTRAST:
                return converted
    return base if base.mode == "RGB" else base.convert("RGB")


def changes_colors(icc: bytes, mode: str) -> bool:
    """Whether a color profile changes the colors of an image in that mode: it is valid, and not sRGB."""
    return _profile_space(icc) == _PROFILE_SPACE_OF_MODE.get(mode) and _srgb_transform(icc, mode) is not None


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
