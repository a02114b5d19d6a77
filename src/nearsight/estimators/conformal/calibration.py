"""Thresholds by the rank of a score among the scores of examples."""

import math
from dataclasses import replace

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.conformal.threshold import Source, Threshold, check_rate, finite_scores
from nearsight.parameters import require_number


def required_examples(false_alarm_rate: float, *, confidence: float | None = None) -> int:
    """Return the smallest number of examples that can calibrate a threshold for a rate.

    Parameters
    ----------
    false_alarm_rate : float
        In (0, 1).
    confidence : float, optional
        In (0, 1): the probability that the rate holds for this very threshold. Without it, the rate holds on
        average over all samples of examples.

    Examples
    --------
    >>> required_examples(0.01), required_examples(0.01, confidence=0.95)
    (99, 299)
    """
    check_rate("false_alarm_rate", false_alarm_rate)
    if confidence is None:
        # Less one part in a billion: 1 / 0.01 - 1 must give 99 whatever the last bit is.
        return max(1, math.ceil((1 / false_alarm_rate - 1) * (1 - 1e-9)))
    check_rate("confidence", confidence)
    return max(1, math.ceil(math.log(1 - confidence) / math.log1p(-false_alarm_rate)))


def from_good(scores: ArrayLike, *, false_alarm_rate: float, confidence: float | None = None) -> Threshold:
    """Calibrate a threshold on examples that are all good.

    *Method*: split conformal prediction with the finite-sample correction (Vovk et al. 2005, section 4.1):
    the k-th largest of n scores, with k = floor(rate × (n + 1)). With `confidence`, k is the largest number
    for which the false-alarm rate, which follows a Beta(k, n + 1 - k) distribution, stays below the stated
    rate with that probability (Vovk 2012, arXiv 1209.2673, proposition 2a). Ties make alarms rarer.

    Parameters
    ----------
    scores : array of shape (n,), float
        Of good examples that the scoring model was not fitted on; higher is more alarming.
    false_alarm_rate : float
        In (0, 1): the share of good examples that may raise an alarm.
    confidence : float, optional
        See `required_examples`.

    Raises
    ------
    CalibrationError
        There are too few examples for the rate, or a score is NaN or infinite. The message says how many
        examples the rate needs and which rate these examples allow.

    Examples
    --------
    >>> from_good(range(99), false_alarm_rate=0.01).value
    98.0
    >>> from_good(range(50), false_alarm_rate=0.01)
    Traceback (most recent call last):
    nearsight.errors.CalibrationError: a false-alarm rate of 0.01 needs at least 99 good examples; there are \
50, which allow 0.0197 at best. Give 49 more, or ask for a rate of at least 0.0197
    """
    return rank_threshold(
        finite_scores(scores, "scores"),
        false_alarm_rate,
        false_alarm_rate,
        confidence,
        "good",
        "good examples",
    )


def from_labeled_pairs(
    scores: ArrayLike, same: ArrayLike, *, false_alarm_rate: float, confidence: float | None = None
) -> Threshold:
    """Calibrate a threshold on pairs that are labeled as the same or as different.

    *Method*: as `from_good`, on the different pairs. The same pairs measure the detection rate
    (`Threshold.detection_rate`); they do not move the threshold.

    Parameters
    ----------
    scores : array of shape (n,), float
        Similarity of each pair; an alarm means "these are the same".
    same : array of shape (n,), bool
    false_alarm_rate : float
        In (0, 1): the share of different pairs that may be called the same.
    confidence : float, optional
        See `required_examples`.

    Raises
    ------
    CalibrationError
        There are too few different pairs for the rate, or a score is NaN or infinite.
    InvalidParameterError
        The two arrays have different lengths.
    """
    values, is_same = finite_scores(scores, "scores"), np.asarray(same, bool)
    if is_same.shape != values.shape:
        raise InvalidParameterError(
            f"scores has shape {values.shape} and same {is_same.shape}; give one label for each pair"
        )
    threshold = rank_threshold(
        values[~is_same], false_alarm_rate, false_alarm_rate, confidence, "pairs", "different pairs"
    )
    if not is_same.any():
        return threshold
    return replace(threshold, detection_rate=float(threshold.exceeded(values[is_same]).mean()))


