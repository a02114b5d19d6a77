"""Faces: what finds them, what compares them, and how they get from the one to the other."""

from nearsight.models.faces.align import chip, similarity_transform
from nearsight.models.faces.named import (
    DEFAULT_DETECTOR,
    DEFAULT_RECOGNISER,
    is_restricted,
    load_detector,
    load_recogniser,
)
from nearsight.models.faces.packaged import INSTALL, is_available
from nearsight.models.faces.protocol import (
    LANDMARKS,
    DetectorSpec,
    FaceDetector,
    FaceRecogniser,
    FoundFace,
)
from nearsight.models.faces.quality import POOR, Quality, quality_of
from nearsight.models.faces.scan import SCAN_VERSION, detect

__all__ = [
    "DEFAULT_DETECTOR",
    "DEFAULT_RECOGNISER",
    "INSTALL",
    "LANDMARKS",
    "POOR",
    "SCAN_VERSION",
    "DetectorSpec",
    "FaceDetector",
    "FaceRecogniser",
    "FoundFace",
    "Quality",
    "chip",
    "detect",
    "is_available",
    "is_restricted",
    "load_detector",
    "load_recogniser",
    "quality_of",
    "similarity_transform",
]
