"""Faces: what finds them, what compares them, and how they get from the one to the other."""

from nearsight.faces.models.alignment import chip, similarity_transform
from nearsight.faces.models.base import (
    LANDMARKS,
    DetectorSpec,
    FaceDetector,
    FaceRecogniser,
    FoundFace,
)
from nearsight.faces.models.face_quality import POOR, Quality, quality_of
from nearsight.faces.models.multiscale import SCAN_VERSION, detect
from nearsight.faces.models.registry import (
    DEFAULT_DETECTOR,
    DEFAULT_RECOGNISER,
    is_restricted,
    load_detector,
    load_recogniser,
)
from nearsight.faces.models.weights import INSTALL, is_available

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
