"""A device and the threads of the processor end together, whichever is faster."""

import heapq
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearsight.models.runtimes.work_split import WorkSplit


def simulate(sizes, *, device_s, thread_s, n_threads, chunk=8, batch=64):
    """Return when the last image is done, and how many the device decoded; seconds are per pixel.

    Time is computed, so the machine's load does not matter. A thread takes some images, sends those that
    `WorkSplit` says to the device, decodes the others, and waits for the device.
    """
    split = WorkSplit()
    images = iter(sizes)
    queue, running, n_device, now = [], [], 0, 0.0
    # Images on the device, and when the thread is done with its own.
    pending, free_at = [0] * n_threads, [0.0] * n_threads
    events = [(0.0, i) for i in range(n_threads)]
    own = [[] for _ in range(n_threads)]

    def start():
        if queue and not running:
            running.extend(queue[:batch])
            del queue[:batch]
            heapq.heappush(events, (now + device_s * sum(size for _, size in running), -1))

    while events:
        now, who = heapq.heappop(events)
        if who == -1:
            n_pixels = sum(size for _, size in running)
            split.has_run(n_pixels, device_s * n_pixels)
            for thread, _ in running:
                pending[thread] -= 1
                if not pending[thread] and free_at[thread] <= now and not own[thread]:
                    heapq.heappush(events, (now, thread))
            running.clear()
        elif own[who]:
            size = own[who].pop(0)
            split.was_decoded(size, thread_s * size)
            if own[who]:
                heapq.heappush(events, (now + thread_s * own[who][0], who))
            else:
                free_at[who] = now
                if not pending[who]:
                    heapq.heappush(events, (now, who))
        elif taken := list(islice(images, chunk)):
            kept = 0
            for size in taken:
                if split.take(size, kept):
                    n_device += 1
                    pending[who] += 1
                    queue.append((who, size))
                else:
                    kept += size
                    own[who].append(size)
            if own[who]:
                free_at[who] = float("inf")
                heapq.heappush(events, (now + thread_s * own[who][0], who))
        start()
    return now, n_device


@settings(max_examples=60)
@given(ratio=st.floats(1, 60), n_threads=st.integers(1, 32), seed=st.integers(0, 5))
def test_both_end_together(ratio, n_threads, seed):
    """`ratio`: how many threads the device is worth."""
    sizes = [1.0 + (i * 7 + seed) % 5 for i in range(4000)]
    seconds, _ = simulate(sizes, device_s=1 / ratio, thread_s=1.0, n_threads=n_threads)
    best = sum(sizes) / (ratio + n_threads)
    # A thread waits for its last image on the device; threads beyond the number of cores fill that gap. And
    # the first images of all threads go to the device, whose speed is not known yet.
    assert seconds <= 1.35 * best + 8 * n_threads * 3 / ratio + 40


def test_a_device_that_is_much_faster_gets_nearly_all():
    _, n_device = simulate([1.0] * 2000, device_s=0.001, thread_s=1.0, n_threads=8)
    assert n_device > 1950


def test_a_device_that_is_slower_than_a_thread_gets_little_after_the_first_images():
    _, n_device = simulate([1.0] * 2000, device_s=10.0, thread_s=1.0, n_threads=8)
    assert n_device < 150


@pytest.mark.parametrize("device_s", [0.1, 0.02])
def test_it_beats_either_alone(device_s):
    sizes = [1.0] * 4000
    both, n_device = simulate(sizes, device_s=device_s, thread_s=1.0, n_threads=16)
    assert both < 0.9 * min(len(sizes) * device_s, len(sizes) / 16)
    assert 0 < n_device < len(sizes)


def test_nothing_is_known_at_first():
    split = WorkSplit()
    assert all(split.take(100) for _ in range(5))
    split.has_run(300, 3.0)
    # Now one image shows how fast a thread is.
    assert not split.take(100)
    assert split.take(100)
    split.was_decoded(100, 0.1)
    assert not split.take(100)
    split.has_run(300, 3.0)
    # An idle device is asked again.
    assert split.take(100)
