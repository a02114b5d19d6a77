"""Groups of vectors: those that are there, or as many as are asked for; and groups of customers."""

from nearsight.tasks.cluster.density import DensityClusters
from nearsight.tasks.cluster.describe import distinctive, merge_order, representatives
from nearsight.tasks.cluster.members import Members
from nearsight.tasks.cluster.segments import CustomerSegments
from nearsight.tasks.cluster.spherical import SphericalKMeans

__all__ = [
    "CustomerSegments",
    "DensityClusters",
    "Members",
    "SphericalKMeans",
    "distinctive",
    "merge_order",
    "representatives",
]
