import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nearsight.errors import InvalidParameterError
from nearsight.estimators.conformal import discoveries, tail_alarms, tail_p_values


def test_p_values_of_normal_scores_are_theirs():
    scores = np.random.default_rng(0).normal(3, 2, 5000)
    np.testing.assert_allclose(tail_p_values(scores), stats.norm.sf(scores, 3, 2), atol=0.03)


def test_a_few_outliers_do_not_hide_each_other():
    rng = np.random.default_rng(1)
    ordinary = rng.normal(size=400)
    outliers = np.full(20, 8.0)
    p = tail_p_values([*ordinary, *outliers])
    alarms = discoveries(p, 0.1)
    assert alarms[400:].all()
    assert alarms[:400].sum() <= 3


def test_few_alarms_among_normal_scores_and_a_single_outlier():
    rng = np.random.default_rng(3)
    n_false = [tail_alarms(rng.normal(size=300)).sum() for _ in range(100)]
    assert np.mean(n_false) < 1.5
    assert tail_alarms([*rng.normal(size=300), 4.5])[-1]


def test_scores_without_a_tail():
    assert (tail_p_values(np.arange(29)) == 1).all()
    assert tail_p_values([1.0] * 40).tolist() == [1.0] * 40
    assert tail_p_values([1.0] * 40 + [2.0])[-1] == 0


def test_the_stated_share_of_alarms_is_false():
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(200):
        p = np.r_[rng.uniform(size=90), rng.uniform(size=10) * 1e-4]
        alarms = discoveries(p, 0.1)
        shares.append(alarms[:90].sum() / max(alarms.sum(), 1))
    assert np.mean(shares) <= 0.1 + 3 * np.std(shares) / np.sqrt(200)
    assert np.mean(shares) > 0.03


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(0.01, 0.5))
def test_equals_the_reference(p, rate):
    expected = stats.false_discovery_control(p) <= rate if p else []
    assert (
        discoveries(p, rate).tolist() == list(expected)
        or np.isclose(stats.false_discovery_control(p), rate, atol=1e-9).any()
    )


def test_what_is_no_p_value_is_refused():
    with pytest.raises(InvalidParameterError, match="0..1"):
        discoveries([0.5, 1.2], 0.1)
    with pytest.raises(InvalidParameterError, match="false_discovery_rate"):
        discoveries([0.5], 1.0)
