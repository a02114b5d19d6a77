"""Inspects pictures: a detector that has seen good ones only, its file, and pictures of what it found."""

from nearsight.inspection.detector import AnomalyDetector, Inspection
from nearsight.inspection.drawing import draw

__all__ = ["AnomalyDetector", "Inspection", "draw"]
