"""How often a classifier is right on rows that it was not fitted on."""

import numpy as np
import pytest

from nearsight.errors import InvalidParameterError
from nearsight.estimators.classification import FewShotClassifier, HeldOut, Selection, judge_held_out


def clouds(n, noise, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return np.eye(3, 16)[y] + noise * rng.normal(size=(n, 16)), np.array(["a", "b", "c"])[y]


def test_each_row_is_judged_by_a_fit_on_all_others():
    X, y = clouds(48, 0.5)
    rows = np.array([3, 40, 17, 5])
    held_out = judge_held_out(X, y, rows)
    for place, row in enumerate(rows):
        others = np.arange(48) != row
        shares = FewShotClassifier().fit(X[others], y[others]).predict_proba(X[row : row + 1])[0]
        assert held_out.probabilities[place] == pytest.approx(shares.max())
        assert held_out.right[place] == (np.array(["a", "b", "c"])[shares.argmax()] == y[row])


def test_labels_without_meaning_are_not_learned_by_heart():
    # A classifier judged on what it was fitted on would be right far more often than by chance.
    X, y = np.random.default_rng(1).normal(size=(60, 64)), clouds(60, 0.0)[1]
    low, high = judge_held_out(X, y, np.arange(60), method="prototype").interval
    assert low < 1 / 3 < high
    assert FewShotClassifier(method="prototype").fit(X, y).score(X, y) > high


def test_few_rows_say_nothing():
    few = HeldOut(np.ones(7, bool), np.ones(7))
    assert (few.accuracy, few.interval, few.mean_probability, few.calibration) == (
        None,
        None,
        None,
        "too_few",
    )
    some = HeldOut(np.ones(8, bool), np.ones(8))
    assert some.accuracy == 1
    assert (some.mean_probability, some.calibration) == (None, "too_few")
    X, y = clouds(6, 0.1)
    assert len(judge_held_out(X, y, []).right) == 0
    assert judge_held_out(X[:1], y[:1], [0]).right.tolist() == [False]
    with pytest.raises(InvalidParameterError, match="n_folds is 1"):
        judge_held_out(X, y, [0], n_folds=1)


def test_the_interval_holds_the_accuracy_of_what_has_no_label():
    """A quarter of the labels are drawn at random; the others are of difficult rows, right in half."""
    rng = np.random.default_rng(0)
    held = {"corrected": [], "of random rows": []}
    for _ in range(300):
        n_chosen = int(rng.integers(30, 150))
        n_judged = n_chosen // 3
        difficulty = rng.beta(4, 1.5, 600)
        is_right = rng.random(600) < difficulty
        # The chosen ones are difficult, but not the most difficult of all.
        drawn = rng.permutation(600)[:n_judged]
        others = np.setdiff1d(np.arange(600), drawn)
        chosen = others[np.argsort(difficulty[others] + 0.1 * rng.normal(size=len(others)))[:n_chosen]]
        rest = np.setdiff1d(others, chosen)
        plain = HeldOut(is_right[drawn], np.full(n_judged, 0.7))
        selection = Selection(600, n_judged + n_chosen, is_right[chosen])
        corrected = HeldOut(plain.right, plain.probabilities, selection)
        for name, each in (("corrected", corrected), ("of random rows", plain)):
            low, high = each.interval
            assert low <= each.accuracy <= high
            held[name].append(low <= is_right[rest].mean() <= high)
    assert np.mean(held["corrected"]) >= 0.95
    assert np.mean(held["of random rows"]) < 0.92
    everything = Selection(20, 20, np.ones(10, bool))
    assert HeldOut(np.ones(10, bool), np.ones(10), everything).accuracy == 1


@pytest.mark.parametrize(("sure", "expected"), [(0.99, "too_sure"), (0.75, "fits"), (0.4, "too_cautious")])
def test_probabilities_are_compared_with_the_interval(sure, expected):
    right = np.arange(40) % 4 > 0
    assert HeldOut(right, np.full(40, sure)).calibration == expected
