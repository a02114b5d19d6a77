"""Good examples among which lie others, unnamed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.conformal import expected_exceedances, from_contaminated, from_good

N_SPLITS = 60


def test_expected_exceedances_are_what_a_truncated_exponential_leaves():
    rng = np.random.default_rng(0)
    for scale in (0.03, 0.08, 0.15):
        scores = 0.2 + rng.exponential(scale, 4000)
        over = scores[(scores >= 0.4) & (scores < 0.7)] - 0.4
        # The likelihood of the paper, maximized by a search that knows nothing of its derivative.
        best = optimize.minimize_scalar(
            lambda d, over=over: d * over.sum() - len(over) * np.log(d / -np.expm1(-d * 0.3)),
            bounds=(1e-3, 200),
            method="bounded",
        ).x
        there = stats.expon(scale=1 / best)
        expected = len(over) * (there.cdf(0.6) - there.cdf(0.4)) / there.cdf(0.3)
        assert expected_exceedances(scores, 0.8, certain_score=0.7) == pytest.approx(expected, rel=1e-3)


def test_a_tail_that_rises_is_taken_for_a_level_one():
    scores = np.concatenate([np.zeros(100), np.linspace(0.6, 0.69, 30)])
    assert expected_exceedances(scores, 0.7, certain_score=0.7) == pytest.approx(30)
    assert expected_exceedances(scores, 0.85, certain_score=0.7) == pytest.approx(15)


def test_nothing_near_means_nothing_unseen():
    assert expected_exceedances(np.linspace(-1, 0.39, 50), 0.7, certain_score=0.7) == 0
    assert expected_exceedances([], 0.7, certain_score=0.7) == 0
    assert expected_exceedances([0.4] * 20, 0.7, certain_score=0.7) == pytest.approx(0)


@given(st.lists(st.floats(-1, 1), max_size=60), st.floats(0.4, 1))
def test_fewer_score_more(scores, at):
    rest = expected_exceedances(scores, at, certain_score=0.7)
    assert 0 <= rest <= 2 * len(scores) + 1e-6
    assert expected_exceedances(scores, min(1.0, at + 0.1), certain_score=0.7) <= rest + 1e-6


def test_without_others_it_is_from_good():
    scores = np.random.default_rng(1).uniform(0, 0.3, 500)
    assert from_contaminated(scores, false_alarm_rate=0.05, certain_score=0.7) == from_good(
        scores, false_alarm_rate=0.05
    )


@pytest.mark.parametrize("easy", [True, False])
@pytest.mark.parametrize("scale", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_rate_holds_or_is_refused(scale, rate, easy):
    """Of 3,000, a third is no good example: all of them far above the good ones, or a part among them."""
    realized, n = [], 2000
    for seed in range(N_SPLITS):
        rng = np.random.default_rng(seed)
        good = np.minimum(rng.exponential(scale, 2 * n), 0.999)
        others = rng.uniform(0.72, 1, n // 2) if easy else rng.beta(12, 2, n // 2)
        try:
            found = from_contaminated([*good[:n], *others], false_alarm_rate=rate, certain_score=0.7)
        except CalibrationError:
            continue
        assert found.expected_rate <= rate + 1e-12
        realized.append(float(found.exceeded(good[n:]).mean()))
    noise = np.sqrt(2 * rate / n / max(1, len(realized)))
    if easy and (scale < 0.2 or rate > 0.04):
        assert len(realized) > 0.9 * N_SPLITS
        assert np.mean(realized) == pytest.approx(rate, abs=4 * noise)
    elif easy:
        # Of exponential ones with a scale of .2, three in a hundred score .7 or more.
        assert len(realized) == 0
    elif realized:
        assert np.mean(realized) <= rate + 4 * noise


def test_good_ones_that_pass_for_others_are_refused():
    scores = np.random.default_rng(0).uniform(size=1000)
    with pytest.raises(CalibrationError, match=r"cannot be kept.*known to be good") as refused:
        from_contaminated(scores, false_alarm_rate=0.01, certain_score=0.7)
    offered = float(str(refused.value).rsplit(" ", 1)[1])
    assert from_contaminated(scores, false_alarm_rate=offered, certain_score=0.7).expected_rate <= offered


def test_too_few_are_refused():
    with pytest.raises(CalibrationError, match="at least 99"):
        from_contaminated([0.1] * 50 + [0.9] * 60, false_alarm_rate=0.01, certain_score=0.7)


@pytest.mark.parametrize("wrong", [{"tail_width": 0}, {"max_score": 0.7}])
def test_what_cannot_be_is_named(wrong):
    with pytest.raises(InvalidParameterError, match="certain_score is 0.7"):
        expected_exceedances([0.5], 0.7, certain_score=0.7, **wrong)
