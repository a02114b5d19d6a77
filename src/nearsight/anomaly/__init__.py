"""Inspects images: a detector that has seen good ones only, its file, and images of what it found."""

from nearsight.anomaly.detector import AnomalyDetector, AnomalyResult
from nearsight.anomaly.heatmap import draw

__all__ = ["AnomalyDetector", "AnomalyResult", "draw"]
