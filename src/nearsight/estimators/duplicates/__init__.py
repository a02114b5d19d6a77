"""Near-duplicate rows, and the row to keep of each group."""

from nearsight.estimators.duplicates.estimator import NearDuplicates, PairVerifier

__all__ = ["NearDuplicates", "PairVerifier"]
