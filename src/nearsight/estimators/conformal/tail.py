"""Which of many scores are improbably high among the others."""

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import InvalidParameterError
from nearsight.estimators.conformal.threshold import check_rate, finite_scores

# The spread is that between the median and this quantile, so that fewer outliers than a tenth do not move it.
_QUANTILE = 0.9
_MIN_SCORES = 30


def tail_p_values(scores: ArrayLike) -> NDArray[np.float64]:
    """Return for each score how probable one as high is, if scores fall off like a normal distribution.

    A rank among the scores themselves cannot be less than 1 / n, so that the highest of any set would look
    alike. Here the upper half of the scores is extrapolated.

    *Method*: upper half of a normal distribution with the median and the 90 % quantile of the scores. A
    heavier tail makes p-values too small. Mean distances to several neighbors of embeddings fall off faster.

    Parameters
    ----------
    scores : array of shape (n,), float
        Higher is more alarming.

    Returns
    -------
    ndarray of shape (n,), float64
        In 0..1. All 1 for fewer than 30 scores, which say nothing about a tail.

    Examples
    --------
    >>> import numpy as np
    >>> p = tail_p_values([*np.random.default_rng(0).normal(size=500), 6.0])
    >>> bool(p[-1] < 1e-6), bool(0.4 < np.median(p) < 0.6)
    (True, True)
    """
    values = finite_scores(scores, "scores")
    if len(values) < _MIN_SCORES:
        return np.ones(len(values))
    middle, high = np.quantile(values, [0.5, _QUANTILE])
    spread = (high - middle) / scipy.stats.norm.ppf(_QUANTILE)
    if spread <= 0:
        return np.where(values > middle, 0.0, 1.0)
    p: NDArray[np.float64] = scipy.stats.norm.sf((values - middle) / spread)
    return p


def discoveries(p_values: ArrayLike, false_discovery_rate: float) -> NDArray[np.bool_]:
    """Return which of many tests raise an alarm, so that a stated share of the alarms is false.

    *Method*: Benjamini and Hochberg 1995.

    Parameters
    ----------
    p_values : array of shape (n,), float
    false_discovery_rate : float
        In (0, 1): share of the alarms that may be false, on average.

    Raises
    ------
    InvalidParameterError
        A p-value is outside 0..1, or the rate outside (0, 1).

    Examples
    --------
    >>> discoveries([0.001, 0.2, 0.012, 0.9], 0.05).tolist()
    [True, False, True, False]
    """
    check_rate("false_discovery_rate", false_discovery_rate)
    p = np.asarray(p_values, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise InvalidParameterError("p_values must lie in 0..1")
    n = len(p)
    order = np.sort(p)
    passed = np.flatnonzero(order <= false_discovery_rate * np.arange(1, n + 1) / max(n, 1))
    limit = order[passed[-1]] if len(passed) else -1.0
    alarms: NDArray[np.bool_] = p <= limit
    return alarms


def tail_alarms(
    scores: ArrayLike, *, false_discovery_rate: float = 0.1, expected_false_alarms: float = 0.5
) -> NDArray[np.bool_]:
    """Return which scores are improbably high among the others.

    *Method*: `tail_p_values`; those alarm of which so few are expected in a set of this size, and those that
    `discoveries` finds, which is more where many are improbable.

    Parameters
    ----------
    scores : array of shape (n,), float
        Higher is more alarming.
    false_discovery_rate : float, default 0.1
        In (0, 1): share of the alarms that may be false, where there are many.
    expected_false_alarms : float, default 0.5
        Number of false alarms in a set without any outlier.
    """
    p = tail_p_values(scores)
    alarms: NDArray[np.bool_] = discoveries(p, false_discovery_rate) | (p * len(p) <= expected_false_alarms)
    return alarms
