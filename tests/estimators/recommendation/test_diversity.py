"""Maximal marginal relevance against a naive loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearsight.errors import InvalidParameterError
from nearsight.estimators.recommendation import diversify


def naive(relevance, X, k, diversity):
    spread = max(relevance) - min(relevance)
    stretched = [(r - min(relevance)) / spread if spread else 1.0 for r in relevance]
    chosen = []
    while len(chosen) < min(k, len(X)):
        best, best_value = None, None
        for i in range(len(X)):
            if i in chosen:
                continue
            closest = max((float(X[i] @ X[j]) for j in chosen), default=0.0)
            value = (1 - diversity) * stretched[i] - diversity * closest if chosen else stretched[i]
            if best is None or value > best_value + 1e-9:
                best, best_value = i, value
        chosen.append(best)
    return chosen


@given(st.integers(1, 12), st.integers(1, 8), st.floats(0, 1), st.integers(0, 10**6))
def test_the_same_as_a_naive_loop(n, k, diversity, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    relevance = rng.normal(size=n)
    assert diversify(relevance, X, k, diversity=diversity).tolist() == naive(relevance, X, k, diversity)


def test_diversity_lowers_the_likeness_of_a_list():
    rng = np.random.default_rng(3)
    X = np.repeat(rng.normal(size=(6, 16)), 5, axis=0) + 0.1 * rng.normal(size=(30, 16))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    relevance = X @ X[0]

    def likeness(rows):
        return (X[rows] @ X[rows].T)[np.triu_indices(len(rows), 1)].mean()

    plain, varied = (diversify(relevance, X, 5, diversity=d) for d in (0.0, 0.6))
    assert plain.tolist() == np.argsort(-relevance)[:5].tolist()
    assert varied[0] == plain[0]
    assert likeness(varied) < likeness(plain) - 0.2


def test_what_is_ruled_out_never_comes():
    assert diversify([1.0, -np.inf, 0.0], np.eye(3), 3, diversity=1.0).tolist() == [0, 2]


def test_nothing_from_nothing():
    assert diversify([], np.zeros((0, 4)), 3).tolist() == []


def test_rows_that_are_all_the_same_come_by_relevance():
    same = np.tile([[0.6, 0.8]], (4, 1))
    assert diversify([0.1, 0.4, 0.3, 0.2], same, 3, diversity=0.5).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [[1.0]], 0, 0.5), "k is 0"),
        (([1.0], [[1.0]], 1, 1.5), "diversity is 1.5"),
        (([1.0, 2.0], [[1.0]], 1, 0.5), "one score a row"),
        (([np.nan], [[1.0]], 1, 0.5), "NaN"),
        (([1.0], [[np.inf]], 1, 0.5), "infinity"),
    ],
)
def test_bad_arguments(arguments, message):
    relevance, X, k, diversity = arguments
    with pytest.raises(InvalidParameterError, match=message):
        diversify(relevance, X, k, diversity=diversity)
