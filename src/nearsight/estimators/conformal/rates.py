"""The false-alarm rate of any threshold, from the scores of good examples."""

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from nearsight.estimators.conformal.threshold import check_rate, finite_scores


@dataclass(frozen=True, slots=True)
class RateEstimate:
    """How often good examples exceed a threshold.

    Attributes
    ----------
    expected : float
        The share of good examples that is expected above it, at most: a mean over all samples of examples.
    low, high : float
        The interval of the share for this very threshold.
    n_above : int
        Examples above it.
    """

    expected: float
    low: float
    high: float
    n_above: int


def rate_above(good_scores: ArrayLike, value: float, *, confidence: float = 0.95) -> RateEstimate:
    """Return how often a new good example scores above a value.

    *Method*: with m of n examples above the value, the value is at least the (m + 1)-th largest score, which
    a new example exceeds with probability (m + 1) / (n + 1) at most (Vovk et al. 2005, section 4.1). For one
    sample of examples, the share above that score follows Beta(m + 1, n - m) (Vovk 2012, arXiv 1209.2673,
    proposition 2a); the interval holds its quantiles. A threshold of `from_good` gets the rate that it
    states.

    Parameters
    ----------
    good_scores : array of shape (n,), float
        Of good examples that the scoring model was not fitted on; higher is more alarming.
    value : float
    confidence : float, default 0.95
        In (0, 1).

    Raises
    ------
    CalibrationError
        A score is NaN or infinite.

    Examples
    --------
    >>> [round(rate_above(range(19), value).expected, 2) for value in (18, 17, 99, -1)]
    [0.05, 0.1, 0.05, 1.0]
    """
    check_rate("confidence", confidence)
    scores = finite_scores(good_scores, "good_scores")
    n, n_above = len(scores), int(np.count_nonzero(scores > value))
    if n_above == n:
        return RateEstimate(1.0, 0.0, 1.0, n_above)
    low, high = scipy.stats.beta.interval(confidence, n_above + 1, n - n_above)
    return RateEstimate((n_above + 1) / (n + 1), float(low), float(high), n_above)
