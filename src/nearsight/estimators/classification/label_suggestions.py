"""Rows to label next."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import InvalidParameterError
from nearsight.estimators.neighbors import unit_length
from nearsight.parameters import require_whole

# n² similarities are in memory; of more rows than this, the most uncertain are considered.
_MOST_CANDIDATES = 4_000
# Rows whose gain is computed at once.
_BLOCK = 64


def suggest(
    X: ArrayLike,
    n: int,
    *,
    probabilities: ArrayLike | None = None,
    labeled: ArrayLike | None = None,
) -> NDArray[np.intp]:
    """Return which rows to label next: uncertain ones that represent many others and not each other.

    *Method*: facility location over uncertainty (Wei, Iyer and Bilmes 2015, "Submodularity in data subset
    selection and active learning", section 4): each step takes the row that most raises the similarity of the
    unlabeled rows to their nearest labeled or chosen row, weighted by their uncertainty (1 - the margin
    between the two likeliest classes). Without probabilities all rows have the same weight, and the choice is
    representative, which is better if nothing is labeled (Hacohen et al. 2022, arXiv 2202.02794).

    Parameters
    ----------
    X : array of shape (m, d), float
        Rows that have no label.
    n : int
        How many to suggest, at least 1; with fewer rows, all of them.
    probabilities : array of shape (m, n_classes), optional
        What a classifier makes of `X`.
    labeled : array of shape (l, d), optional
        Rows that have labels.

    Returns
    -------
    ndarray of shape (min(n, m),), int
        Rows of `X`, the most useful first; equals by order of the rows.

    Raises
    ------
    InvalidParameterError
        `n` is below 1, shapes do not agree, or a number is not finite.

    Notes
    -----
    Costs m² d time, a little for each suggestion, and m² numbers, for at most 4,000 rows: of more rows, only
    the most uncertain are considered (without probabilities, rows at equal steps). 0 rows: nothing is
    suggested. A duplicate of a chosen row comes last; rows that are all the same come in order. One class:
    all have the same weight.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1, 0], [0.99, 0.1], [0.98, 0.2], [0, 1]], float)
    >>> suggest(X, 2).tolist()
    [2, 3]
    >>> suggest(X, 1, labeled=X[:1]).tolist()
    [3]
    """
    rows = _checked(X, "X")
    require_whole("n", n)
    uncertainty = np.ones(len(rows), np.float32)
    if probabilities is not None:
        p = np.asarray(probabilities, np.float32)
        if p.ndim != 2 or len(p) != len(rows) or not np.isfinite(p).all():
            raise InvalidParameterError(
                f"probabilities have shape {p.shape}; give finite numbers, one row for each of {len(rows)}"
            )
        if p.shape[1] > 1:
            best = np.sort(p, axis=1)
            uncertainty = 1 - (best[:, -1] - best[:, -2])
    pool = _pool(uncertainty, max(_MOST_CANDIDATES, n))
    known = np.zeros(len(pool), np.float32)
    near = _checked(labeled, "labeled") if labeled is not None else rows[:0]
    for at in range(0, len(near), _MOST_CANDIDATES):
        known = np.maximum(known, (rows[pool] @ near[at : at + _MOST_CANDIDATES].T).max(axis=1))
    chosen: NDArray[np.intp] = pool[_covering(rows[pool], uncertainty[pool], known, min(n, len(pool)))]
    return chosen


def _checked(X: ArrayLike, name: str) -> NDArray[np.float32]:
    rows = np.asarray(X, np.float32)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise InvalidParameterError(f"{name} has shape {rows.shape}; give finite numbers of shape (n, d)")
    return unit_length(rows)


def _pool(uncertainty: NDArray[np.float32], most: int) -> NDArray[np.intp]:
    if len(uncertainty) <= most:
        return np.arange(len(uncertainty))
    if np.ptp(uncertainty) == 0:
        return np.linspace(0, len(uncertainty) - 1, most).astype(np.intp)
    return np.sort(np.argsort(-uncertainty, kind="stable")[:most])


def _covering(
    rows: NDArray[np.float32], uncertainty: NDArray[np.float32], covered: NDArray[np.float32], n: int
) -> list[int]:
    similarities = np.maximum(rows @ rows.T, 0)

    def gains(those: NDArray[np.intp]) -> NDArray[np.float32]:
        raised: NDArray[np.float32] = np.maximum(similarities[those] - covered, 0) * uncertainty
        return np.asarray(raised.sum(axis=1))

    chosen: list[int] = []
    # What a row gains only falls while others are chosen, also after rounding: each number is added in the
    # same order. So what it gained before is the most that it gains now, and only the best are computed anew
    # (Minoux 1978, "Accelerated greedy algorithms for maximizing submodular set functions").
    most = np.zeros(len(rows), np.float32)
    for at in range(0, len(rows), _BLOCK):
        most[at : at + _BLOCK] = gains(np.arange(at, min(at + _BLOCK, len(rows))))
    is_old = np.zeros(len(rows), bool)
    for _ in range(n):
        while is_old[best := int(np.argmax(most))]:
            old = np.flatnonzero(is_old)
            those = old[np.argsort(-most[old], kind="stable")[:_BLOCK]]
            most[those] = gains(those)
            is_old[those] = False
        chosen.append(best)
        covered = np.maximum(covered, similarities[best])
        most[best] = -1
        is_old = most > 0
    return chosen
