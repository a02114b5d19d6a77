"""Images with a box and a name for each face."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image, ImageDraw, ImageFont

from nearsight.errors import StorageError

_KNOWN, _UNKNOWN, _DOUBTFUL = "#1a7f37", "#5c6370", "#b35900"
# Height of the text as a share of the image's longer side, and at least, in pixels.
_TEXT_SHARE, _MIN_TEXT_PX = 1 / 45, 12


@dataclass(frozen=True, slots=True)
class Label:
    """A box and its text.

    Attributes
    ----------
    box : tuple of float
        Left, top, right, bottom in pixels.
    text : str
    kind : {"known", "doubtful", "unknown"}
    """

    box: tuple[float, float, float, float]
    text: str
    kind: str


def draw(image: Image.Image, labels: Sequence[Label]) -> Image.Image:
    """Return a copy of an RGB image with boxes, and text above each box or, at the image's top, inside it."""
    drawing = image.copy()
    pen = ImageDraw.Draw(drawing)
    size = max(_MIN_TEXT_PX, round(max(image.size) * _TEXT_SHARE))
    font, line = ImageFont.load_default(size), max(2, size // 7)
    # Largest first, so that it does not cover the small ones.
    for label in sorted(labels, key=lambda label: -(label.box[2] - label.box[0])):
        color = {"known": _KNOWN, "doubtful": _DOUBTFUL}.get(label.kind, _UNKNOWN)
        left, top, right, bottom = label.box
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=line)
        _write(pen, label.text, (left, top), color, font, image.size)
    return drawing


def _write(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    color: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pad = max(2, round((bottom - top) / 4))
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(0, min(corner[0], size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((x, y, x + width, y + height), fill=color)
    pen.text((x + pad - left, y + pad - top), text, fill="white", font=font)


def save(image: Image.Image, folder: Path, path: str, taken: set[str]) -> Path:
    """Save a drawing as JPEG under the name of its image.

    Parameters
    ----------
    image : PIL.Image.Image
    folder : Path
        Created if it does not exist.
    path : str
        Path of the image.
    taken : set of str
        File names of this run, to which this one is added; a second image of the same name gets a number.

    Raises
    ------
    StorageError
        The file cannot be written; choose another folder.
    """
    stem = re.sub(r"[^\w.-]+", "_", PurePath(path).stem).strip("._") or "image"
    name, n = f"{stem}.jpg", 1
    while name in taken:
        n += 1
        name = f"{stem}-{n}.jpg"
    taken.add(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, "JPEG", quality=92)
    except OSError as error:
        raise StorageError(
            f"{folder / name} could not be written: {error.strerror or error}; choose another folder"
        ) from error
    return folder / name
