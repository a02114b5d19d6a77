"""Faces: what finds them, what compares them, and how they get from the one to the other."""

from nearsight.faces.models.alignment import chip, similarity_transform
from nearsight.faces.models.base import (
    LANDMARKS,
    DetectorSpec,
    FaceDetector,
    FaceRecognizer,
    FoundFace,
)
from nearsight.faces.models.face_quality import POOR, FaceQuality, quality_of
from nearsight.faces.models.multiscale import SCAN_VERSION, detect
from nearsight.faces.models.registry import (
    DEFAULT_DETECTOR,
    DEFAULT_RECOGNIZER,
    is_restricted,
    load_detector,
    load_recognizer,
)
from nearsight.faces.models.weights import INSTALL, is_available

__all__ = [
    "DEFAULT_DETECTOR",
    "DEFAULT_RECOGNIZER",
    "INSTALL",
    "LANDMARKS",
    "POOR",
    "SCAN_VERSION",
    "DetectorSpec",
    "FaceDetector",
    "FaceQuality",
    "FaceRecognizer",
    "FoundFace",
    "chip",
    "detect",
    "is_available",
    "is_restricted",
    "load_detector",
    "load_recognizer",
    "quality_of",
    "similarity_transform",
]
