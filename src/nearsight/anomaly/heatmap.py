"""Drawings of anomaly heatmaps over images."""

from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from nearsight import text_format
from nearsight.anomaly.detector import AnomalyResult
from nearsight.errors import InvalidParameterError

_PAPER, _INK, _FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)
_ALARM, _GOOD = (185, 28, 28), (21, 94, 60)
_MARGIN_PX = 16
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
# The color scale ends at twice the threshold, for every image of every detector.
_SCALE_END = 2.0
# Least side of a panel: a long narrow image would be drawn as a line.
_MIN_SIDE_PX = 48
_HEADER_PX, _FOOTER_PX = 92, 74
# Strength of the colors where no plain image stands beside them.
_OVERLAY_STRENGTH = 0.6
# From 0 to twice the threshold. The colors let the image through, and their lightness alone tells them apart.
_STOPS = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0)
_COLORS = ((255, 245, 157), (255, 245, 157), (253, 203, 64), (244, 109, 30), (200, 30, 80), (90, 10, 110))
_OPACITY = (0.0, 0.0, 0.35, 0.55, 0.7, 0.8)


def draw(result: AnomalyResult, *, panel_px: int = 560) -> Image.Image:
    """Draw the image beside a copy with its heatmap.

    The colors mean the same on every image: they begin at half the threshold, and a line marks the
    threshold. A sentence gives the reason for the result.

    Parameters
    ----------
    result : AnomalyResult
        Scored with ``heatmaps=True``.
    panel_px : int, default 560
        Longer side of each of the two, in pixels; twice that if the image is more than twice as wide as high.

    Raises
    ------
    InvalidParameterError
        The image was scored without heatmaps.
    """
    image = _imaged(result)
    wide = image.width > 2 * image.height
    return _sheet(result, *_panels(result, 2 * panel_px + _MARGIN_PX if wide else panel_px))


def overlay(result: AnomalyResult, *, longer_px: int = 320) -> Image.Image:
    """Draw the image with its heatmap over it.

    Parameters
    ----------
    result : AnomalyResult
        Scored with ``heatmaps=True``.
    longer_px : int, default 320
        Longer side, in pixels.

    Raises
    ------
    InvalidParameterError
        The image was scored without heatmaps.
    """
    return _panels(result, longer_px, strength=_OVERLAY_STRENGTH)[1]


def _imaged(result: AnomalyResult) -> Image.Image:
    if result.image is None:
        raise InvalidParameterError(
            f"the result of {result.path} has no image to draw; score it with heatmaps=True"
        )
    return result.image


def _panels(result: AnomalyResult, longer_px: int, strength: float = 1.0) -> tuple[Image.Image, Image.Image]:
    """Return the image, and the image with its heatmap over it."""
    image = _imaged(result)
    factor = longer_px / max(image.size)
    width, height = (max(_MIN_SIDE_PX, round(factor * side)) for side in image.size)
    resample = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC
    shown = image.convert("RGB").resize((width, height), resample)
    overlaid = shown
    if result.heatmap is not None:
        heat = Image.fromarray(np.ascontiguousarray(result.heatmap, np.float32))
        values = np.array(heat.resize((width, height), Image.Resampling.BILINEAR), np.float32)
        overlaid = _overlaid(shown, values / np.float32(_unit(result)), strength)
    return shown, overlaid


def _unit(result: AnomalyResult) -> float:
    # The threshold is 0 or less for a false-alarm rate of a half or more.
    return result.threshold if result.threshold > 0 else 1.0


