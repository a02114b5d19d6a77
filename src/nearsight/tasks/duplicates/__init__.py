"""Which rows are copies of one another, and which copy to keep."""

from nearsight.tasks.duplicates.estimator import Confirm, NearDuplicates

__all__ = ["Confirm", "NearDuplicates"]
