"""Thresholds that keep a stated false-alarm rate, calibrated on the user's own data.

Scores run one way here: higher is more alarming. For "this is a defect" or "this is none of the known
classes" the score is a distance; for "these two are the same" it is a similarity.

Every threshold rests on one fact (Vovk et al. 2005, chapter 2; Angelopoulos and Bates 2021, arXiv
2107.07511, section 1): if n + 1 scores are exchangeable, the last one is among the k largest with
probability at most k / (n + 1). The distribution of the scores does not matter. The examples must be like
the data to come, and independent of each other: images of one series count as fewer than they are.
"""

from nearsight.estimators.conformal.calibration import (
    from_good,
    from_labeled_pairs,
    from_nonmatching_pairs,
    p_values,
    required_examples,
)
from nearsight.estimators.conformal.contaminated import expected_exceedances, from_contaminated
from nearsight.estimators.conformal.mondrian import group_thresholds
from nearsight.estimators.conformal.rates import RateEstimate, rate_above
from nearsight.estimators.conformal.tail import discoveries, tail_alarms, tail_p_values
from nearsight.estimators.conformal.threshold import Threshold

__all__ = [
    "RateEstimate",
    "Threshold",
    "discoveries",
    "expected_exceedances",
    "from_contaminated",
    "from_good",
    "from_labeled_pairs",
    "from_nonmatching_pairs",
    "group_thresholds",
    "p_values",
    "rate_above",
    "required_examples",
    "tail_alarms",
    "tail_p_values",
]
