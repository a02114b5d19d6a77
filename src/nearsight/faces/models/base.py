"""What a face detector and a face recognizer are, whatever network is behind them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nearsight.models.spec import ModelSpec

#: The order of a face's five points, as seen in the image.
LANDMARKS = ("left eye", "right eye", "nose", "left corner of the mouth", "right corner of the mouth")


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """Facts about a face detector.

    Attributes
    ----------
    id : str
        The name it is asked for by.
    layout : str
        How its outputs are read: ``centerface``, ``scrfd`` or ``yunet``.
    weights_sha256 : str
        Hash of the file as published.
    license, source : str
        For people: on what terms, and where from.
    size_bytes : int
    """

    id: str
    layout: str
    weights_sha256: str
    license: str = "unknown"
    source: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a detector found in one raster, not yet freed of doubles.

    Attributes
    ----------
    boxes : ndarray of shape (n, 4), float32
        Left, top, right, bottom in pixels of the raster; they may reach outside.
    landmarks : ndarray of shape (n, 5, 2), float32
        x and y in pixels, in the order of `LANDMARKS`.
    scores : ndarray of shape (n,), float32
        Confidence in 0..1.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Candidates":
        """Return some of them."""
        return Candidates(self.boxes[rows], self.landmarks[rows], self.scores[rows])

    def moved(self, scale: tuple[float, float], offset: tuple[float, float]) -> "Candidates":
        """Return them in other pixels: multiplied by (x, y) `scale`, then shifted by (x, y) `offset`."""
        by, to = np.array(scale, np.float32), np.array(offset, np.float32)
        return Candidates(self.boxes * np.tile(by, 2) + np.tile(to, 2), self.landmarks * by + to, self.scores)

    @classmethod
    def joined(cls, parts: Sequence["Candidates"]) -> "Candidates":
        """Return several as one; none at all of nothing."""
        return cls(
            np.concatenate([np.empty((0, 4), np.float32), *(part.boxes for part in parts)]),
            np.concatenate([np.empty((0, 5, 2), np.float32), *(part.landmarks for part in parts)]),
            np.concatenate([np.empty(0, np.float32), *(part.scores for part in parts)]),
        )


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A face found in an image.

    Attributes
    ----------
    box : tuple of float
        Left, top, right, bottom in pixels of the full upright image, within it.
    landmarks : ndarray of shape (5, 2), float32
        x and y in the same pixels, in the order of `LANDMARKS`; they may lie outside.
    confidence : float
        In 0..1.
    """

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32]
    confidence: float

    @property
    def side_px(self) -> float:
        """The square root of the box's area, in pixels."""
        left, top, right, bottom = self.box
        return math.sqrt(max(0.0, right - left) * max(0.0, bottom - top))


@runtime_checkable
class FaceDetector(Protocol):
    """Finds faces in a raster of pixels; from several threads at once."""

    @property
    def spec(self) -> DetectorSpec:
        """The model's facts."""
        ...

    @property
    def input_px(self) -> tuple[int, int] | None:
        """Height and width of the only raster it takes; None where any multiple of 32 will do."""
        ...

    def find(self, pixels: NDArray[np.uint8]) -> Candidates:
        """Return what it sees in an RGB raster of shape (H, W, 3), weak candidates included."""
        ...


@runtime_checkable
class FaceRecognizer(Protocol):
    """Turns aligned faces into vectors; from several threads at once."""

    @property
    def spec(self) -> ModelSpec:
        """The model's facts; its fingerprint says which vectors can be compared."""
        ...

    @property
    def template(self) -> NDArray[np.float32]:
        """Where the five landmarks come to lie in an aligned face, (5, 2), in pixels of its input."""
        ...

    @property
    def weights(self) -> NDArray[np.float32]:
        """How much each landmark counts in bringing a face to the template, (5,)."""
        ...

    def embed(self, chips: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the (n, dim) unit vectors of aligned RGB faces of shape (H, W, 3)."""
        ...
