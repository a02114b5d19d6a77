"""Anomaly detection in images: a detector fitted on good images, its file, and drawings of its results."""

from nearsight.anomaly.detector import AnomalyDetector, AnomalyResult
from nearsight.anomaly.heatmap import draw

__all__ = ["AnomalyDetector", "AnomalyResult", "draw"]
