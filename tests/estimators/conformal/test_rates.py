"""The rate of any threshold: what the calibration states, and what new good examples do."""

import numpy as np
import pytest

from nearsight.estimators.conformal import from_good, rate_above


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.5])
def test_a_calibrated_threshold_has_the_rate_and_the_interval_that_it_states(rate):
    scores = np.random.default_rng(0).normal(size=199)
    threshold = from_good(scores, false_alarm_rate=rate)
    own = rate_above(scores, threshold.value)
    assert own.expected == pytest.approx(threshold.expected_rate)
    assert (own.low, own.high) == pytest.approx(threshold.true_rate_interval())


def test_the_expected_rate_and_the_interval_hold_for_new_examples():
    """For fixed thresholds: the share above is at most the expected one, and mostly in the interval."""
    rng = np.random.default_rng(1)
    for value in (-1.0, 0.0, 1.0, 2.0):
        true_share = (rng.normal(size=200_000) > value).mean()
        estimates = [rate_above(rng.normal(size=40), value) for _ in range(2000)]
        assert true_share <= np.mean([each.expected for each in estimates]) + 0.005
        covered = np.mean([each.low <= true_share <= each.high for each in estimates])
        assert covered > 0.9


def test_the_ends_say_what_is_not_known():
    assert rate_above([1.0, 2.0], 0.0).expected == 1
    assert rate_above([], 0.0).expected == 1
    above_all = rate_above(range(19), 1e9)
    assert (above_all.expected, above_all.n_above) == (0.05, 0)
