"""Groups of vectors: those that are there, or as many as are asked for; and groups of customers."""

from nearsight.estimators.clustering.assigner import Members
from nearsight.estimators.clustering.density import DensityClusters
from nearsight.estimators.clustering.kmeans import SphericalKMeans
from nearsight.estimators.clustering.summaries import distinctive, merge_order, representatives
from nearsight.estimators.customer_segments import CustomerSegments

__all__ = [
    "CustomerSegments",
    "DensityClusters",
    "Members",
    "SphericalKMeans",
    "distinctive",
    "merge_order",
    "representatives",
]
