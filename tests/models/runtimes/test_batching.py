"""Many threads, one device."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nearsight.models.runtimes.batching import DynamicBatcher


def test_rows_come_back_to_those_who_asked():
    batches = DynamicBatcher(lambda values: np.array(values, np.float32)[:, None] * 2, max_size=5)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(batches, [range(10 * i, 10 * i + i % 4) for i in range(50)]))
    assert [[int(row[0]) for row in rows] for rows in found] == [
        [2 * v for v in range(10 * i, 10 * i + i % 4)] for i in range(50)
    ]


def test_what_waits_goes_together_and_never_two_at_once():
    sizes, started, go_on = [], threading.Event(), threading.Event()
    busy = threading.Lock()

    def run(values):
        assert busy.acquire(blocking=False)
        started.set()
        go_on.wait(10)
        sizes.append(len(values))
        busy.release()
        return np.zeros((len(values), 1), np.float32)

    batches = DynamicBatcher(run, max_size=6)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(batches, [0])
        assert started.wait(10)
        others = [pool.submit(batches, [1, 2]) for _ in range(4)]
        while len(batches._waiting) < 8:
            pass
        go_on.set()
        assert [len(f.result()) for f in (first, *others)] == [1, 2, 2, 2, 2]
    assert sizes == [1, 6, 2]


def test_a_batch_that_fails_fails_for_those_in_it_and_no_more():
    def run(values):
        if "bad" in values:
            raise ValueError("bad")
        return np.zeros((len(values), 1), np.float32)

    batches = DynamicBatcher(run, max_size=1)
    with pytest.raises(ValueError, match="bad"):
        batches(["good", "bad"])
    assert len(batches(["good"])) == 1


def test_an_interrupt_leaves_nobody_waiting():
    def run(values):
        raise KeyboardInterrupt

    batches = DynamicBatcher(run)
    with pytest.raises(KeyboardInterrupt):
        batches([1])
    with pytest.raises(KeyboardInterrupt):
        batches([2])


def test_a_row_too_few_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        DynamicBatcher(lambda values: np.zeros((1, 1), np.float32))([1, 2])


def test_nothing():
    assert DynamicBatcher(lambda values: 1 / 0)([]) == []
