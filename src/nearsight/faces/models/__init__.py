"""Face detectors, face recognizers, and the alignment and quality of faces between them."""

from nearsight.faces.models.alignment import chip, similarity_transform
from nearsight.faces.models.base import (
    LANDMARKS,
    DetectedFace,
    DetectorSpec,
    FaceDetector,
    FaceRecognizer,
)
from nearsight.faces.models.face_quality import POOR, FaceQuality, assess_quality
from nearsight.faces.models.multiscale import MIN_CONFIDENCE, SCAN_VERSION, detect
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
    "MIN_CONFIDENCE",
    "POOR",
    "SCAN_VERSION",
    "DetectedFace",
    "DetectorSpec",
    "FaceDetector",
    "FaceQuality",
    "FaceRecognizer",
    "assess_quality",
    "chip",
    "detect",
    "is_available",
    "is_restricted",
    "load_detector",
    "load_recognizer",
    "similarity_transform",
]
