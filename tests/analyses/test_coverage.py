"""`coverage`: against naive loops, and on splits that are drawn alike."""

import numpy as np
import pytest

from nearsight.analyses.coverage import MIN_TRAINING, coverage


def vectors(rng, n, center):
    X = np.array(center) + 0.25 * rng.normal(size=(n, 8))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def sets(n_train, n_test, seed=0):
    rng = np.random.default_rng(seed)
    X = vectors(rng, n_train + n_test, np.eye(8)[0])
    ids = [f"{row:03}" for row in range(len(X))]
    return ids, X, {id: {"train" if row < n_train else "test"} for row, id in enumerate(ids)}


def test_splits_that_are_drawn_alike_are_covered_as_train_covers_itself():
    shares = [coverage(*sets(150, 100, seed), {})[0].share for seed in range(20)]
    assert np.mean(shares) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_distances_are_those_of_naive_loops(seed):
    ids, X, splits = sets(60, 30, seed)
    rng = np.random.default_rng(seed)
    groups = {ids[row]: str(rng.integers(0, 40)) for row in range(0, 90, 2)}
    [found] = coverage(ids, X, splits, groups)

    def nearest(row):
        others = [
            at for at in range(60) if at != row and groups.get(ids[at], at) != groups.get(ids[row], row)
        ]
        return 1 - max(float(X[row] @ X[at]) for at in others)

    radius = np.quantile([nearest(row) for row in range(60)], 0.95)
    assert found.radius == pytest.approx(radius, abs=1e-5)
    expected = {ids[row]: nearest(row) for row in range(60, 90) if nearest(row) > radius}
    assert dict(found.uncovered) == pytest.approx(expected, abs=1e-5)
    assert found.share == pytest.approx(1 - len(expected) / 30)


def test_a_class_that_train_lacks_is_named_and_a_leak_covers_nothing():
    ids, X, splits = sets(100, 40)
    rng = np.random.default_rng(9)
    X[130:] = vectors(rng, 10, -np.eye(8)[0])
    # An unusual test image has nothing like it in train but its duplicate.
    X[0] = X[129] = np.eye(8)[5]
    labels = {id: "new" if row >= 130 else "old" for row, id in enumerate(ids)}
    [found] = coverage(ids, X, splits, {ids[0]: "same", ids[129]: "same"}, labels)
    assert {id for id, _ in found.uncovered} >= set(ids[129:])
    n, n_covered = found.by_class["old"]
    assert n == 30
    assert n_covered >= 25
    assert found.by_class["new"] == (10, 0)
    assert coverage(ids[-MIN_TRAINING:], X[-MIN_TRAINING:], splits, {}) == []
