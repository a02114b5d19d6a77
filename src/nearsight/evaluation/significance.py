"""What differences mean: intervals, tests, and the smallest difference that the data can show.

Images of one group (near-duplicates, one product, one customer) are not independent. Every method here draws
groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import InvalidParameterError
from nearsight.parameters import require_whole

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

N_DRAWS = 10_000
_BLOCK = 500
# The normal quantiles of a two-sided test at 5 % and of a power of 80 %.
_Z_TEST, _Z_POWER = 1.959964, 0.841621


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries with its 95 % interval.

    Attributes
    ----------
    value, low, high : float
    n : int
        Queries.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A paired difference of two means over the same queries.

    Attributes
    ----------
    value, low, high : float
        With its 95 % interval.
    p : float
        Of the sign-flip test: how often chance alone gives a difference as large.
    detectable : float
        The smallest true difference that a test at 5 % finds in 4 of 5 such sets of queries.
    n_needed : int or None
        Queries that would be needed to find a true difference of the value seen; None if it is 0, or if all
        queries are of one group.
    """

    value: float
    low: float
    high: float
    p: float
    detectable: float
    n_needed: int | None


def estimate(values: Floats, groups: Ints, *, random_state: int = 0) -> Estimate:
    """Return the mean with a percentile bootstrap interval over groups.

    Parameters
    ----------
    values : ndarray of shape (n,)
        NaN is left out.
    groups : ndarray of shape (n,), int
    random_state : int

    Examples
    --------
    >>> result = estimate(np.array([0.0, 1.0, 1.0, 1.0]), np.arange(4))
    >>> result.value, result.low <= result.value <= result.high
    (0.75, True)
    """
    return estimates(np.asarray(values)[None], groups, random_state=random_state)[0]


def estimates(values: Floats, groups: Ints, *, random_state: int = 0) -> list[Estimate]:
    """Return what `estimate` does for several values of each query, from the same draws of groups.

    Parameters
    ----------
    values : ndarray of shape (m, n)
        Queries with NaN in any row are left out.
    groups : ndarray of shape (n,), int
    random_state : int

    Returns
    -------
    list of Estimate, length m
    """
    sums, counts = _by_group(values, groups)
    lows, highs = np.quantile(_bootstrap(sums, counts, random_state), [0.025, 0.975], axis=0)
    n = int(counts.sum())
    rows = zip(sums.sum(axis=1) / n, lows, highs, strict=True)
    return [Estimate(float(value), float(low), float(high), n) for value, low, high in rows]


def paired_difference(
    first: Floats, second: Floats, groups: Ints, *, random_state: int = 0
) -> PairedDifference:
    """Compare two models on the same queries: mean of `first` minus mean of `second`.

    *Method*: a cluster bootstrap for the interval (Field and Welsh 2007), and for p a permutation test that
    swaps the two models' values within random groups (Fisher 1935), the observed value counted among the
    draws.

    Parameters
    ----------
    first, second : ndarray of shape (n,)
        Values of the same queries. Queries with NaN in either are left out.
    groups : ndarray of shape (n,), int
    random_state : int

    Raises
    ------
    InvalidParameterError
        No query has both values.
    """
    return paired_differences(
        np.asarray(first)[None], np.asarray(second)[None], groups, random_state=random_state
    )[0]


def paired_differences(
    first: Floats, second: Floats, groups: Ints, *, random_state: int = 0
) -> list[PairedDifference]:
    """Return what `paired_difference` does for several values of each query, from the same draws of groups.

    Parameters
    ----------
    first, second : ndarray of shape (m, n)
        Queries with NaN in any row are left out.
    groups : ndarray of shape (n,), int
    random_state : int

    Returns
    -------
    list of PairedDifference, length m
    """
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    sums, counts = _by_group(differences, groups)
    lows, highs = np.quantile(_bootstrap(sums, counts, random_state), [0.025, 0.975], axis=0)
    results = []
    for of_row, low, high, p in zip(sums, lows, highs, _sign_flip_p(sums, random_state), strict=True):
        value = float(of_row.sum() / counts.sum())
        detectable = (_Z_TEST + _Z_POWER) * _standard_error(of_row, counts)
        # One group shows nothing.
        is_known = value and np.isfinite(detectable)
        n_needed = int(np.ceil(counts.sum() * (detectable / value) ** 2)) if is_known else None
        results.append(PairedDifference(value, float(low), float(high), p, float(detectable), n_needed))
    return results


