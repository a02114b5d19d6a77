"""Thresholds from good examples that are mixed with unlabeled bad ones."""

import math
from dataclasses import replace

import scipy
from numpy.typing import ArrayLike

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.conformal.calibration import rank_threshold
from nearsight.estimators.conformal.threshold import Threshold, check_rate, finite_scores


def from_contaminated(
    scores: ArrayLike,
    *,
    false_alarm_rate: float,
    certain_score: float,
    tail_width: float = 0.3,
    max_score: float = 1.0,
    confidence: float | None = None,
) -> Threshold:
    """Calibrate a threshold on good examples among which are unlabeled bad ones that score high.

    *Method*: as `from_good`, on the examples below `certain_score`. This drops the bad examples, and a few
    good ones with them. The share of those is estimated (`expected_exceedances`) and subtracted from the
    stated rate first. Bad examples below `certain_score` push the threshold up: alarms and detections both
    get rarer.

    Parameters
    ----------
    scores : array of shape (n,), float
        Higher is more alarming.
    false_alarm_rate : float
        In (0, 1): the share of good examples that may raise an alarm.
    certain_score : float
        Most bad examples score this or more.
    tail_width, max_score : float
        See `expected_exceedances`.
    confidence : float, optional
        See `required_examples`.

    Raises
    ------
    CalibrationError
        There are too few examples for the rate; or too many good ones may score `certain_score` or more, so
        that they cannot be told from bad ones; or a score is NaN or infinite. The remedy is examples that are
        known to be good, or a higher rate.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> good, bad = rng.exponential(0.05, 990), rng.uniform(0.7, 1, 10)
    >>> round(from_contaminated([*good, *bad], false_alarm_rate=0.01, certain_score=0.7).value, 2)
    0.24
    >>> from_contaminated(rng.uniform(size=1000), false_alarm_rate=0.01, certain_score=0.7)
    Traceback (most recent call last):
    nearsight.errors.CalibrationError: a false-alarm rate of 0.01 cannot be kept: 266 examples score 0.4 to \
0.7, so an estimated 27.3 % of the good ones score more and cannot be told from bad ones. Give examples that \
are known to be good, or ask for a rate of at least 0.2739
    """
    values = finite_scores(scores, "scores")
    check_rate("false_alarm_rate", false_alarm_rate)
    below = values[values < certain_score]
    n_dropped = expected_exceedances(
        below, certain_score, certain_score=certain_score, tail_width=tail_width, max_score=max_score
    )
    dropped_share = n_dropped / max(len(below) + n_dropped, 1)
    if dropped_share >= false_alarm_rate:
        tail_start = certain_score - tail_width
        # Rounded up, with room for one of the examples below, so that asking for it succeeds.
        best = math.ceil((dropped_share + (1 - dropped_share) / (len(below) + 1)) * 1e4) / 1e4
        raise CalibrationError(
            f"a false-alarm rate of {false_alarm_rate:g} cannot be kept: {int((below >= tail_start).sum()):,}"
            f" examples score {tail_start:g} to {certain_score:g}, so an estimated"
            f" {100 * dropped_share:.1f} % of the good ones score more and cannot be told from bad ones. Give"
            " examples that are known to be good"
            + (f", or ask for a rate of at least {best:g}" if best < 1 else "")
        )
    rate_below = (false_alarm_rate - dropped_share) / (1 - dropped_share)
    threshold = rank_threshold(below, rate_below, rate_below, confidence, "good", "good examples")
    expected_rate = dropped_share + (1 - dropped_share) * threshold.expected_rate
    return replace(threshold, false_alarm_rate=false_alarm_rate, expected_rate=expected_rate)


def expected_exceedances(
    scores: ArrayLike, at: float, *, certain_score: float, tail_width: float = 0.3, max_score: float = 1.0
) -> float:
    """Return the expected number of good examples that score `at` or more, from those below `certain_score`.

    *Method*: peaks over a threshold with an exponential tail (Davison and Smith 1990,
    https://doi.org/10.1111/j.2517-6161.1990.tb01796.x, section 2, shape 0), fitted by maximum likelihood to
    the scores between ``certain_score - tail_width`` and `certain_score`, as a truncated sample. The estimate
    is too high where the tail falls faster, or where bad examples are among the scores that are fitted; a
    rising tail is taken for a level one. Good examples beyond a gap below `certain_score` are missed.

    Parameters
    ----------
    scores : array of shape (n,), float
        Scores of `certain_score` or more are ignored.
    at : float
        At most `max_score`. Below ``certain_score - tail_width``, the scores between are counted.
    certain_score : float
        Most bad examples score this or more.
    tail_width : float, default 0.3
        How far below `certain_score` the fit begins; more than 0.
    max_score : float, default 1
        The highest possible score; more than `certain_score`.

    Returns
    -------
    float
        At least 0; 0 where no score lies in the tail.

    Raises
    ------
    InvalidParameterError
        `tail_width` is not above 0, or `certain_score` is not below `max_score`.

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.random.default_rng(0).exponential(0.1, 10_000)
    >>> round(expected_exceedances(scores, 0.7, certain_score=0.7)), int((scores >= 0.7).sum())
    (8, 7)
    """
    if not (tail_width > 0 and certain_score < max_score):
        raise InvalidParameterError(
            f"certain_score is {certain_score}, tail_width {tail_width}, max_score {max_score}; tail_width"
            " must be above 0, and certain_score below max_score"
        )
    values, tail_start = finite_scores(scores, "scores"), certain_score - tail_width
    n_before_tail = int(((values >= at) & (values < tail_start)).sum())
    tail = values[(values >= tail_start) & (values < certain_score)] - tail_start
    if not len(tail):
        return n_before_tail
    decay = _exponential_decay(float(tail.mean()), tail_width)

    def mass(low: float, high: float) -> float:
        return math.exp(-decay * low) * -math.expm1(-decay * (high - low)) if decay else high - low

    share = mass(max(0.0, at - tail_start), max_score - tail_start) / mass(0, tail_width)
    return n_before_tail + len(tail) * share


def _exponential_decay(mean: float, width: float) -> float:
    """Return the decay, at least 0, of the exponential density on 0..`width` that has this mean."""
    # A level density has its mean at half of the width.
    if mean >= width * (0.5 - 1e-4):
        return 0.0
    steepest = 500 / width
    if mean <= 1 / steepest:
        return steepest
    # The mean falls as the decay grows, and is below 1 / decay.
    return float(
        scipy.optimize.brentq(lambda d: 1 / d - width / math.expm1(d * width) - mean, 1e-3 / width, 1 / mean)
    )
