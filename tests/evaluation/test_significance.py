"""Intervals that cover, tests that reject as often as they say, and scipy as oracle."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from nearsight.errors import InvalidParameterError
from nearsight.evaluation import significance
from nearsight.evaluation.significance import (
    auroc,
    estimate,
    estimates,
    holm,
    paired_difference,
    paired_differences,
)


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(significance, "N_DRAWS", 500)


def test_the_interval_of_single_rows_is_that_of_scipy():
    values = np.random.default_rng(0).random(80)
    ours = estimate(values, np.arange(80))
    theirs = stats.bootstrap((values,), np.mean, method="percentile", random_state=1).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_several_values_of_the_same_queries_have_the_intervals_of_each_alone():
    rng = np.random.default_rng(0)
    values, groups = rng.integers(0, 2, (3, 60)).astype(float), rng.integers(0, 20, 60)
    values[:, 7] = np.nan
    assert estimates(values, groups) == [estimate(of_row, groups) for of_row in values]
    pairs = [(values[0], values[1]), (values[2], values[1])]
    together = paired_differences(*map(np.array, zip(*pairs, strict=True)), groups)
    assert together == [paired_difference(*pair, groups) for pair in pairs]


def test_p_is_that_of_scipys_permutation_test():
    rng = np.random.default_rng(0)
    first, second = rng.random(60), rng.random(60) + 0.08
    ours = paired_difference(first, second, np.arange(60))
    theirs = stats.permutation_test(
        (first, second),
        lambda a, b: np.mean(a - b),
        permutation_type="samples",
        random_state=1,
        n_resamples=9999,
    )
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.015)


def test_intervals_cover_the_truth_and_no_more_than_they_say(few_draws):
    """95 % of 300 intervals: between 91 and 98 % by the binomial distribution; of groups that agree, too."""
    rng = np.random.default_rng(0)
    covered = naive = 0
    for _ in range(300):
        shared = rng.standard_normal(40)
        groups = np.repeat(np.arange(40), 4)
        values = shared[groups] + 0.3 * rng.standard_normal(160)
        by_group = estimate(values, groups)
        by_row = estimate(values, np.arange(160))
        covered += by_group.low <= 0 <= by_group.high
        naive += by_row.low <= 0 <= by_row.high
    assert 0.91 <= covered / 300 <= 0.98
    # Rows of a group taken for independent ones promise twice as much.
    assert naive / 300 < 0.8


def test_the_test_rejects_true_nulls_as_often_as_it_says(few_draws):
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(30), 3)
    rejected = 0
    for _ in range(300):
        change = np.repeat(rng.standard_normal(30), 3)
        rejected += paired_difference(change, np.zeros(90), groups).p < 0.05
    assert 0.02 <= rejected / 300 <= 0.09


def test_queries_of_one_group_show_nothing():
    gap = paired_difference(np.ones(3), np.zeros(3), np.zeros(3, int))
    assert (gap.value, gap.p, gap.detectable, gap.n_needed) == (1, 1, np.inf, None)


def test_the_detectable_difference_is_found_in_four_of_five_sets(few_draws):
    rng = np.random.default_rng(2)
    groups = np.arange(100)
    detectable = paired_difference(rng.standard_normal(100), np.zeros(100), groups).detectable
    found = sum(
        paired_difference(rng.standard_normal(100) + detectable, np.zeros(100), groups).p < 0.05
        for _ in range(200)
    )
    assert 0.7 <= found / 200 <= 0.9


def test_the_needed_number_grows_as_the_difference_shrinks():
    values = np.random.default_rng(3).standard_normal(400)
    values -= values.mean()
    small = paired_difference(values + 0.05, np.zeros(400), np.arange(400))
    large = paired_difference(values + 0.1, np.zeros(400), np.arange(400))
    assert small.n_needed == pytest.approx(4 * large.n_needed, rel=0.02)
    assert paired_difference(np.ones(5), np.ones(5), np.arange(5)).n_needed is None


def test_holm_is_that_of_scipys_reference():
    rng = np.random.default_rng(4)
    for n in (1, 2, 7):
        p = rng.random(n) / 5
        order = np.argsort(p)
        expected = np.empty(n)
        highest = 0.0
        for rank, at in enumerate(order):
            highest = max(highest, min(1.0, p[at] * (n - rank)))
            expected[at] = highest
        assert holm(p) == pytest.approx(expected)


def test_queries_without_a_value_are_left_out_and_none_at_all_is_refused():
    values = np.array([1.0, np.nan, 0.0])
    assert estimate(values, np.arange(3)).n == 2
    with pytest.raises(InvalidParameterError, match="no query has a value"):
        estimate(np.full(3, np.nan), np.arange(3))


def test_the_area_is_that_of_scikit_learn_with_ties_and_covers_the_truth(few_draws):
    rng = np.random.default_rng(5)
    scores, is_positive = rng.integers(0, 8, 60).astype(float), rng.random(60) < 0.3
    ours = auroc(scores, is_positive, np.arange(60))
    assert ours.value == pytest.approx(roc_auc_score(is_positive, scores))
    assert ours.low < ours.value < ours.high
    # Two normal distributions one standard deviation apart have an area of 0.7602.
    covered = 0
    for _ in range(150):
        labels = np.arange(80) % 2 == 1
        drawn = auroc(rng.standard_normal(80) + labels, labels, np.arange(80))
        covered += drawn.low <= 0.7602 <= drawn.high
    assert 0.88 <= covered / 150 <= 0.99


@pytest.mark.parametrize("seed", ["0", -1, np.random.default_rng()])
def test_a_seed_that_is_none_is_refused_by_name(seed):
    with pytest.raises(InvalidParameterError, match="random_state is .*must be .*at least 0"):
        significance.estimate(np.ones(4), np.arange(4), random_state=seed)
