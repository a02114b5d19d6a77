"""What is unlike the good examples: whole vectors, places of feature maps, and both together."""

from nearsight.tasks.anomaly.coreset import Coreset, k_center
from nearsight.tasks.anomaly.levels import Scale, combined
from nearsight.tasks.anomaly.multilevel import Assessment, Level, MultiLevelAnomaly
from nearsight.tasks.anomaly.outlying import outlyingness
from nearsight.tasks.anomaly.patches import PatchMemory
from nearsight.tasks.anomaly.vectors import VectorAnomaly

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