def auroc(scores: Floats, is_positive: NDArray[np.bool_], groups: Ints, *, random_state: int = 0) -> Estimate:
    """Return the area under the ROC curve with a percentile bootstrap interval over groups.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Higher for positives.
    is_positive : ndarray of shape (n,), bool
        Some are, and some are not.
    groups : ndarray of shape (n,), int
    random_state : int

    Examples
    --------
    >>> auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]), np.arange(4)).value
    0.75
    """
    positive, negative = scores[is_positive], scores[~is_positive]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    group = np.unique(groups, return_inverse=True)[1]
    n_groups, rng, draws = int(group.max()) + 1, np.random.default_rng(random_state), []
    for start in range(0, N_DRAWS, _BLOCK):
        size = min(_BLOCK, N_DRAWS - start)
        times = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size)[:, group].astype(float)
        of_positive, of_negative = times[:, is_positive], times[:, ~is_positive]
        pairs = of_positive.sum(axis=1) * of_negative.sum(axis=1)
        won = ((of_positive @ wins) * of_negative).sum(axis=1)
        draws.append(won[pairs > 0] / pairs[pairs > 0])
    low, high = np.quantile(np.concatenate(draws), [0.025, 0.975])
    return Estimate(float(wins.mean()), float(low), float(high), len(scores))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (Holm 1979), in the same order.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, float)[order] * (len(p_values) - np.arange(len(p_values)))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def _by_group(values: Floats, groups: Ints) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sums of values, (m, n_groups), and the number of queries of each group."""
    is_there = ~np.isnan(values).any(axis=0)
    if not is_there.any():
        raise InvalidParameterError(
            "no query has a value; each class needs images of two groups, a query and one to find"
        )
    group = np.unique(np.asarray(groups)[is_there], return_inverse=True)[1]
    kept = np.asarray(values, np.float64)[:, is_there]
    sums = np.stack([np.bincount(group, of_row) for of_row in kept]).astype(np.float64)
    return sums, np.bincount(group).astype(np.float64)


def _bootstrap(sums: Floats, counts: Floats, random_state: int) -> NDArray[np.float64]:
    """Return the means, (n_draws, m), of each draw of as many groups, with replacement."""
    require_whole("random_state", random_state, least=0)
    rng, n = np.random.default_rng(random_state), len(counts)
    columns, means = np.vstack([sums, counts]).T.copy(), []
    for start in range(0, N_DRAWS, _BLOCK):
        size = min(_BLOCK, N_DRAWS - start)
        drawn = rng.integers(0, n, (size, n))
        if len(sums) == 1:
            drawn_sums = np.stack([column[drawn].sum(axis=1) for column in (sums[0], counts)], axis=1)
        else:
            drawn += n * np.arange(size)[:, None]
            drawn_sums = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n) @ columns
        means.append(drawn_sums[:, :-1] / drawn_sums[:, -1:])
    return np.concatenate(means)


def _standard_error(sums: Floats, counts: Floats) -> float:
    """Return the standard error of a ratio of sums over groups (Cochran 1977, section 6.4)."""
    n = len(sums)
    if n < 2:
        return float("inf")
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt(n * residuals.var(ddof=1)) / counts.sum())


def _sign_flip_p(sums: Floats, random_state: int) -> list[float]:
    """Return for each row how often random signs of the groups give a sum as large."""
    rng, observed = np.random.default_rng(random_state), np.abs(sums.sum(axis=1))
    # A sum of other order may differ in its last bit.
    limits, n_extreme = observed - 1e-9 * np.maximum(1.0, observed), np.zeros(len(sums), int)
    for start in range(0, N_DRAWS, _BLOCK):
        signs = rng.integers(0, 2, (min(_BLOCK, N_DRAWS - start), sums.shape[1]), dtype=np.int8) * 2 - 1
        n_extreme += (np.abs(signs @ sums.T) >= limits).sum(axis=0)
    return [float(p) for p in (1 + n_extreme) / (N_DRAWS + 1)]
