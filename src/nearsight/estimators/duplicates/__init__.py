"""Near-duplicate rows, and the row to keep of each group."""

from nearsight.estimators.duplicates.estimator import NearDuplicates, PairVerifier
from nearsight.estimators.duplicates.proposals import pair_cosines

__all__ = ["NearDuplicates", "PairVerifier", "pair_cosines"]
