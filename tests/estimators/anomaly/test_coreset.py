import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from nearsight.errors import InvalidParameterError
from nearsight.estimators.anomaly import Coreset, k_center
from nearsight.estimators.anomaly.coreset import nearest_center

rng = np.random.default_rng(3)


def naive_k_center(X: np.ndarray, n: int, first: int) -> list[int]:
    chosen = [first]
    while len(chosen) < n:
        chosen.append(int(cdist(X, X[chosen]).min(1).argmax()))
    return chosen


def test_chooses_as_the_definition_does() -> None:
    X = rng.normal(size=(200, 5)).astype(np.float32)
    chosen, radius = k_center(X, 20)
    assert chosen.tolist() == naive_k_center(X.astype(float), 20, int(chosen[0]))
    assert radius == pytest.approx(cdist(X, X[chosen]).min(1).max(), rel=1e-5)


def test_covers_better_than_chance_after_projection() -> None:
    X = rng.normal(size=(2000, 300)).astype(np.float32)
    X[:5] *= 6  # the few that a random choice would miss
    _, radius = k_center(X, 50)
    chance = [cdist(X, X[rng.choice(2000, 50, replace=False)]).min(1).max() for _ in range(5)]
    assert radius < 0.5 * min(chance)


def test_equal_rows_are_chosen_once() -> None:
    X = np.repeat(rng.normal(size=(3, 4)).astype(np.float32), 30, axis=0)
    chosen, radius = k_center(X, 10)
    assert len(chosen) == 3
    assert radius == 0


def test_of_nothing_nothing_is_chosen() -> None:
    chosen, radius = k_center(np.empty((0, 3), np.float32), 4)
    assert (len(chosen), radius) == (0, 0.0)
    with pytest.raises(InvalidParameterError, match="n is 0"):
        k_center(np.ones((2, 2), np.float32), 0)


@given(arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(-50, 50, width=32)))
@settings(max_examples=50)
def test_the_nearest_is_the_nearest(X: np.ndarray) -> None:
    centers = rng.normal(size=(7, 3)).astype(np.float32)
    distances, indices = nearest_center(X, centers)
    exact = cdist(X.astype(float), centers.astype(float))
    np.testing.assert_allclose(distances, exact.min(1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(exact[np.arange(len(X)), indices], exact.min(1), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("piece", [1, 37, 5000])
def test_every_row_of_a_stream_lies_within_cover_of_a_bounded_memory(piece: int) -> None:
    n = 600 if piece == 1 else 5000
    X = rng.normal(size=(n, 6)).astype(np.float32).cumsum(0) / 40  # it wanders, as production does
    coreset = Coreset(40, n_waiting=100)
    for start in range(0, n, piece):
        coreset.add(X[start : start + piece])
        assert len(coreset._rows if coreset._rows is not None else []) <= 40
        assert sum(map(len, coreset._buffer)) <= 140
    assert coreset.n_seen == n
    away = cdist(X, coreset.rows).min(1).max()
    assert away <= coreset.cover * (1 + 1e-4)
    # And not much worse than all at once.
    assert away <= 4 * k_center(X, 40)[1]


def test_a_short_stream_is_kept_whole() -> None:
    X = rng.normal(size=(30, 4)).astype(np.float32)
    coreset = Coreset(40)
    coreset.add(X)
    np.testing.assert_array_equal(coreset.rows, X)
    assert coreset.cover == 0
