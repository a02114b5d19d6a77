"""Many threads, one device."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearsight.models.runtimes.batching import DynamicBatcher, batch_length


def test_rows_come_back_to_those_who_asked():
    batches = DynamicBatcher(lambda values: np.array(values, np.float32)[:, None] * 2, sizes=range(1, 6))
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
        go_on.wait(60)
        sizes.append(len(values))
        busy.release()
        return np.zeros((len(values), 1), np.float32)

    batches = DynamicBatcher(run, range(1, 7))
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(batches, [0])
        assert started.wait(60)
        others = [pool.submit(batches, [1, 2]) for _ in range(4)]
        while batches.n_waiting < 8:
            pass
        go_on.set()
        assert [len(f.result()) for f in (first, *others)] == [1, 2, 2, 2, 2]
    assert sizes == [1, 6, 2]


def test_a_batch_that_fails_fails_for_those_in_it_and_no_more():
    def run(values):
        if "bad" in values:
            raise ValueError("bad")
        return np.zeros((len(values), 1), np.float32)

    batches = DynamicBatcher(run, [1])
    with pytest.raises(ValueError, match="bad"):
        batches(["good", "bad"])
    assert len(batches(["good"])) == 1


def test_an_interrupt_leaves_nobody_waiting():
    def run(values):
        raise KeyboardInterrupt

    batches = DynamicBatcher(run, range(1, 33))
    with pytest.raises(KeyboardInterrupt):
        batches([1])
    with pytest.raises(KeyboardInterrupt):
        batches([2])


def test_a_row_too_few_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        DynamicBatcher(lambda values: np.zeros((1, 1), np.float32), [1, 2])([1, 2])


def test_nothing():
    assert DynamicBatcher(lambda values: 1 / 0, [1])([]) == []


class Device:
    """Counts what runs, and what waits while nothing runs."""

    def __init__(self, n_slots, sizes):
        self.n_slots, self.lock = n_slots, threading.Lock()
        self.running = self.finished = 0
        self.lengths, self.waits = [], []
        self.batcher = DynamicBatcher(self.run, sizes, n_slots=n_slots)
        self.sizes = sizes

    def run(self, values):
        with self.lock:
            self.running += 1
            assert self.running <= self.n_slots
            started = self.finished
            self.lengths.append(len(values))
        with self.lock:
            # What has finished since an item was queued: that is what it waited for.
            self.waits += [started - at for at, _ in values]
            self.running -= 1
            self.finished += 1
        return [value for _, value in values]

    def embed(self, values):
        with self.lock:
            at, ahead = self.finished, self.batcher.n_waiting
        assert self.batcher([(at, value) for value in values]) == list(values)
        return ahead


@settings(max_examples=30)
@given(
    n_threads=st.integers(1, 20),
    n_items=st.integers(1, 9),
    n_calls=st.integers(1, 12),
    n_slots=st.integers(1, 3),
    sizes=st.sampled_from([(1,), (1, 8, 32), (1, 8, 32, 64, 128, 256), range(1, 33)]),
)
def test_no_item_waits_for_items_to_come(n_threads, n_items, n_calls, n_slots, sizes):
    """Whatever threads arrive: the last item of each call runs, and after no more batches than lie before it.

    At most the items of all other threads are queued before an item, and each batch takes one at least.
    """
    device = Device(n_slots, sizes)
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(device.embed, [range(n_items)] * n_calls))
    assert sum(device.lengths) == n_items * n_calls
    assert max(device.waits) <= n_threads * n_items + n_slots
    assert all(n in sizes or 2 * n > min(s for s in sizes if s >= n) for n in device.lengths)


def test_a_device_is_never_idle_while_an_item_waits():
    """A thread that has its results leaves; another one goes on with what is queued."""
    go_on = [threading.Event() for _ in range(3)]
    started = threading.Semaphore(0)
    order = []

    def run(values):
        order.append(list(values))
        started.release()
        assert go_on[len(order) - 1].wait(60)
        return values

    batcher = DynamicBatcher(run, [1, 2])
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(batcher, [0])]
        assert started.acquire(timeout=60)
        futures += [pool.submit(batcher, [1, 2]), pool.submit(batcher, [3, 4])]
        while batcher.n_waiting < 4:
            pass
        # No thread arrives any more; each batch begins when the one before has ended.
        for event in go_on[:2]:
            event.set()
            assert started.acquire(timeout=60)
        assert futures[0].result(60) == [0]
        go_on[2].set()
        assert sorted(value for future in futures[1:] for value in future.result(60)) == [1, 2, 3, 4]
    assert len(order) == 3


def test_two_batches_run_at_once_where_there_are_two_slots():
    both = threading.Barrier(2)

    def run(values):
        both.wait(60)
        return values

    batcher = DynamicBatcher(run, [1], n_slots=2)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(batcher, [[1], [2]])) == [[1], [2]]


def test_a_result_may_be_none():
    assert DynamicBatcher(lambda values: [None] * len(values), [4])([1, 2]) == [None, None]


@given(n=st.integers(1, 1000), sizes=st.sampled_from([(1,), (1, 8, 32), (1, 8, 32, 64, 128, 256)]))
def test_no_batch_is_padding_for_the_most_part(n, sizes):
    taken = batch_length(n, sizes)
    padded = min(size for size in sizes if size >= taken)
    assert 1 <= taken <= n
    assert 2 * taken > padded
    # And it is the largest of that kind.
    assert taken == n or taken in sizes
