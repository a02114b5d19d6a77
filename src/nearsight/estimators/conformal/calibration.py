"""Thresholds by the rank of a score among those of examples."""

import math
from dataclasses import asdict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.conformal.threshold import Source, Threshold, check_rate, finite_scores


def required_examples(false_alarm_rate: float, *, confidence: float | None = None) -> int:
    """Return how many examples a threshold for that rate needs at least.

    Parameters
    ----------
    false_alarm_rate : float
        In (0, 1).
    confidence : float, optional
        In (0, 1): the chance that the rate holds for the very threshold that is found. Without it, the rate
        holds on average over all the sets of examples that could have been drawn.

    Examples
    --------
    >>> required_examples(0.01), required_examples(0.01, confidence=0.95)
    (99, 299)
    """
    check_rate("false_alarm_rate", false_alarm_rate)
    if confidence is None:
        # One part in a billion, since 1 / 0.01 - 1 must be 99 whatever the last bit says.
        return max(1, math.ceil((1 / false_alarm_rate - 1) * (1 - 1e-9)))
    check_rate("confidence", confidence)
    return max(1, math.ceil(math.log(1 - confidence) / math.log1p(-false_alarm_rate)))


def from_good(scores: ArrayLike, *, false_alarm_rate: float, confidence: float | None = None) -> Threshold:
    """Learn a threshold from examples that are all good.

    *Method*: split conformal prediction with the finite-sample correction (Vovk et al. 2005, section 4.1):
    the k-th largest of n scores, k the whole part of rate x (n + 1). With `confidence`, k is the largest for
    which the rate of alarms, which then follows a Beta(k, n + 1 - k) distribution, is kept with that chance
    (Vovk 2012, arXiv 1209.2673, proposition 2a). Equal scores make alarms rarer, never more frequent.

    Parameters
    ----------
    scores : array of shape (n,), float
        Of good examples that had no part in fitting what gives the scores; higher is more alarming.
    false_alarm_rate : float
        In (0, 1): the share of good examples that may raise an alarm.
    confidence : float, optional
        See `required_examples`.

    Raises
    ------
    CalibrationError
        There are too few examples for that rate; the message says how many are needed, and which rate these
        can promise. Also where a score is NaN or infinite.

    Examples
    --------
    >>> from_good(range(99), false_alarm_rate=0.01).value
    98.0
    >>> from_good(range(50), false_alarm_rate=0.01)
    Traceback (most recent call last):
    nearsight.errors.CalibrationError: a false-alarm rate of 0.01 needs at least 99 good examples; there are \
50, which can promise 0.0197 at best. Give 49 more, or ask for a rate of at least 0.0197
    """
    return threshold_of(
        finite_scores(scores, "scores"),
        false_alarm_rate,
        false_alarm_rate,
        confidence,
        "good",
        "good examples",
    )


def from_pairs(
    scores: ArrayLike, same: ArrayLike, *, false_alarm_rate: float, confidence: float | None = None
) -> Threshold:
    """Learn a threshold from pairs that are known to be the same or not.

    *Method*: as in `from_good`, over the pairs that are not the same. Those that are say how many are found
    (`Threshold.detection_rate`); they do not move the threshold.

    Parameters
    ----------
    scores : array of shape (n,), float
        Similarity of each pair: higher is more alarming, the alarm being "these are the same".
    same : array of shape (n,), bool
    false_alarm_rate : float
        In (0, 1): the share of pairs that are not the same that may be taken for it.
    confidence : float, optional
        See `required_examples`.

    Raises
    ------
    CalibrationError
        Too few pairs that are not the same, or a score that is NaN or infinite.
    InvalidParameterError
        The two arrays are not of one length.
    """
    values, truth = finite_scores(scores, "scores"), np.asarray(same, bool)
    if truth.shape != values.shape:
        raise InvalidParameterError(
            f"scores has shape {values.shape} and same {truth.shape}; give one answer for each pair"
        )
    found = threshold_of(
        values[~truth],
        false_alarm_rate,
        false_alarm_rate,
        confidence,
        "pairs",
        "pairs that are not the same",
    )
    detected = float(found.exceeded(values[truth]).mean()) if truth.any() else None
    return Threshold(**{**asdict(found), "detection_rate": detected})


