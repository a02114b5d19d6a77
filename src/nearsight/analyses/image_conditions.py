"""What the images were like that something was fitted on, and what is different about others."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from nearsight.images.statistics import statistics
from nearsight.text_format import count

#: Images that are measured of those that something is fitted on.
MAX_MEASURED = 500
# What lies beyond the range of the fitted images by these is reported: a factor for sizes, a share of white,
# and for blur a factor and 1/256 of the longer side.
_SIZE_FACTOR, _BRIGHTNESS_MARGIN, _BLUR_FACTOR, _BLUR_MARGIN = 2.0, 0.15, 1.5, 0.5


@dataclass(frozen=True, slots=True)
class ImageConditions:
    """Size, color, brightness and sharpness of images.

    Attributes
    ----------
    n_images : int
        That were measured.
    n_gray : int
        Images without color.
    min_side_px, max_side_px : int
        Of the shorter sides.
    min_brightest : float
        The darkest image's brightest parts, in 0..1.
    max_darkest : float
        The brightest image's darkest parts, in 0..1.
    max_edge_width : float
        Of the most blurred image; see `images.statistics`.
    """

    n_images: int
    n_gray: int
    min_side_px: int
    max_side_px: int
    min_brightest: float
    max_darkest: float
    max_edge_width: float

    @classmethod
    def of(cls, images: Iterable[tuple[int, int, bytes]]) -> "ImageConditions | None":
        """Measure images by width, height and JPEG thumbnail; None without any."""
        rows = [(min(width, height), statistics(Image.open(BytesIO(jpeg)))) for width, height, jpeg in images]
        if not rows:
            return None
        widths = [s.edge_width for _, s in rows if not np.isnan(s.edge_width)]
        return cls(
            len(rows),
            sum(s.is_gray for _, s in rows),
            min(side for side, _ in rows),
            max(side for side, _ in rows),
            round(min(s.brightest for _, s in rows), 4),
            round(max(s.darkest for _, s in rows), 4),
            round(max(widths, default=0.0), 4),
        )

    def differences(self, width: int, height: int, jpeg: bytes) -> list[str]:
        """Return how an image differs from those that were measured, as predicates of "images"."""
        side, measured = min(width, height), statistics(Image.open(BytesIO(jpeg)))
        sides = f"{self.min_side_px:,}" + (
            f" to {self.max_side_px:,}" if self.max_side_px > self.min_side_px else ""
        )
        tests = {
            f"much smaller (shorter sides of fitted images: {sides} pixels)": side * _SIZE_FACTOR
            < self.min_side_px,
            "gray, where fitted images are in color": measured.is_gray and not self.n_gray,
            "in color, where fitted images are gray": not measured.is_gray and self.n_gray == self.n_images,
            "much darker": measured.brightest < self.min_brightest - _BRIGHTNESS_MARGIN,
            "much brighter": measured.darkest > self.max_darkest + _BRIGHTNESS_MARGIN,
            "more blurred": measured.edge_width > _BLUR_FACTOR * self.max_edge_width + _BLUR_MARGIN,
        }
        return [text for text, differs in tests.items() if differs]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ImageConditions":
        """Return the conditions that `to_dict` was called on."""
        return cls(**{field.name: data[field.name] for field in fields(cls)})


class ConditionComparison:
    """Counts how new images differ from those that something was fitted on.

    Parameters
    ----------
    conditions : ImageConditions or None
        Of the fitted images; None where they are not known.
    """

    def __init__(self, conditions: ImageConditions | None) -> None:
        self._conditions = conditions
        self._counts: dict[str, int] = {}
        self._n_images = 0

    def add(self, width: int, height: int, jpeg: bytes | None) -> None:
        """Compare an image by its size and thumbnail."""
        self._n_images += 1
        if self._conditions is None or jpeg is None:
            return
        for text in self._conditions.differences(width, height, jpeg):
            self._counts[text] = self._counts.get(text, 0) + 1

    @property
    def notes(self) -> list[str]:
        """What differs, the most frequent first."""
        ordered = sorted(self._counts.items(), key=lambda pair: -pair[1])
        return [f"{n:,} of {count(self._n_images, 'image')}: {text}" for text, n in ordered]
