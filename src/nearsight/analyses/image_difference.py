"""Two duplicates, how their frames lie to each other, and in what they differ."""

from dataclasses import dataclass

import numpy as np

from nearsight.collection import Item
from nearsight.images.quality import ImageQuality

#: Ratio of sides beyond which two images have different sizes.
SIZE_RATIO = 1.12
#: Share of an image beyond the edges of the other that is not an error of the alignment.
MIN_OUTSIDE = 0.03


@dataclass(frozen=True, slots=True)
class Framing:
    """How the frames of two aligned images lie to each other.

    Attributes
    ----------
    area : float
        The share of the second's area that the first covers, by the alignment; above 1 if the first shows
        more.
    outside : tuple of float
        The share of the first beyond the edges of the second, and of the second beyond those of the first.
    detail : tuple of float
        How strong edges are there, in parts of those inside.
    degrees : float
        Turn off the nearest quarter, 0 to 45.
    is_turned : bool
        Whether one is turned by a quarter or mirrored.
    """

    area: float = 1.0
    outside: tuple[float, float] = (0.0, 0.0)
    detail: tuple[float, float] = (0.0, 0.0)
    degrees: float = 0.0
    is_turned: bool = False

    @property
    def is_same(self) -> bool:
        """Whether both show the same part."""
        return max(self.outside) < MIN_OUTSIDE and self.degrees < 1.5

    def swapped(self) -> "Framing":
        """Return the framing of the same images in the other order."""
        return Framing(1 / self.area, self.outside[::-1], self.detail[::-1], self.degrees, self.is_turned)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image with what is known of it."""

    item: Item
    quality: ImageQuality | None
    has_overlay: bool = False


@dataclass(frozen=True, slots=True)
class ImageDifference:
    """In what two images differ.

    Attributes
    ----------
    sign : int
        1 if the first is better, -1 if the second is; 0 if nobody can say.
    advantage : str
        What speaks for the better one.
    doubt : str
        What speaks against deleting it, if it is not the one to keep; of sign 0, against deleting either.
    """

    sign: int
    advantage: str
    doubt: str


def side_ratio(a: ImageQuality, b: ImageQuality, framing: Framing) -> float:
    """Return the pixels of the second image along what is one pixel of the first."""
    return float(np.sqrt(b.width * b.height * framing.area / (a.width * a.height)))


def sign_of(is_first: bool) -> int:
    """Return the sign of a difference that speaks for the first image, or for the second."""
    return 1 if is_first else -1