def from_background(
    scores: ArrayLike,
    *,
    false_alarm_rate: float,
    n_comparisons: float = 1,
    confidence: float | None = None,
    examples: str = "random pairs",
) -> Threshold:
    """Learn a threshold from pairs drawn at random, which are taken not to be the same.

    *Method*: as in `from_good`. Where one question is `n_comparisons` comparisons (the nearest among so
    many), each may go wrong with a chance of 1 - (1 - rate)^(1 / n_comparisons) only, as if they were
    independent (Sidak 1967); where they depend on each other, alarms are rarer. Pairs that are the same
    after all push the threshold up: alarms get rarer, and less is found.

    Parameters
    ----------
    scores : array of shape (n,), float
        Similarities of random pairs.
    false_alarm_rate : float
        In (0, 1): the share of questions whose answer may be a false alarm.
    n_comparisons : float, default 1
        Comparisons that make one question, at least 1.
    confidence : float, optional
        See `required_examples`.
    examples : str, default "random pairs"
        What a refusal calls them.

    Raises
    ------
    CalibrationError
        Too few pairs, or a score that is NaN or infinite.
    """
    if n_comparisons < 1:
        raise InvalidParameterError(f"n_comparisons is {n_comparisons}; it must be at least 1")
    check_rate("false_alarm_rate", false_alarm_rate)
    each = -math.expm1(math.log1p(-false_alarm_rate) / n_comparisons)
    return threshold_of(
        finite_scores(scores, "scores"), false_alarm_rate, each, confidence, "background", examples
    )


def p_values(calibration: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Return the share of examples, the one asked about among them, that are at least as alarming.

    *Method*: conformal p-values (Vovk et al. 2005, section 2.2; Bates et al. 2023, arXiv 2104.08279). Among
    good examples, a p-value of at most p has a chance of at most p.

    Parameters
    ----------
    calibration : array of shape (n,), float
        Scores of good examples; with none, every p-value is 1.
    scores : array of shape (m,), float
        NaN counts as the most alarming score there is.

    Returns
    -------
    ndarray of shape (m,), float64
        In 1 / (n + 1)..1; lower is more alarming. Sorting the examples costs n log n.

    Examples
    --------
    >>> p_values([1.0, 2.0, 3.0], [0.0, 2.5, 9.0]).tolist()
    [1.0, 0.5, 0.25]
    """
    known = np.sort(finite_scores(calibration, "calibration"))
    asked = np.asarray(scores, np.float64)
    # NaN sorts behind everything, infinity included, which is where it belongs.
    above = len(known) - np.searchsorted(known, asked, side="left")
    p: NDArray[np.float64] = (1 + above) / (len(known) + 1)
    return p


def threshold_of(
    scores: NDArray[np.float64],
    stated: float,
    each: float,
    confidence: float | None,
    source: Source,
    noun: str,
) -> Threshold:
    """Learn a threshold for questions that may go wrong at the rate `stated`, their parts at `each`."""
    n, needed = len(scores), required_examples(each, confidence=confidence)
    check_rate("false_alarm_rate", stated)
    if n < needed:
        raise CalibrationError(_refusal(n, needed, stated, each, confidence, noun))
    k = _rank(n, each, confidence)
    value = float(np.partition(scores, n - k)[n - k])
    questions = math.log1p(-stated) / math.log1p(-each)
    expected = -math.expm1(math.log1p(-k / (n + 1)) * questions)
    return Threshold(value, stated, expected, n, source, confidence)


def _rank(n: int, rate: float, confidence: float | None) -> int:
    """Return k, so that the k-th largest of n scores is the threshold."""
    if confidence is None:
        return max(1, math.floor(rate * (n + 1) * (1 + 1e-9)))
    # P(Beta(k, n + 1 - k) <= rate) falls as k grows.
    low, high = 1, n
    while low < high:
        middle = (low + high + 1) // 2
        if stats.beta.cdf(rate, middle, n + 1 - middle) >= confidence:
            low = middle
        else:
            high = middle - 1
    return low


def _refusal(n: int, needed: int, stated: float, each: float, confidence: float | None, noun: str) -> str:
    sure = f", held with {confidence:.0%} confidence," if confidence is not None else ""
    text = f"a false-alarm rate of {stated:g}{sure} needs at least {needed} {noun}; there are {n}"
    if n == 0:
        return f"{text}. Give {needed}"
    best = 1 / (n + 1) if confidence is None else -math.expm1(math.log(1 - confidence) / n)
    questions = math.log1p(-stated) / math.log1p(-each)
    # Rounded up, so that asking for it succeeds.
    best = math.ceil(-math.expm1(math.log1p(-best) * questions) * 1e4) / 1e4
    return (
        f"{text}, which can promise {best:g} at best. Give {needed - n} more, or ask for a rate of at least"
        f" {best:g}"
    )