def from_nonmatching_pairs(
    scores: ArrayLike,
    *,
    false_alarm_rate: float,
    n_comparisons: float = 1,
    confidence: float | None = None,
    examples: str = "random pairs",
) -> Threshold:
    """Calibrate a threshold on pairs that do not match, or on random pairs, which are taken not to match.

    *Method*: as `from_good`. Where one query makes `n_comparisons` comparisons (the nearest of so many), each
    comparison gets the rate 1 - (1 - rate)^(1 / n_comparisons) (Sidak 1967). This assumes independent
    comparisons; dependent ones raise fewer alarms. Pairs that match after all push the threshold up: alarms
    and detections both get rarer.

    Parameters
    ----------
    scores : array of shape (n,), float
        Similarities of the pairs.
    false_alarm_rate : float
        In (0, 1): the share of queries that may raise a false alarm.
    n_comparisons : float, default 1
        Comparisons per query, at least 1.
    confidence : float, optional
        See `required_examples`.
    examples : str, default "random pairs"
        What error messages call the pairs.

    Raises
    ------
    CalibrationError
        There are too few pairs for the rate, or a score is NaN or infinite.
    """
    require_number("n_comparisons", n_comparisons)
    if n_comparisons < 1:
        raise InvalidParameterError(f"n_comparisons is {n_comparisons}; it must be at least 1")
    check_rate("false_alarm_rate", false_alarm_rate)
    comparison_rate = -math.expm1(math.log1p(-false_alarm_rate) / n_comparisons)
    return rank_threshold(
        finite_scores(scores, "scores"), false_alarm_rate, comparison_rate, confidence, "background", examples
    )


def p_values(calibration: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Return for each score the share of examples, itself included, that are at least as alarming.

    *Method*: conformal p-values (Vovk et al. 2005, section 2.2; Bates et al. 2023, arXiv 2104.08279). A good
    example has a p-value of at most p with probability at most p.

    Parameters
    ----------
    calibration : array of shape (n,), float
        Scores of good examples; without any, every p-value is 1.
    scores : array of shape (m,), float
        NaN counts as more alarming than every number.

    Returns
    -------
    ndarray of shape (m,), float64
        In 1 / (n + 1)..1; lower is more alarming. Sorting costs n log n.

    Examples
    --------
    >>> p_values([1.0, 2.0, 3.0], [0.0, 2.5, 9.0]).tolist()
    [1.0, 0.5, 0.25]
    """
    examples = np.sort(finite_scores(calibration, "calibration"))
    # searchsorted puts NaN behind infinity, so NaN is the most alarming score.
    n_above = len(examples) - np.searchsorted(examples, np.asarray(scores, np.float64), side="left")
    p: NDArray[np.float64] = (1 + n_above) / (len(examples) + 1)
    return p


def rank_threshold(
    scores: NDArray[np.float64],
    query_rate: float,
    comparison_rate: float,
    confidence: float | None,
    source: Source,
    examples: str,
) -> Threshold:
    """Return the threshold for a rate per query, where each comparison of a query has a rate of its own."""
    n, n_required = len(scores), required_examples(comparison_rate, confidence=confidence)
    check_rate("false_alarm_rate", query_rate)
    if n < n_required:
        raise CalibrationError(
            _too_few_examples(n, n_required, query_rate, comparison_rate, confidence, examples)
        )
    k = _rank(n, comparison_rate, confidence)
    value = float(np.partition(scores, n - k)[n - k])
    n_comparisons = math.log1p(-query_rate) / math.log1p(-comparison_rate)
    expected_rate = -math.expm1(math.log1p(-k / (n + 1)) * n_comparisons)
    return Threshold(value, query_rate, expected_rate, n, source, confidence)


def _rank(n: int, rate: float, confidence: float | None) -> int:
    """Return k, where the k-th largest of n scores is the threshold."""
    if confidence is None:
        return max(1, math.floor(rate * (n + 1) * (1 + 1e-9)))
    # P(Beta(k, n + 1 - k) <= rate) falls as k grows.
    low, high = 1, n
    while low < high:
        middle = (low + high + 1) // 2
        if scipy.stats.beta.cdf(rate, middle, n + 1 - middle) >= confidence:
            low = middle
        else:
            high = middle - 1
    return low


def _too_few_examples(
    n: int,
    n_required: int,
    query_rate: float,
    comparison_rate: float,
    confidence: float | None,
    examples: str,
) -> str:
    with_confidence = f", held with {confidence:.0%} confidence," if confidence is not None else ""
    message = (
        f"a false-alarm rate of {query_rate:g}{with_confidence} needs at least {n_required} {examples};"
        f" there are {n}"
    )
    if n == 0:
        return f"{message}. Give {n_required}"
    best = 1 / (n + 1) if confidence is None else -math.expm1(math.log(1 - confidence) / n)
    n_comparisons = math.log1p(-query_rate) / math.log1p(-comparison_rate)
    # Rounded up, so that asking for it succeeds.
    best = math.ceil(-math.expm1(math.log1p(-best) * n_comparisons) * 1e4) / 1e4
    return (
        f"{message}, which allow {best:g} at best. Give {n_required - n} more, or ask for a rate of at least"
        f" {best:g}"
    )
