"""Thresholds for a stated rate of false alarms, learned from the user's own data.

Scores run one way here: higher is more alarming. For "this is a defect" or "this is none of the known
classes" that is a distance; for "these two are the same" it is a similarity.

Every threshold rests on one fact (Vovk et al. 2005, chapter 2; Angelopoulos and Bates 2021, arXiv
2107.07511, section 1): of n + 1 scores that could have come in any order, the last is among the k largest
with a chance of at most k / (n + 1). Nothing is assumed about how scores are distributed. What is assumed
is that the examples are like what will come, and do not depend on each other: images of one series count
as fewer than they are.
"""

from nearsight.estimators.conformal.calibration import (
    from_background,
    from_good,
    from_pairs,
    p_values,
    required_examples,
)
from nearsight.estimators.conformal.contaminated import from_mixed, unseen_alarms
from nearsight.estimators.conformal.threshold import Threshold

__all__ = [
    "Threshold",
    "from_background",
    "from_good",
    "from_mixed",
    "from_pairs",
    "p_values",
    "required_examples",
    "unseen_alarms",
]
