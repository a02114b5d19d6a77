"""Thresholds of their own for groups of examples."""

import numpy as np
from numpy.typing import NDArray

from nearsight.estimators.conformal.calibration import from_good, required_examples

# A group gets a threshold of its own from so many times the required examples. With just enough examples,
# the realized rate would be half of the stated one, since ranks are coarse.
_OWN_THRESHOLD_FACTOR = 10
_MIN_TYPICAL_SCORE = 1e-4


def group_thresholds(
    scores: NDArray[np.float64],
    groups: NDArray[np.int64],
    typical_scores: NDArray[np.float64],
    false_alarm_rate: float,
) -> NDArray[np.float64]:
    """Return a threshold for each of k groups, infinite where there are too few examples to calibrate.

    *Method*: Mondrian conformal prediction (Vovk et al. 2003) for large groups. Smaller groups share one
    threshold, which is calibrated on all scores as multiples of the typical score of their group.

    Parameters
    ----------
    scores : ndarray of shape (n,), float
        Of rows that belong to some group, by a model that they had no part in; higher is more unusual.
    groups : ndarray of shape (n,), int
        The group 0..k-1 that each row was scored by.
    typical_scores : ndarray of shape (k,), float
    false_alarm_rate : float
        In (0, 1): the share of a group's rows that may exceed its threshold.
    """
    n_required = required_examples(false_alarm_rate)
    # Duplicates have typical scores of 0.
    scale = np.maximum(typical_scores, _MIN_TYPICAL_SCORE)
    thresholds = np.full(len(scale), np.inf)
    if len(scores) >= n_required:
        thresholds = scale * from_good(scores / scale[groups], false_alarm_rate=false_alarm_rate).value
    for group in range(len(scale)):
        own_scores = scores[groups == group]
        if len(own_scores) >= _OWN_THRESHOLD_FACTOR * n_required:
            thresholds[group] = from_good(own_scores, false_alarm_rate=false_alarm_rate).value
    return thresholds
