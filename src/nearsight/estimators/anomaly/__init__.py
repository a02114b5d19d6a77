"""Anomalies: vectors, positions of feature maps, or both that are unlike those of good examples."""

from nearsight.estimators.anomaly.coreset import Coreset, k_center
from nearsight.estimators.anomaly.detector import Level, LevelScores, MultiLevelAnomaly
from nearsight.estimators.anomaly.knn_distance import knn_distances
from nearsight.estimators.anomaly.mahalanobis import VectorAnomaly
from nearsight.estimators.anomaly.patch_memory import PatchMemory
from nearsight.estimators.anomaly.position_scale import PositionScale
from nearsight.estimators.anomaly.score_fusion import ScoreScale, combine_scores

__all__ = [
    "Coreset",
    "Level",
    "LevelScores",
    "MultiLevelAnomaly",
    "PatchMemory",
    "PositionScale",
    "ScoreScale",
    "VectorAnomaly",
    "combine_scores",
    "k_center",
    "knn_distances",
]
