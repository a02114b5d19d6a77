"""Under which conditions the good images were taken: size, channels, compression."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from nearsight.errors import ImageError
from nearsight.images.compression import LOSSLESS, jpeg_quality

# An image is stretched to the shape of the good ones by at most this factor.
_MOST_STRETCH = 1.05
# An image of less than this share of their sides lacks details that good images show.
_LEAST_SIDE = 0.5
# Heavier compression than this many points of quality is told.
_QUALITY_MARGIN = 10


@dataclass(frozen=True, slots=True)
class Capture:
    """How one image was stored.

    Attributes
    ----------
    width, height : int
        In pixels, upright.
    gray : bool
        Whether all three channels are equal.
    quality : int
        Of a JPEG, 1 to 100; 100 for any other format.
    """

    width: int
    height: int
    gray: bool
    quality: int

    @classmethod
    def of(cls, image: Image.Image, data: Any) -> "Capture":
        """Return how a decoded image was stored.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB.
        data : bytes or InMemoryImage
            What it was decoded from.
        """
        pixels = np.asarray(image)
        gray = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
        return cls(image.width, image.height, gray, jpeg_quality(data))


@dataclass(slots=True)
class Conditions:
    """The size, channels and compression of the good images, and what is done with an image of others.

    Attributes
    ----------
    n_images, n_gray : int
    min_width, max_width, min_height, max_height : int
    min_aspect, max_aspect : float
        Width over height.
    min_area, max_area : int
    min_quality : int
        The heaviest compression.
    """

    n_images: int = 0
    n_gray: int = 0
    min_width: int = 0
    max_width: int = 0
    min_height: int = 0
    max_height: int = 0
    min_aspect: float = 0.0
    max_aspect: float = 0.0
    min_area: int = 0
    max_area: int = 0
    min_quality: int = LOSSLESS

    def add(self, capture: Capture) -> None:
        """Add a good image."""
        values = {
            "width": capture.width,
            "height": capture.height,
            "aspect": capture.width / capture.height,
            "area": capture.width * capture.height,
        }
        for name, value in values.items():
            low, high = f"min_{name}", f"max_{name}"
            setattr(self, low, min(getattr(self, low), value) if self.n_images else value)
            setattr(self, high, max(getattr(self, high), value))
        self.min_quality = min(self.min_quality, capture.quality)
        self.n_images += 1
        self.n_gray += capture.gray

    def adapted(self, image: Image.Image, capture: Capture, path: str) -> tuple[Image.Image, tuple[str, ...]]:
        """Return an image under the conditions of the good ones, and what was changed.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB.
        capture : Capture
        path : str
            Name for errors.

        Raises
        ------
        ImageError
            The image cannot be compared with the good ones; the message says why.
        """
        if not self.n_images:
            return image, ()
        notes = []
        size = self._size(capture, path)
        if size != image.size:
            notes.append(f"resampled from {image.width}×{image.height} to {size[0]}×{size[1]} pixels")
            image = image.resize(size, Image.Resampling.LANCZOS)
        if capture.gray and not self.n_gray:
            raise ImageError(path, "is gray, and the good images are in color; fit a detector on gray images")
        if not capture.gray and self.n_gray == self.n_images:
            notes.append("converted to gray, as the good images are")
            image = image.convert("L").convert("RGB")
        if capture.quality < self.min_quality - _QUALITY_MARGIN:
            good = f"{self.min_quality} or more" if self.min_quality < LOSSLESS else "without loss"
            notes.append(
                f"its JPEG quality is about {capture.quality}, that of the good images {good}: artifacts may"
                " count as defects"
            )
        return image, tuple(notes)

    def _size(self, capture: Capture, path: str) -> tuple[int, int]:
        """Return the width and height at which an image is compared."""
        width, height = capture.width, capture.height
        aspect = width / height
        good = f"{self.min_width}×{self.min_height}"
        if (self.min_width, self.min_height) != (self.max_width, self.max_height):
            good += f" to {self.max_width}×{self.max_height}"
        allowed = min(max(aspect, self.min_aspect), self.max_aspect)
        if max(aspect / allowed, allowed / aspect) > _MOST_STRETCH:
            raise ImageError(
                path,
                f"is {width}×{height} pixels, another shape than the good images ({good}); crop it to the"
                " same view, or fit a detector on images of this shape",
            )
        area = width * height
        if area < _LEAST_SIDE**2 * self.min_area:
            raise ImageError(
                path,
                f"is {width}×{height} pixels, and the good images have {good}: it lacks their details; give"
                " it at their size, or fit a detector on images of this size",
            )
        if self.min_width == self.max_width and self.min_height == self.max_height:
            return self.max_width, self.max_height
        factor = math.sqrt(min(max(area, self.min_area), self.max_area) / area)
        stretch = math.sqrt(allowed / aspect)
        return max(1, round(width * factor * stretch)), max(1, round(height * factor / stretch))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Conditions":
        """Return the conditions that `to_dict` was called on."""
        return cls(**{field.name: data[field.name] for field in fields(cls)})
