"""Interfaces of face detectors and face recognizers."""

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
        The name that loads it.
    layout : str
        Layout of its outputs: ``centerface``, ``scrfd`` or ``yunet``.
    weights_sha256 : str
        Hash of the published file.
    license, source : str
        License of the weights, and their address.
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
    """The detections in one raster, before non-maximum suppression.

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
        """Return the detections of some rows."""
        return Candidates(self.boxes[rows], self.landmarks[rows], self.scores[rows])

    def moved(self, scale: tuple[float, float], offset: tuple[float, float]) -> "Candidates":
        """Return them in other pixels: times `scale` (x, y), plus `offset` (x, y)."""
        by, to = np.array(scale, np.float32), np.array(offset, np.float32)
        return Candidates(self.boxes * np.tile(by, 2) + np.tile(to, 2), self.landmarks * by + to, self.scores)

    @classmethod
    def joined(cls, parts: Sequence["Candidates"]) -> "Candidates":
        """Return the detections of all parts."""
        return cls(
            np.concatenate([np.empty((0, 4), np.float32), *(part.boxes for part in parts)]),
            np.concatenate([np.empty((0, 5, 2), np.float32), *(part.landmarks for part in parts)]),
            np.concatenate([np.empty(0, np.float32), *(part.scores for part in parts)]),
        )


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """A face detected in an image.

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
    """Detect faces in a raster of pixels; threads may share it."""

    @property
    def spec(self) -> DetectorSpec:
        """The model's facts."""
        ...

    @property
    def input_px(self) -> tuple[int, int] | None:
        """Height and width of its input; None if it takes any multiples of 32."""
        ...

    def find(self, pixels: NDArray[np.uint8]) -> Candidates:
        """Detect faces in an RGB raster of shape (H, W, 3), including those of low confidence."""
        ...


@runtime_checkable
class FaceRecognizer(Protocol):
    """Embed aligned faces as vectors; threads may share it."""

    @property
    def spec(self) -> ModelSpec:
        """The model's facts; vectors of equal fingerprints are comparable."""
        ...

    @property
    def template(self) -> NDArray[np.float32]:
        """Positions of the five landmarks in an aligned face, (5, 2), in pixels of its input."""
        ...

    @property
    def weights(self) -> NDArray[np.float32]:
        """Weight of each landmark in the alignment, (5,)."""
        ...

    def embed(self, chips: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the (n, dim) unit vectors of aligned RGB faces of shape (H, W, 3)."""
        ...
