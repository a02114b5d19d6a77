"""Which images judge a training."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nearsight.training.split import draws, rows_of_test


@given(st.lists(st.integers(0, 30), min_size=4, max_size=60), st.booleans(), st.integers(0, 5))
def test_things_and_near_duplicates_are_never_on_two_sides(numbers, whole_classes, seed):
    y = np.unique(numbers, return_inverse=True)[1]
    # Near-duplicates are of one class.
    groups = y * 100 + np.arange(len(y)) // 2
    is_test = rows_of_test(y, groups, [""] * len(y), whole_classes=whole_classes, random_state=seed)
    sides = y if whole_classes else groups
    assert not set(sides[is_test]) & set(sides[~is_test])
    for draw in draws(y, groups, whole_classes=whole_classes, random_state=seed):
        assert not set(groups[draw.fit]) & set(groups[draw.validation])
        assert not set(y[draw.fit]) & set(y[draw.unseen])
        if whole_classes:
            assert not set(y[draw.fit]) & set(y[draw.validation])
            assert set(draw.gallery) == set(draw.validation) == set(draw.unseen)
        else:
            assert set(draw.gallery) == set(draw.fit)
    if not whole_classes:
        assert not any(len(draw.unseen) for draw in draws(y, groups, known_only=True, random_state=seed))
