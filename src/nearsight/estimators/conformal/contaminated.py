"""Thresholds from good examples among which lie others, unnamed."""

import math
from dataclasses import replace

from numpy.typing import ArrayLike
from scipy import optimize

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.conformal.calibration import threshold_of
from nearsight.estimators.conformal.threshold import Threshold, check_rate, finite_scores


def from_mixed(
    scores: ArrayLike,
    *,
    false_alarm_rate: float,
    surely: float,
    fading: float = 0.3,
    highest: float = 1.0,
    confidence: float | None = None,
) -> Threshold:
    """Learn a threshold from good examples among which lie others, unnamed, that score high.

    *Method*: as in `from_good`, on the examples below `surely`. Good ones above it are left out with the
    others, so the rate they make up (`unseen_alarms`) is taken off the stated one first. Others below it
    push the threshold up: alarms get rarer, and less is found.

    Parameters
    ----------
    scores : array of shape (n,), float
        Higher is more alarming.
    false_alarm_rate : float
        In (0, 1): the share of good examples that may raise an alarm.
    surely : float
        What is no good example mostly scores that, or more.
    fading, highest : float
        See `unseen_alarms`.
    confidence : float, optional
        See `required_examples`.

    Raises
    ------
    CalibrationError
        There are too few examples for that rate; or too many may be good that score `surely` or more, so
        that nothing tells them from the others. Also where a score is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> good, others = rng.exponential(0.05, 990), rng.uniform(0.7, 1, 10)
    >>> round(from_mixed([*good, *others], false_alarm_rate=0.01, surely=0.7).value, 2)
    0.24
    >>> from_mixed(rng.uniform(size=1000), false_alarm_rate=0.01, surely=0.7)
    Traceback (most recent call last):
    nearsight.errors.CalibrationError: a false-alarm rate of 0.01 cannot be promised: going by 266 examples \
that score 0.4 to 0.7, some 27.3 % of the good ones score more, where they pass for what an alarm is meant \
for. Give examples that are known to be good, or ask for a rate of at least 0.2739
    """
    values = finite_scores(scores, "scores")
    check_rate("false_alarm_rate", false_alarm_rate)
    below = values[values < surely]
    unseen = unseen_alarms(below, surely, surely=surely, fading=fading, highest=highest)
    share = unseen / max(len(below) + unseen, 1)
    if share >= false_alarm_rate:
        n = int((below >= surely - fading).sum())
        # Rounded up, with room for one of those that are seen, so that asking for it succeeds.
        best = math.ceil((share + (1 - share) / (len(below) + 1)) * 1e4) / 1e4
        way = f", or ask for a rate of at least {best:g}" if best < 1 else ""
        hidden = f"{100 * share:.1f} %"
        raise CalibrationError(
            f"a false-alarm rate of {false_alarm_rate:g} cannot be promised: going by {n:,} examples that"
            f" score {surely - fading:g} to {surely:g}, some {hidden} of the good ones score more, where"
            f" they pass for what an alarm is meant for. Give examples that are known to be good{way}"
        )
    each = (false_alarm_rate - share) / (1 - share)
    found = threshold_of(below, each, each, confidence, "good", "good examples")
    expected = share + (1 - share) * found.expected_rate
    return replace(found, false_alarm_rate=false_alarm_rate, expected_rate=expected)


def unseen_alarms(
    scores: ArrayLike, at: float, *, surely: float, fading: float = 0.3, highest: float = 1.0
) -> float:
    """Return how many good examples probably score `at` or more, by how many of them score below `surely`.

    *Method*: peaks over a threshold with an exponential tail (Davison and Smith 1990,
    https://doi.org/10.1111/j.2517-6161.1990.tb01796.x, section 2, shape 0), fitted by maximum likelihood to
    what lies between ``surely - fading`` and `surely`, as truncated there; a tail that falls faster is
    overrated, and one that rises is taken for a level one. Others that score so low make the tail flatter:
    the number is too high rather than too low. It cannot know of good examples whose scores leave a gap
    below `surely`.

    Parameters
    ----------
    scores : array of shape (n,), float
        Those of `surely` or more have no say.
    at : float
        Up to `highest`. Below ``surely - fading``, those that score less than that are counted.
    surely : float
        What is no good example mostly scores that, or more.
    fading : float, default 0.3
        How far below `surely` the fit begins.
    highest : float, default 1
        The highest score there can be.

    Returns
    -------
    float
        0 or more; 0 where nothing lies between.

    Raises
    ------
    InvalidParameterError
        `fading` is not above 0, or `surely` is not below `highest`.

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.random.default_rng(0).exponential(0.1, 10_000)
    >>> round(unseen_alarms(scores, 0.7, surely=0.7)), int((scores >= 0.7).sum())
    (8, 7)
    """
    if not (fading > 0 and surely < highest):
        raise InvalidParameterError(
            f"surely is {surely}, fading {fading}, highest {highest}; fading must be above 0, and surely be"
            " below the highest score there can be"
        )
    values, start = finite_scores(scores, "scores"), surely - fading
    n_before = int(((values >= at) & (values < start)).sum())
    over = values[(values >= start) & (values < surely)] - start
    if not len(over):
        return n_before
    decay = _decay(float(over.mean()), fading)

    def mass(low: float, high: float) -> float:
        return math.exp(-decay * low) * -math.expm1(-decay * (high - low)) if decay else high - low

    return n_before + len(over) * mass(max(0.0, at - start), highest - start) / mass(0, fading)


def _decay(mean: float, width: float) -> float:
    """Return how fast an exponential density falls whose mean, cut off at `width`, is that; 0 or more."""
    # From 0 up to it, the mean of a level density is half of the width.
    if mean >= width * (0.5 - 1e-4):
        return 0.0
    steepest = 500 / width
    if mean <= 1 / steepest:
        return steepest
    # The mean falls as the decay grows, and is below 1 / decay.
    return float(
        optimize.brentq(lambda d: 1 / d - width / math.expm1(d * width) - mean, 1e-3 / width, 1 / mean)
    )
