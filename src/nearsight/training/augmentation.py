"""Views of an image that show the same thing: crops, mirror images, turns, other light."""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from nearsight.errors import InvalidParameterError
from nearsight.models import Backend
from nearsight.models.spec import ModelSpec

_CELL_PX, _MARGIN_PX = 128, 4


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far views of one image may differ.

    Attributes
    ----------
    min_area : float
        Smallest share of the image that a crop keeps, above 0 and at most 1.
    mirror, mirror_vertically, quarter_turns : bool
    turn_degrees : float
        Largest turn to either side; corners get the image's mean color.
    light : float
        Largest change of brightness and contrast, 0..1.
    saturation : float
        Largest change of saturation, 0..1.
    blur_px : float
        Largest radius of a blur, for an image of 224 pixels.
    jpeg : bool
        Whether views are stored as JPEG of quality 30 to 95.
    """

    min_area: float
    mirror: bool = False
    mirror_vertically: bool = False
    quarter_turns: bool = False
    turn_degrees: float = 0.0
    light: float = 0.0
    saturation: float = 0.0
    blur_px: float = 0.0
    jpeg: bool = False


#: What stays the same differs by the kind of image: a mirrored letter is another letter.
AUGMENTATIONS = {
    "photos": Augmentation(0.35, mirror=True, light=0.3, saturation=0.3),
    "products": Augmentation(0.6, mirror=True, light=0.2, saturation=0.2),
    "industrial": Augmentation(0.8, mirror=True, mirror_vertically=True, quarter_turns=True, light=0.2),
    "documents": Augmentation(0.9, turn_degrees=3.0, light=0.2, blur_px=1.0, jpeg=True),
}


def augmentation(name: str) -> Augmentation:
    """Return an augmentation by name.

    Raises
    ------
    InvalidParameterError
        There is none of that name.
    """
    if name not in AUGMENTATIONS:
        raise InvalidParameterError(
            f"the augmentation is {name!r}; it must be one of {', '.join(AUGMENTATIONS)}"
        )
    return AUGMENTATIONS[name]


def view(image: Image.Image, augmentation: Augmentation, number: int) -> Image.Image:
    """Return one view of an RGB image; the same image and number always give the same view.

    Parameters
    ----------
    image : Image
    augmentation : Augmentation
    number : int
        0 is the image itself. 1 is its mirror image, where the augmentation has one. Others are drawn.
    """
    if number == 0:
        return image
    if number == 1 and augmentation.mirror:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # Drawn from the pixels, so that neither order nor path matters.
    pixels = np.asarray(image.resize((16, 16), Image.Resampling.BOX, reducing_gap=2.0))
    rng = np.random.default_rng([zlib.crc32(pixels.tobytes()), number])
    return _lit(_moved(image, augmentation, rng), augmentation, rng)


def _moved(image: Image.Image, augmentation: Augmentation, rng: np.random.Generator) -> Image.Image:
    if augmentation.turn_degrees:
        mean = tuple(int(level) for level in np.asarray(image.resize((1, 1), Image.Resampling.BOX))[0, 0])
        degrees = rng.uniform(-augmentation.turn_degrees, augmentation.turn_degrees)
        image = image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=mean)
    side = np.sqrt(rng.uniform(augmentation.min_area, 1))
    width, height = (max(1, round(length * side)) for length in image.size)
    left = rng.integers(0, image.width - width + 1)
    top = rng.integers(0, image.height - height + 1)
    image = image.crop((int(left), int(top), int(left) + width, int(top) + height))
    if augmentation.mirror and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augmentation.mirror_vertically and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if augmentation.quarter_turns and (n_turns := int(rng.integers(0, 4))):
        image = image.transpose(_QUARTER_TURNS[n_turns - 1])
    return image


_QUARTER_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


def _lit(image: Image.Image, augmentation: Augmentation, rng: np.random.Generator) -> Image.Image:
    for change, enhancer in (
        (augmentation.light, ImageEnhance.Brightness),
        (augmentation.light, ImageEnhance.Contrast),
        (augmentation.saturation, ImageEnhance.Color),
    ):
        if change:
            image = enhancer(image).enhance(rng.uniform(1 - change, 1 + change))
    if augmentation.blur_px:
        radius = rng.uniform(0, augmentation.blur_px) * min(image.size) / 224
        image = image.filter(ImageFilter.GaussianBlur(radius))
    if augmentation.jpeg:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(30, 96)))
        image = Image.open(file).convert("RGB")
    return image


class ViewsBackend:
    """A model whose vector of an image is the vectors of several views of it, one after the other.

    Parameters
    ----------
    backend : Backend
        Prepares an image as its pixels (H, W, 3).
    augmentation : Augmentation
    n_views : int
        The image itself included; see `view`.
    """

    def __init__(self, backend: Backend, augmentation: Augmentation, n_views: int) -> None:
        self._backend = backend
        self._augmentation = augmentation
        self._n_views = n_views
        self.spec: ModelSpec = replace(backend.spec, dim=n_views * backend.spec.dim, normalize=False)

    @property
    def decode_px(self) -> int | None:
        """Minimum length of a decoded image's shorter side in pixels; None for full size."""
        return self._backend.decode_px

    def prepare(self, image: Image.Image) -> list[Any]:
        """Turn one upright RGB image into an item for `embed`."""
        prepared = [self._backend.prepare(image)]
        if self._n_views > 1 and self._augmentation.mirror:
            # As `view` would, but that the middle of an odd number of pixels may be another one.
            prepared.append(np.ascontiguousarray(prepared[0][:, ::-1]))
        rest = range(len(prepared), self._n_views)
        return prepared + [self._backend.prepare(view(image, self._augmentation, number)) for number in rest]

    def embed(self, prepared: Sequence[list[Any]]) -> NDArray[np.float32]:
        """Return the (n, n_views * dim) vectors of prepared images."""
        vectors = self._backend.embed([item for views in prepared for item in views])
        return vectors.reshape(len(prepared), self.spec.dim)


def contact_sheet(images: Sequence[Image.Image], augmentation: Augmentation, n_views: int) -> Image.Image:
    """Return a sheet with a row for each image: the image, then its views.

    Parameters
    ----------
    images : sequence of Image
        RGB.
    augmentation : Augmentation
    n_views : int
        The image itself included.
    """
    step = _CELL_PX + _MARGIN_PX
    sheet = Image.new("RGB", (n_views * step + _MARGIN_PX, len(images) * step + _MARGIN_PX), "white")
    frame = ImageDraw.Draw(sheet)
    for row, image in enumerate(images):
        for number in range(n_views):
            cell = view(image, augmentation, number).copy()
            cell.thumbnail((_CELL_PX, _CELL_PX), Image.Resampling.BICUBIC)
            left, top = _MARGIN_PX + number * step, _MARGIN_PX + row * step
            sheet.paste(cell, (left + (_CELL_PX - cell.width) // 2, top + (_CELL_PX - cell.height) // 2))
            frame.rectangle((left - 1, top - 1, left + _CELL_PX, top + _CELL_PX), outline=(200, 200, 200))
    return sheet
