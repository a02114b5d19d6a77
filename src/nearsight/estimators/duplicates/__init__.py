"""Which rows are copies of one another, and which copy to keep."""

from nearsight.estimators.duplicates.estimator import Confirm, NearDuplicates

__all__ = ["Confirm", "NearDuplicates"]
