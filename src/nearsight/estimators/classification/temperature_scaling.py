"""Calibrated probabilities from scores, by temperature scaling."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from nearsight.errors import InvalidParameterError

Floats = NDArray[np.float64]

_LOWEST, _HIGHEST = 1e-2, 1e3


def softmax(scores: Floats) -> Floats:
    """Return (n, m) probabilities that add up to 1 in each row."""
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    normed: Floats = shares / shares.sum(axis=1, keepdims=True)
    return normed


def log_loss(scores: Floats, y: NDArray[np.intp], temperature: float) -> float:
    """Return the mean negative logarithm of the right class's probability, in nats; lower is better.

    *Method*: the right class counts for (n + 1) / (n + 2) and the others share the rest (Platt 1999,
    section 2.2), so that a handful of examples that are all right do not promise certainty.
    """
    n, m = scores.shape
    scaled = temperature * (scores - scores.max(axis=1, keepdims=True))
    logs = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    right = logs[np.arange(n), y]
    doubt = 1 / (n + 2) if m > 1 else 0.0
    wrong = (logs.sum(axis=1) - right) / max(1, m - 1)
    return float(-((1 - doubt) * right + doubt * wrong).mean())


def fit_temperature(scores: Floats, y: NDArray[np.intp]) -> float:
    """Return what to multiply scores with before a softmax, learned from scores of rows that were left out.

    *Method*: temperature scaling (Guo et al. 2017, arXiv 1706.04599, section 4.2), here by its inverse, in
    0.01..1000, on the `log_loss` above.
    """
    optimum = minimize_scalar(
        lambda t: log_loss(scores, y, float(np.exp(t))),
        bounds=(np.log(_LOWEST), np.log(_HIGHEST)),
        method="bounded",
    )
    return float(np.exp(optimum.x))


def calibration_error(probabilities: ArrayLike, right: ArrayLike, *, n_bins: int = 10) -> float:
    """Return how far probabilities are from how often they come true: 0 is perfect, 1 the worst.

    *Method*: expected calibration error (Naeini et al. 2015; Guo et al. 2017, section 2), in bins of as many
    rows each, so that none is nearly empty. Small samples make it larger than it is.

    Parameters
    ----------
    probabilities : array of shape (n,), float
        Of the label that was given, in 0..1.
    right : array of shape (n,), bool
        Whether that label was right.
    n_bins : int, default 10
        At least 1; no more than there are rows.

    Raises
    ------
    InvalidParameterError
        No rows, two lengths, or no bin.

    Examples
    --------
    >>> calibration_error([0.9] * 10, [True] * 9 + [False], n_bins=1) < 1e-9
    True
    >>> round(calibration_error([0.9, 0.9, 0.6, 0.6], [True, True, False, False], n_bins=2), 3)
    0.35
    """
    p, hits = np.asarray(probabilities, np.float64), np.asarray(right, np.float64)
    if p.ndim != 1 or p.shape != hits.shape or len(p) == 0 or n_bins < 1:
        raise InvalidParameterError(
            f"probabilities {p.shape} and right {hits.shape} must be of one length, at least 1, and n_bins"
            f" ({n_bins}) at least 1"
        )
    order = np.argsort(p, kind="stable")
    bins = np.array_split(order, min(n_bins, len(p)))
    gaps = [abs(p[rows].mean() - hits[rows].mean()) * len(rows) for rows in bins]
    return float(np.sum(gaps) / len(p))
