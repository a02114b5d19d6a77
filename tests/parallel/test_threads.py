"""The ordered map over threads."""

import threading
import time
from itertools import count, islice

import pytest

from nearsight.parallel import ordered_map


def test_results_keep_the_order_of_the_items():
    def slow_first(i: int) -> int:
        time.sleep(0.002 * (5 - i % 5))
        return i * i

    assert list(ordered_map(slow_first, range(40), n_threads=4)) == [i * i for i in range(40)]


def test_threads_work_at_the_same_time():
    barrier = threading.Barrier(3, timeout=60)
    assert len(list(ordered_map(lambda _: barrier.wait(), range(3), n_threads=3))) == 3


@pytest.mark.parametrize(("look_ahead", "most"), [(None, 5), (7, 8)])
def test_an_endless_input_is_read_only_so_far_ahead(look_ahead, most):
    taken = []
    items = (taken.append(i) or i for i in count())
    results = ordered_map(lambda i: i, items, n_threads=2, look_ahead=look_ahead)
    assert list(islice(results, 10)) == list(range(10))
    assert len(taken) <= 10 + most - 1
    results.close()


def test_an_error_comes_where_its_result_would_have_been():
    def fails_at_three(i: int) -> int:
        if i == 3:
            raise ValueError("three")
        return i

    results = ordered_map(fails_at_three, range(1000), n_threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_closing_leaves_no_thread_behind():
    before = threading.active_count()
    results = ordered_map(lambda i: i, count(), n_threads=4)
    next(results)
    results.close()
    assert threading.active_count() == before
