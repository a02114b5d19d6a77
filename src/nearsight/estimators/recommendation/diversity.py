"""Diverse lists by maximal marginal relevance."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import InvalidParameterError
from nearsight.parameters import require_number, require_whole


def diversify(relevance: ArrayLike, X: ArrayLike, k: int, *, diversity: float = 0.5) -> NDArray[np.int64]:
    """Return `k` rows that are relevant and dissimilar to each other, in the order of choice.

    *Method*: maximal marginal relevance (Carbonell and Goldstein 1998, section 2), with lambda = 1 -
    `diversity`: the next row is the one with the largest lambda × relevance - (1 - lambda) × similarity to
    the most similar row chosen so far. Deviation: relevance is first scaled to 0..1, so that scores of
    any scale can be compared with cosines.

    Parameters
    ----------
    relevance : array of shape (n,), float
        Higher is better; -inf is never chosen.
    X : array of shape (n, d), float
        Unit vectors; a row of zeros is similar to none.
    k : int
        At least 1. At most n rows are returned; k × n × d operations.
    diversity : float, default 0.5
        In 0..1: 0 is the order of relevance, 1 looks at relevance for the first row only.

    Returns
    -------
    ndarray of shape (min(k, n),), int64
        Rows. Ties go to the first. None for n = 0; all-identical rows come in the order of relevance.

    Raises
    ------
    InvalidParameterError
        `k` or `diversity` is out of range, or something is NaN.

    Examples
    --------
    >>> twins_and_another = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    >>> diversify([0.9, 0.8, 0.5], twins_and_another, 2, diversity=0.0).tolist()
    [0, 1]
    >>> diversify([0.9, 0.8, 0.5], twins_and_another, 2, diversity=0.7).tolist()
    [0, 2]
    """
    scores, vectors = np.asarray(relevance, np.float64), np.asarray(X, np.float64)
    check_diversity(diversity)
    require_whole("k", k)
    if scores.ndim != 1 or vectors.ndim != 2 or len(scores) != len(vectors):
        raise InvalidParameterError(
            f"relevance has shape {scores.shape} and X {vectors.shape}; give one score a row"
        )
    if np.isnan(scores).any() or not np.isfinite(vectors).all() or (scores == np.inf).any():
        raise InvalidParameterError("relevance or X holds NaN or infinity; leave those rows out")
    rows = np.flatnonzero(scores > -np.inf)
    relevant = _scaled_to_unit_interval(scores[rows])
    closest = np.zeros(len(rows))
    chosen: list[int] = []
    for _ in range(min(k, len(rows))):
        marginal = (1 - diversity) * relevant - diversity * closest if chosen else relevant.copy()
        # At equal marginal relevance, the more relevant one.
        marginal[chosen] = -np.inf
        best = np.flatnonzero(marginal >= marginal.max() - 1e-12)
        chosen.append(int(best[np.argmax(relevant[best])]))
        similarity = vectors[rows] @ vectors[rows[chosen[-1]]]
        closest = similarity if len(chosen) == 1 else np.maximum(closest, similarity)
    result: NDArray[np.int64] = rows[chosen].astype(np.int64)
    return result


def check_diversity(diversity: float) -> None:
    """Raise if a diversity is not a number in 0..1."""
    require_number("diversity", diversity)
    if not 0 <= diversity <= 1:
        raise InvalidParameterError(f"diversity is {diversity!r}; it must lie in 0..1")


def _scaled_to_unit_interval(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(scores):
        return scores
    low, high = scores.min(), scores.max()
    scaled: NDArray[np.float64] = (scores - low) / (high - low) if high > low else np.ones_like(scores)
    return scaled
