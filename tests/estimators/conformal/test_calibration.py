import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.conformal import (
    Threshold,
    from_good,
    from_labeled_pairs,
    from_nonmatching_pairs,
    p_values,
    required_examples,
)

scores = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80)


@given(scores, st.floats(0.01, 0.99))
def test_no_more_than_the_rate_of_all_but_one_and_the_next_exceed_it(
    values: list[float], rate: float
) -> None:
    # The definition itself: leave each score out in turn, and count how often it would have been an alarm.
    if len(values) - 1 < required_examples(rate):
        return
    alarms = [
        from_good(values[:i] + values[i + 1 :], false_alarm_rate=rate).exceeded([v])[0]
        for i, v in enumerate(values)
    ]
    assert np.mean(alarms) <= rate * (1 + 1e-9)


@given(st.integers(1, 400), st.floats(0.001, 0.999), st.none() | st.floats(0.7, 0.999))
def test_refuses_exactly_what_the_number_of_examples_cannot_promise(
    n: int, rate: float, confidence: float | None
) -> None:
    enough = n >= required_examples(rate, confidence=confidence)
    if not enough:
        with pytest.raises(CalibrationError, match=f"there are {n}") as refused:
            from_good(np.arange(n), false_alarm_rate=rate, confidence=confidence)
        # The way out that the message names is one.
        best = float(str(refused.value).rpartition("at least ")[2])
        if best < 1:
            from_good(np.arange(n), false_alarm_rate=best, confidence=confidence)
        return
    found = from_good(np.arange(n), false_alarm_rate=rate, confidence=confidence)
    assert found.expected_rate <= rate * (1 + 1e-9)
    if confidence is None:
        assert found.expected_rate > rate - 1 / (n + 1) - 1e-9


def test_the_number_needed_is_the_least() -> None:
    for rate in (0.5, 0.3, 0.1, 0.05, 0.01, 0.001):
        n = required_examples(rate)
        assert 1 / (n + 1) <= rate * (1 + 1e-9)
        assert n == 1 or 1 / n > rate


def test_with_confidence_the_rate_holds_in_that_share_of_draws() -> None:
    rng = np.random.default_rng(3)
    realized = []
    for _ in range(2000):
        threshold = from_good(rng.uniform(size=400), false_alarm_rate=0.05, confidence=0.9)
        realized.append(1 - threshold.value)  # the true rate of uniform scores
    held = np.mean(np.array(realized) <= 0.05)
    # k is a whole number, so the chance is somewhat above the one asked for.
    assert 0.9 - 5 * np.sqrt(0.09 / 2000) < held < 0.97


def digits_scores() -> np.ndarray:
    """Real data: distance of each handwritten digit to the nearest of others that are the reference."""
    X = load_digits().data
    order = np.random.default_rng(0).permutation(len(X))
    reference, rest = X[order[:600]], X[order[600:]]
    return NearestNeighbors(n_neighbors=1).fit(reference).kneighbors(rest)[0][:, 0]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_realized_rate_on_real_data_is_the_stated_one(rate: float) -> None:
    values, rng = digits_scores(), np.random.default_rng(1)
    n_splits, inside, realized, n_each = 300, 0, [], 200
    for _ in range(n_splits):
        shuffled = rng.permutation(values)
        threshold = from_good(shuffled[:-n_each], false_alarm_rate=rate)
        alarms = threshold.exceeded(shuffled[-n_each:]).mean()
        low, high = threshold.observed_rate_interval(n_each)
        inside += low <= alarms <= high
        realized.append(alarms)
    # Calibration sets differ too, so a little less than 95 % of the splits lie within the binomial band.
    assert inside / n_splits > 0.88
    expected = threshold.expected_rate
    assert abs(np.mean(realized) - expected) < 4 * np.sqrt(expected / n_each / n_splits) + 0.25 * rate


def test_pairs_are_calibrated_on_those_that_differ() -> None:
    rng = np.random.default_rng(0)
    same = np.arange(400) < 100
    values = rng.normal(0, 1, 400) + 6 * same
    found = from_labeled_pairs(values, same, false_alarm_rate=0.02)
    assert found.value == from_good(values[~same], false_alarm_rate=0.02).value
    assert found.n_examples == 300
    assert found.detection_rate == pytest.approx((values[same] > found.value).mean())
    assert from_labeled_pairs(values[~same], same[~same], false_alarm_rate=0.02).detection_rate is None


