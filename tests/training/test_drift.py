"""Tests of new images beside known ones."""

import numpy as np
import pytest
from scipy.stats import fisher_exact
from sklearn.metrics import roc_auc_score

from nearsight.errors import InvalidParameterError
from nearsight.training.drift import _mmd, changed_mix, unknown_kinds

# Ten kinds of images, in 24 dimensions.
CENTERS = np.random.default_rng(9).normal(0, 1, (10, 24))


def of_kinds(kinds, seed, noise=0.45):
    rng = np.random.default_rng(seed)
    return (CENTERS[kinds] + rng.normal(0, noise, (len(kinds), 24))).astype(np.float32)


def mixed(n, seed, n_kinds=8):
    return of_kinds(np.random.default_rng(seed).integers(0, n_kinds, n), seed)


def test_the_same_mix_is_no_alarm_more_often_than_stated():
    unknown, mix = [], []
    for seed in range(30):
        known, new = mixed(140, 2 * seed), mixed(100, 2 * seed + 1)
        unknown.append(unknown_kinds(known, new, random_state=seed).p)
        mix.append(changed_mix(known, new, random_state=seed).p)
    # More than 6 of 30 at 5 % happen three times in 10,000.
    assert np.sum(np.array(unknown) <= 0.05) <= 6
    assert np.sum(np.array(mix) <= 0.05) <= 6


def test_foreign_images_are_found_and_named():
    known = mixed(400, 1)
    new = np.concatenate([mixed(180, 2), of_kinds(np.full(20, 9), 3)])
    result = unknown_kinds(known, new)
    assert result.p < 1e-3
    assert result.share > 0.1 > result.usual_share
    assert (result.rows[:15] >= 180).all()
    n_usual = round(result.usual_share * 200)
    table = [[len(result.rows), 200 - len(result.rows)], [n_usual, 200 - n_usual]]
    assert result.p == pytest.approx(fisher_exact(table, alternative="greater").pvalue)


def test_another_mix_of_known_kinds_is_a_changed_mix_and_nothing_foreign():
    known = mixed(400, 1)
    new = of_kinds(np.random.default_rng(5).choice(8, 200, p=[0.3, 0.3, 0.2] + [0.04] * 5), 5)
    assert changed_mix(known, new).p == 0.001
    assert unknown_kinds(known, new).p > 0.01


def test_the_discrepancy_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 1, (9, 3))
    kernel = np.exp(-((points[:, None] - points) ** 2).sum(axis=2))
    new, known = [2, 4, 5, 8], [0, 1, 3, 6, 7]

    def mean(rows, columns):
        values = [kernel[i, j] for i in rows for j in columns if i != j]
        return sum(values) / len(values)

    expected = mean(new, new) + mean(known, known) - 2 * mean(new, known)
    np.fill_diagonal(kernel, 0)
    assert _mmd(kernel, np.isin(np.arange(9), new)[None])[0] == pytest.approx(expected)


def test_the_effect_is_the_area_under_the_curve_out_of_sample():
    same = changed_mix(mixed(300, 1), mixed(300, 2)).auc
    other = changed_mix(mixed(300, 1), of_kinds(np.full(300, 8), 2)).auc
    assert 0.35 < same < 0.6
    assert other > 0.99
    scores, truth = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
    assert roc_auc_score(truth, scores) == 0.75


def test_too_few_images_are_refused():
    for test in (unknown_kinds, changed_mix):
        with pytest.raises(InvalidParameterError, match=r"400 known and 99 new images.* Wait for more"):
            test(mixed(400, 1), mixed(99, 2))
        with pytest.raises(
            InvalidParameterError, match=r"99 known and 400 new images.* Take fewer images as new"
        ):
            test(mixed(99, 1), mixed(400, 2))


@pytest.mark.parametrize("seed", ["0", -1, np.random.default_rng()])
def test_a_seed_that_is_none_is_refused_by_name(seed):
    X = np.zeros((100, 24), np.float32)
    for compare in (unknown_kinds, changed_mix):
        with pytest.raises(InvalidParameterError, match="random_state is .*must be .*at least 0"):
            compare(X, X, random_state=seed)
