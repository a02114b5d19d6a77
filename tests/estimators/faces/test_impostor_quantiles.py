import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearsight.errors import InvalidParameterError
from nearsight.estimators.faces.impostor_quantiles import ImpostorQuantiles

RATES = 10 ** -np.arange(0.3, 5, 0.1)


def table(*ends):
    """One row for each number of images: from 0.7 up to its end."""
    rows = [np.linspace(0.7, end, len(RATES)) for end in ends or (0.92, 0.94, 0.95, 0.955)]
    return ImpostorQuantiles([1, 2, 3, 5][: len(rows)], RATES, rows, [100_000] * len(rows))


def test_one_comparison_has_the_tabulated_similarity():
    for row, n in zip(table().similarities, (1, 2, 3, 5), strict=True):
        for rate, similarity in list(zip(RATES, row, strict=True))[::7]:
            assert table().at_rate(rate, n) == pytest.approx(similarity, abs=1e-12)
            assert table().threshold(rate, [n]).value == pytest.approx(similarity, abs=1e-9)


def test_between_and_beyond_the_tabulated_numbers_it_is_linear_in_1_over_n():
    three, five = table().at_rate(0.01, 3), table().at_rate(0.01, 5)
    for n in (4, 10, 1000):
        share = (1 / n - 1 / 3) / (1 / 5 - 1 / 3)
        assert table().at_rate(0.01, n) == pytest.approx(three + share * (five - three))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 0.5), st.lists(st.integers(1, 12), min_size=1, max_size=30))
def test_the_share_of_faces_above_the_threshold_of_any_person_is_the_stated_one(rate, counts):
    """By Monte Carlo's exact counterpart: the product over persons, one by one."""
    threshold = table().threshold(rate, counts)
    if threshold.false_alarm_rate > rate:
        return
    exceeded = [
        math.exp(np.interp(threshold.value, table()._curve(n), np.log(RATES)))
        if threshold.value >= 0.7
        else 1.0
        for n in counts
    ]
    stated = 1 - math.prod(1 - each for each in exceeded)
    assert stated <= rate + 1e-6
    if threshold.value > 0.7 + 1e-9:
        assert stated == pytest.approx(rate, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(1e-5, 0.99),
    st.floats(1e-5, 0.99),
    st.lists(st.integers(1, 20), min_size=1, max_size=10),
)
def test_a_lower_rate_never_gives_a_lower_threshold(a, b, counts):
    low, high = sorted((a, b))
    assert table().threshold(low, counts).value >= table().threshold(high, counts).value


def test_a_rate_beyond_the_table_is_the_last_one_with_what_it_keeps():
    threshold = table().threshold(1e-4, [1] * 500)
    assert threshold.value == pytest.approx(0.92)
    assert threshold.false_alarm_rate == pytest.approx(1 - (1 - RATES[-1]) ** 500)


def test_a_mixture_lies_between_its_parts():
    one, five = table().at_rate(0.03, 1), table().at_rate(0.03, 5)
    assert table().mixture_at_rate(0.03, [1, 5], [1, 0]) == pytest.approx(one, abs=1e-9)
    assert one < table().mixture_at_rate(0.03, [1, 5], [1, 1]) < five


@pytest.mark.parametrize(
    "change",
    [
        {"n_enrolled": [2, 3]},
        {"rates": RATES[::-1]},
        {"similarities": [np.linspace(0.9, 0.7, len(RATES))] * 2},
        {"n_pairs": [1]},
    ],
)
def test_tables_out_of_order_are_refused(change):
    good = {
        "n_enrolled": [1, 2],
        "rates": RATES,
        "similarities": [np.linspace(0.7, 0.9, len(RATES))] * 2,
        "n_pairs": [9, 9],
    }
    ImpostorQuantiles(**good)
    with pytest.raises(InvalidParameterError):
        ImpostorQuantiles(**{**good, **change})
