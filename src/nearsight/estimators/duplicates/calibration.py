"""Match thresholds for a stated rate, from the scores of candidate pairs."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nearsight.errors import CalibrationError
from nearsight.estimators.conformal import (
    Threshold,
    expected_exceedances,
    from_contaminated,
    from_good,
    from_nonmatching_pairs,
)

#: The score of a row without any candidate, below the score of every pair.
NO_CANDIDATE_SCORE = -1.0

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Scores = NDArray[np.float32]


def best_scores(n: int, pairs: Ints, scores: Scores) -> Floats:
    """Return the score of the best pair of each of n rows."""
    best = np.full(n, NO_CANDIDATE_SCORE)
    for column in pairs.T:
        np.maximum.at(best, column, scores)
    return best


def n_unconnected(n: int, pairs: Ints, scores: Scores, certain_score: float | None) -> int:
    """Return the number of rows, where rows connected by certain duplicates count as one."""
    certain = pairs[scores >= (np.inf if certain_score is None else certain_score)]
    graph = coo_array((np.ones(len(certain), bool), certain.T), (n, n))
    return int(connected_components(graph, directed=False, return_labels=False))


def calibrated(best: Floats, false_alarm_rate: float, certain_score: float | None) -> Threshold:
    """Calibrate on the best score of each row, where some rows have duplicates."""
    if certain_score is None:
        return from_good(best, false_alarm_rate=false_alarm_rate)
    try:
        return from_contaminated(best, false_alarm_rate=false_alarm_rate, **_tail(best, certain_score))
    except CalibrationError as error:
        raise CalibrationError(
            f"{error}. Good examples are rows without a duplicate: name some rows of which no two are"
            " duplicates (distinct_where)"
        ) from error


def calibrated_on_distinct(
    n: int,
    pairs: Ints,
    scores: Scores,
    *,
    false_alarm_rate: float,
    certain_score: float | None,
    n_compared: int,
) -> Threshold:
    """Calibrate on n rows of which no two are duplicates, for rows that are compared with `n_compared`."""
    n_own = n_unconnected(n, pairs, scores, certain_score)
    return from_nonmatching_pairs(
        best_scores(n, pairs, scores),
        false_alarm_rate=false_alarm_rate,
        n_comparisons=max(1.0, n_compared / max(1, n_own)),
        examples="distinct rows",
    )


def expected_rate(
    best: Floats, threshold: float, calibration: Threshold | None, certain_score: float | None
) -> float | None:
    """Return the expected share of rows without a duplicate that are given one at this threshold."""
    if calibration and threshold == calibration.value:
        return calibration.expected_rate
    if certain_score is None:
        return None
    tail = _tail(best, certain_score)
    n_good = float((best < certain_score).sum()) + expected_exceedances(best, certain_score, **tail)
    return min(1.0, expected_exceedances(best, threshold, **tail) / max(1, n_good))


def _tail(best: Floats, certain_score: float) -> dict[str, float]:
    """Return where duplicates begin and the highest possible score: 1, unless `verify` exceeds it."""
    highest = max(1.0, certain_score + 1e-6, best.max(initial=0))
    return {"certain_score": certain_score, "max_score": highest}
