"""Estimates what a collection will take: machines, hours, memory, disk and money."""

from nearsight.planning.estimate import Line, Needs, estimate
from nearsight.planning.measure import Sample, measure

__all__ = ["Line", "Needs", "Sample", "estimate", "measure"]
