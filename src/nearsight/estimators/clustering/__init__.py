"""Clusters of vectors: as many as the data have, or a stated number; and what describes them."""

from nearsight.estimators.clustering.assigner import ClusterAssigner
from nearsight.estimators.clustering.density import DensityClustering
from nearsight.estimators.clustering.kmeans import GraphKMeans
from nearsight.estimators.clustering.summaries import (
    k_means_parts,
    merge_tree,
    representatives,
    word_distinctiveness,
)

__all__ = [
    "ClusterAssigner",
    "DensityClustering",
    "GraphKMeans",
    "k_means_parts",
    "merge_tree",
    "representatives",
    "word_distinctiveness",
]
