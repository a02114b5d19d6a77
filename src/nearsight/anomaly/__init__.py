"""Inspects pictures: a detector that has seen good ones only, its file, and pictures of what it found."""

from nearsight.anomaly.detector import AnomalyDetector, Inspection
from nearsight.anomaly.heatmap import draw

__all__ = ["AnomalyDetector", "Inspection", "draw"]
