"""A detector, its threshold and what a change of it would do, as plain data."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.estimators.conformal import RateEstimate, rate_above
from nearsight.services.inspections import Inspection

# Thresholds of the curve, at most; between two of them nothing but an image or two changes.
_MOST_POINTS = 200
# Images that change sides and are listed, on each side.
MOST_LISTED = 100


def detector_document(inspection: Inspection) -> dict[str, Any]:
    """Return what a detector was fitted on, how it is set, and numbers of what it scored."""
    facts, threshold = inspection.facts(), inspection.threshold()
    rate = rate_above(facts["good_scores"], threshold.value)
    return {
        "name": inspection.name,
        "source": facts["source"],
        "options": facts["options"],
        "revision": facts["revision"],
        "fitted": facts["fitted"],
        "fit": facts["fit"],
        "threshold": threshold.value,
        "calibrated_threshold": threshold.calibrated.value,
        "false_alarm_rate": threshold.calibrated.false_alarm_rate,
        **_rate_document(rate),
        "held_out": len(facts["good_scores"]),
        "counts": inspection.counts(),
    }


def threshold_document(inspection: Inspection) -> dict[str, Any]:
    """Return the threshold in use, and what other thresholds would do.

    Returns
    -------
    dict
        ``curve``: thresholds from low to high, each with the expected share of false alarms, its interval for
        this detector, and the number of scored images above it. ``good_scores``: of the images that were held
        out. ``scores``: score and verdict of each scored image, from low to high.
    """
    good = np.sort(inspection.facts()["good_scores"])
    in_use = inspection.threshold()
    judged = inspection.scores()
    scores = np.array([score for _, score, _ in judged])
    thresholds = np.unique([*good, *scores, in_use.value])
    step = max(1, -(-len(thresholds) // _MOST_POINTS))
    chosen = np.unique([*thresholds[::step], thresholds[-1], in_use.value])
    return {
        "threshold": in_use.value,
        "calibrated_threshold": in_use.calibrated.value,
        "false_alarm_rate": in_use.calibrated.false_alarm_rate,
        "held_out": len(good),
        "good_scores": good.tolist(),
        "scores": [[score, verdict] for _, score, verdict in judged],
        "curve": [_point(good, scores, float(value)) for value in chosen],
    }


def effect_document(inspection: Inspection, at: float) -> dict[str, Any]:
    """Return what another threshold would do: its rate of false alarms, and which images change sides.

    Parameters
    ----------
    inspection : Inspection
    at : float
        The threshold.

    Returns
    -------
    dict
        ``become_defects`` and ``become_good``: ids, the most anomalous first; a verdict does not count here.
        ``confirmed_defects_missed`` and ``confirmed_good_alarmed``: how the threshold contradicts verdicts.
    """
    good, in_use = np.sort(inspection.facts()["good_scores"]), inspection.threshold().value
    judged = inspection.scores()
    low, high = min(in_use, at), max(in_use, at)
    # Between the two, a higher threshold lets images pass, and a lower one makes them defects.
    changed = [id for id, score, _ in reversed(judged) if low < score <= high]
    listed = changed[:MOST_LISTED]
    return {
        **_point(good, np.array([score for _, score, _ in judged]), at),
        "become_defects": listed if at < in_use else [],
        "become_good": [] if at < in_use else listed,
        "n_changed": len(changed),
        "confirmed_defects_missed": sum(verdict == "defect" and s <= at for _, s, verdict in judged),
        "confirmed_good_alarmed": sum(verdict == "good" and s > at for _, s, verdict in judged),
    }


def _point(good: NDArray[np.float64], scores: NDArray[np.float64], value: float) -> dict[str, Any]:
    return {
        "threshold": value,
        **_rate_document(rate_above(good, value)),
        "images_above": int(np.count_nonzero(scores > value)),
    }


def _rate_document(rate: RateEstimate) -> dict[str, Any]:
    return {"expected_rate": rate.expected, "rate_interval": [rate.low, rate.high]}
