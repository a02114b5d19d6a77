"""What is unlike the good examples: whole vectors, places of feature maps, and both together."""

from nearsight.estimators.anomaly.coreset import Coreset, k_center
from nearsight.estimators.anomaly.detector import Assessment, Level, MultiLevelAnomaly
from nearsight.estimators.anomaly.knn_distance import outlyingness
from nearsight.estimators.anomaly.mahalanobis import VectorAnomaly
from nearsight.estimators.anomaly.patch_memory import PatchMemory
from nearsight.estimators.anomaly.score_fusion import Scale, combined

__all__ = [
    "Assessment",
    "Coreset",
    "Level",
    "MultiLevelAnomaly",
    "PatchMemory",
    "Scale",
    "VectorAnomaly",
    "combined",
    "k_center",
    "outlyingness",
]