def test_a_background_holds_the_rate_for_a_whole_question() -> None:
    rng = np.random.default_rng(5)
    background = rng.normal(size=100_000)
    threshold = from_nonmatching_pairs(background, false_alarm_rate=0.05, n_comparisons=50)
    questions = rng.normal(size=(4000, 50))
    alarms = threshold.exceeded(questions.max(1)).mean()
    assert abs(alarms - threshold.expected_rate) < 5 * np.sqrt(0.05 / 4000) + 0.01
    assert 0.045 < threshold.expected_rate <= 0.05
    with pytest.raises(CalibrationError, match="99 random pairs"):
        from_nonmatching_pairs(background[:10], false_alarm_rate=0.01)


@given(scores, scores)
def test_p_values_count_what_is_at_least_as_alarming(calibration: list[float], asked: list[float]) -> None:
    naive = [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in asked]
    np.testing.assert_allclose(p_values(calibration, asked), naive)


@given(scores, st.floats(0.05, 0.9))
@settings(max_examples=50)
def test_an_alarm_is_a_p_value_of_at_most_the_rate(values: list[float], rate: float) -> None:
    if len(values) < required_examples(rate):
        return
    asked = np.array([*values, -2e6, 2e6])
    alarms = from_good(values, false_alarm_rate=rate).exceeded(asked)
    np.testing.assert_array_equal(alarms, p_values(values, asked) <= rate * (1 + 1e-9))


def test_what_has_no_score_is_an_alarm_and_no_example() -> None:
    threshold = from_good(np.arange(99), false_alarm_rate=0.01)
    assert threshold.exceeded([np.nan, np.inf, -np.inf, 98, 98.5]).tolist() == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert p_values([1.0], [np.nan, np.inf]).tolist() == [0.5, 0.5]
    for bad in (np.nan, np.inf):
        with pytest.raises(CalibrationError, match=r"scores\[1\] is"):
            from_good([1.0, bad], false_alarm_rate=0.5)


def test_equal_scores_make_alarms_rarer() -> None:
    threshold = from_good(np.ones(1000), false_alarm_rate=0.1)
    assert not threshold.exceeded(np.ones(10)).any()
    assert threshold.exceeded([1.1]).all()


def test_bad_arguments_are_named() -> None:
    for rate in (0, 1, -0.1, 1.5, float("nan")):
        with pytest.raises(InvalidParameterError, match="false_alarm_rate"):
            from_good([1.0], false_alarm_rate=rate)
    with pytest.raises(InvalidParameterError, match="confidence"):
        from_good([1.0], false_alarm_rate=0.5, confidence=1)
    with pytest.raises(InvalidParameterError, match="shape"):
        from_good([[1.0]], false_alarm_rate=0.5)
    with pytest.raises(InvalidParameterError, match="one label"):
        from_labeled_pairs([1.0, 2.0], [True], false_alarm_rate=0.5)
    with pytest.raises(InvalidParameterError, match="n_comparisons"):
        from_nonmatching_pairs([1.0], false_alarm_rate=0.5, n_comparisons=0)
    with pytest.raises(InvalidParameterError, match="n is 0"):
        from_good([1.0], false_alarm_rate=0.5).observed_rate_interval(0)
    with pytest.raises(CalibrationError, match="there are 0. Give 1$"):
        from_good([], false_alarm_rate=0.5)


def test_a_threshold_survives_a_file() -> None:
    threshold = from_labeled_pairs([0.1, 0.9, 0.2], [False, True, False], false_alarm_rate=0.4)
    assert Threshold.from_dict(json.loads(json.dumps(threshold.to_dict()))) == threshold


def test_a_thresholds_own_rate_lies_in_its_band():
    rng, n = np.random.default_rng(0), 39
    inside = 0
    for _ in range(1000):
        threshold = from_good(rng.random(n), false_alarm_rate=0.05)
        low, high = threshold.true_rate_interval()
        inside += low <= 1 - threshold.value <= high
    # The binomial 99.9 % band of 95 % among 1,000.
    assert 925 <= inside <= 972
