"""A distance counts by what is usual in its place."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearsight.errors import InvalidParameterError
from nearsight.estimators.anomaly import PositionScale


def maps(n: int, side: int = 40, seed: int = 0) -> np.ndarray:
    """Distances that are larger and more skewed near the border, as those of a padded network."""
    rng = np.random.default_rng(seed)
    edge = np.minimum(np.arange(side), np.arange(side)[::-1])
    distance = np.minimum(edge[:, None], edge)
    return (
        1 + np.where(distance < 3, 3 - distance, 0) + rng.exponential(1 + 2 * (distance < 2), (n, side, side))
    )


def fitted(values: np.ndarray) -> PositionScale:
    scale = PositionScale()
    for one in values:
        scale.add(one)
    scale.fit_tails(list(values))
    return scale


def share_on_border(values: np.ndarray) -> float:
    hottest = [np.unravel_index(one.argmax(), one.shape) for one in values]
    return float(np.mean([min(y, x, len(values[0]) - 1 - y, len(values[0]) - 1 - x) < 2 for y, x in hottest]))


def test_good_images_are_hottest_on_the_border_no_more_often_than_elsewhere():
    scale, new = fitted(maps(60)), maps(300, seed=1)
    area = 1 - (36 / 40) ** 2
    assert share_on_border(new) > 0.95
    standardized = np.stack([scale.standardized(one) for one in new])
    assert share_on_border(standardized) < 1.5 * area + 2 * np.sqrt(area * (1 - area) / 300)


def test_each_place_has_mean_0_and_spread_1():
    rng = np.random.default_rng(0)
    spread = np.repeat(np.linspace(1, 3, 8), 5)[:, None] * np.ones(40)
    usual = 5 + spread
    scale = PositionScale()
    for _ in range(2000):
        scale.add(rng.normal(usual, spread))
    new = np.stack([scale.standardized(rng.normal(usual, spread)) for _ in range(400)])
    assert np.abs(new.mean(0)).max() < 0.5
    assert new.std(0).min() > 0.8
    assert new.std(0).max() < 1.25


def test_a_border_place_that_hardly_varied_by_chance_counts_as_its_ring_does():
    """As independent maps of few images are: a z-score by their own variance alone has heavy tails."""
    rng = np.random.default_rng(0)
    scale = PositionScale()
    values = rng.normal(5, 1, (12, 30, 30))
    values[:, 0, :5] = 5 + 0.2 * (values[:, 0, :5] - 5)
    for one in values:
        scale.add(one)
    by_itself = PositionScale.from_state({"n_maps": 12}, scale.state()[1])
    new = np.full((30, 30), 6.0)
    raised, plain = (np.abs(s.standardized(new))[0, :5].mean() for s in (scale, by_itself))
    assert raised < 0.75 * plain
    # With many images, the place is known to vary less.
    many = PositionScale()
    for _ in range(100):
        for one in values:
            many.add(one)
    known = np.abs(many.standardized(new))[0, :5].mean()
    assert known > 0.9 * plain


@pytest.mark.parametrize("n", [8, 20])
def test_new_images_of_few_good_ones_are_not_hottest_on_the_border(n):
    """Cross-validated tails and pooled variances: by the maps themselves, the share is twice the area."""
    shares = []
    for seed in range(6):
        scale = fitted(maps(n, seed=seed))
        shares.append(
            share_on_border(np.stack([scale.standardized(one) for one in maps(60, seed=100 + seed)]))
        )
    area = 1 - (36 / 40) ** 2
    assert np.mean(shares) < 1.5 * area


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=2, max_size=4))
@settings(max_examples=30)
def test_maps_may_have_any_sizes(sizes):
    rng = np.random.default_rng(0)
    values = [rng.exponential(size=size) for size in sizes]
    scale = PositionScale()
    for one in values[1:]:
        scale.add(one)
    scale.fit_tails(values[1:])
    found = scale.standardized(values[0])
    assert found.shape == sizes[0]
    assert np.isfinite(found).all()


def test_what_never_varied_raises_no_alarm_by_a_rounding_error():
    scale = fitted(np.ones((5, 30, 30)))
    assert np.abs(scale.standardized(np.full((30, 30), 1 + 1e-7))).max() < 1


def test_plain_data_is_all_of_it():
    scale = fitted(maps(20))
    facts, arrays = scale.state()
    assert facts["pooled"]
    again = PositionScale.from_state(json.loads(json.dumps(facts)), arrays)
    np.testing.assert_array_equal(again.standardized(maps(1)[0]), scale.standardized(maps(1)[0]))
    with pytest.raises(ValueError, match="shape"):
        PositionScale.from_state(facts, {**arrays, "sums": np.ones(3)})


def test_refuses_what_it_cannot_work_with():
    with pytest.raises(InvalidParameterError, match="0 maps"):
        PositionScale().standardized(np.ones((3, 3)))
    with pytest.raises(InvalidParameterError, match="neither 0"):
        PositionScale().add(np.ones((0, 3)))