def _overlaid(image: Image.Image, ratio: NDArray[np.float32], strength: float) -> Image.Image:
    colors, opacity = _colored(ratio)
    opacity = opacity * np.float32(strength)
    # The image is gray under the colors: a red heatmap would not show on a red part.
    gray = np.asarray(image.convert("L"), np.float32)[..., None].repeat(3, -1)
    mixed = gray * (1 - opacity[..., None]) + colors * opacity[..., None]
    above = ratio >= 1
    line = np.zeros_like(above)
    for axis in (0, 1):
        edge = np.diff(above, axis=axis)
        before, after = ([slice(None)] * 2 for _ in range(2))
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        line[tuple(before)] |= edge
        line[tuple(after)] |= edge
    mixed[line] = _INK
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _colored(ratio: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    colors = np.stack([np.interp(ratio, _STOPS, [c[i] for c in _COLORS]) for i in range(3)], -1)
    return colors.astype(np.float32), np.interp(ratio, _STOPS, _OPACITY).astype(np.float32)


def _sheet(result: AnomalyResult, image: Image.Image, overlaid: Image.Image) -> Image.Image:
    title, small = ImageFont.load_default(20), ImageFont.load_default(14)
    width, height = image.size
    # The two panels of a wide image stand one above the other.
    beside = width <= 2 * height
    panels = (2 * width + _MARGIN_PX, height) if beside else (width, 2 * height + _MARGIN_PX)
    sheet_width = max(panels[0], 560) + 2 * _MARGIN_PX
    top, foot = _HEADER_PX, _FOOTER_PX
    sheet = Image.new("RGB", (sheet_width, top + panels[1] + foot), _PAPER)
    pen = ImageDraw.Draw(sheet)
    verdict = "Defect" if result.defect else "No defect"
    pen.text((_MARGIN_PX, 12), verdict, _ALARM if result.defect else _GOOD, title)
    name = _fitting(pen, PurePath(result.path).name, small, sheet_width - 2 * _MARGIN_PX - 130)
    pen.text((_MARGIN_PX + 120, 17), name, _INK, small)
    whole, places = _level_scores(result)
    parts = {"whole image": whole, "places": places}
    shown = ", ".join(
        f"{name} {text_format.score(value)}" for name, value in parts.items() if value is not None
    )
    score, threshold = text_format.score(result.score), text_format.score(result.threshold)
    facts = f"score {score}, threshold {threshold}   ({shown})"
    for line, color, at in ((reason(result), _INK, 40), (facts, _FAINT, 62)):
        pen.text((_MARGIN_PX, at), _fitting(pen, line, small, sheet_width - 2 * _MARGIN_PX), color, small)
    sheet.paste(image, (_MARGIN_PX, top))
    second = (_MARGIN_PX + width + _MARGIN_PX, top) if beside else (_MARGIN_PX, top + height + _MARGIN_PX)
    sheet.paste(overlaid, second)
    if result.heatmap is None:
        pen.text((_MARGIN_PX, sheet.height - foot + 20), "scored as a whole: no heatmap", _FAINT, small)
    else:
        _scale(sheet, pen, small, sheet.height - foot + 16, min(max(panels[0], 320), 560))
    return sheet


def reason(result: AnomalyResult) -> str:
    """Return the reason for a result in words: the image as a whole, or places in it.

    Parameters
    ----------
    result : AnomalyResult
        With or without its heatmap.
    """
    whole, places = (value is not None and value > result.threshold for value in _level_scores(result))
    if result.defect:
        if whole and places:
            return "Differs from good images as a whole, and most in the outlined places."
        if places:
            return "Differs from good images in the outlined places."
        if whole:
            return "Differs from good images as a whole, in no single place."
        return "Differs a little as a whole and in places; together that exceeds the threshold."
    heat = result.heatmap
    if heat is not None and bool((heat >= _unit(result)).any()):
        return "Resembles good images. The outlined places are too small to count."
    return "Resembles good images."


def _level_scores(result: AnomalyResult) -> tuple[float | None, float | None]:
    """Return the scores of the image as a whole, and of its places; None for a part not used."""
    return result.levels.get("image"), result.levels.get("places")


def _scale(sheet: Image.Image, pen: ImageDraw.ImageDraw, font: _Font, top: int, width: int) -> None:
    """Draw the color scale."""
    ratio = np.tile(np.linspace(0, _SCALE_END, width, dtype=np.float32), (14, 1))
    colors, opacity = _colored(ratio)
    bar = 235 * (1 - opacity[..., None]) + colors * opacity[..., None]
    sheet.paste(Image.fromarray(np.rint(bar).astype(np.uint8)), (_MARGIN_PX, top))
    for at, text in ((0.0, "usual"), (1.0, "threshold"), (_SCALE_END, "twice that, or more")):
        x = _MARGIN_PX + round(at / _SCALE_END * (width - 1))
        if at == 1:
            pen.line([(x, top - 3), (x, top + 17)], _INK, 2)
        anchor = "la" if at == 0 else "ma" if at == 1 else "ra"
        pen.text((x, top + 20), text, _FAINT, font, anchor)


def _fitting(pen: ImageDraw.ImageDraw, text: str, font: _Font, width: float) -> str:
    """Shorten text to a width; a character that the font lacks becomes a question mark."""
    text = "".join(c if c.isprintable() and ord(c) < 0x250 else "?" for c in text)
    if pen.textlength(text, font) <= width:
        return text
    while len(text) > 1 and pen.textlength(f"{text}...", font) > width:
        text = text[:-1]
    return f"{text}..."
