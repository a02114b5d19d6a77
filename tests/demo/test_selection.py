from itertools import pairwise

import numpy as np
import pytest

from nearsight.demo.selection import diverse_rows, evenly_spaced, query_rows, similarity_order


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def clusters():
    """Three tight groups of five, interleaved, and one image unlike all."""
    rng = np.random.default_rng(0)
    centers = np.eye(8)[:3]
    rows = [centers[i % 3] + 0.03 * rng.standard_normal(8) for i in range(15)]
    return unit([*rows, np.eye(8)[7]])


def test_diverse_rows_come_from_every_group(clusters):
    chosen = diverse_rows(clusters, 4)
    assert {row % 3 if row < 15 else "alone" for row in chosen} == {0, 1, 2, "alone"}
    assert len(set(diverse_rows(clusters, 100))) == 16
    assert diverse_rows(clusters[:0], 3) == []


def test_query_rows_have_relatives_and_differ(clusters):
    chosen = query_rows(clusters, 3)
    assert {row % 3 for row in chosen} == {0, 1, 2}
    assert 15 not in chosen
    assert query_rows(clusters[:1], 3) == [0]
    assert sorted(query_rows(clusters, 100)) == list(range(16))


def test_the_order_keeps_groups_together(clusters):
    order = similarity_order(clusters, 4)
    assert sorted(order) == list(range(16))
    groups = [row % 3 if row < 15 else "alone" for row in order]
    changes = sum(a != b for a, b in pairwise(groups))
    assert changes == 3
    assert similarity_order(clusters[:0]) == []


def test_spacing_is_even_and_complete():
    assert evenly_spaced(5, 5) == [0, 1, 2, 3, 4]
    assert len(set(evenly_spaced(1000, 320))) == 320
    assert evenly_spaced(1000, 320)[-1] == 999
    assert evenly_spaced(0, 3) == []
