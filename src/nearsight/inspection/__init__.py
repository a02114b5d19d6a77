"""Inspects pictures: a detector that has seen good ones only, its file, and pictures of what it found."""

from nearsight.inspection.detector import AnomalyDetector, Inspection

__all__ = ["AnomalyDetector", "Inspection"]
