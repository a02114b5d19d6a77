import asyncio
import threading
import time

import pytest

from nearsight.server.dispatcher import BatchResult, Dispatcher, Lane
from nearsight.server.errors import Problem
from nearsight.server.metrics import Metrics

from coroutines import run_coroutine


class Work:
    """A lane whose batches wait until they are let go."""

    def __init__(self, most=8, name="lane"):
        self.batches = []
        self.go = threading.Event()
        self.lane = Lane(name, self.run, most)

    def run(self, items):
        self.go.wait(10)
        self.batches.append(list(items))
        if "poison" in items:
            raise RuntimeError("the batch fails")
        return BatchResult([item * 2 for item in items], 0.25, 0.5)


def make(metrics=None, **settings):
    return Dispatcher(
        **{"n_threads": 1, "max_items": 16, "max_bytes": 1000, "max_wait_s": 60, **settings},
        metrics=metrics or Metrics(),
    )


async def submit(dispatcher, lane, items, **options):
    return await dispatcher.submit(lane, items, sizes=[1] * len(items), **options)


async def settled():
    for _ in range(5):
        await asyncio.sleep(0.01)


def run(coroutine):
    return run_coroutine(asyncio.wait_for(coroutine, 120))


async def blocked(dispatcher, work):
    """Occupy the only worker."""
    first = asyncio.ensure_future(submit(dispatcher, work.lane, [0]))
    while not dispatcher._n_busy:
        await asyncio.sleep(0.005)
    return first


def test_results_come_in_order_with_their_times():
    async def main():
        work, dispatcher = Work(), make()
        work.go.set()
        outcomes, timing = await submit(dispatcher, work.lane, [1, 2, 3])
        assert outcomes == [2, 4, 6]
        assert timing.header().count("dur=") == 3
        assert timing.infer_s == pytest.approx(0.5)
        assert (await submit(dispatcher, work.lane, []))[0] == []
        await dispatcher.close(5)

    run(main())


def test_what_waits_is_taken_together_without_lingering():
    async def main():
        work, dispatcher = Work(), make()
        first = await blocked(dispatcher, work)
        others = [asyncio.ensure_future(submit(dispatcher, work.lane, [i])) for i in range(1, 6)]
        await settled()
        work.go.set()
        await asyncio.gather(first, *others)
        assert work.batches == [[0], [1, 2, 3, 4, 5]]
        await dispatcher.close(5)

    run(main())


def test_idle_workers_share():
    async def main():
        gate = threading.Barrier(2, timeout=60)

        def run_both(items):
            gate.wait()  # passes only if two workers are here at once
            return BatchResult(list(items))

        dispatcher = make(n_threads=2)
        outcomes, _ = await submit(dispatcher, Lane("x", run_both, 8), [1, 2, 3, 4])
        assert outcomes == [1, 2, 3, 4]
        await dispatcher.close(5)

    run(main())


def test_the_queue_is_bounded_in_items_and_bytes_and_takes_requests_whole():
    async def main():
        metrics = Metrics()
        work, dispatcher = Work(), make(metrics, max_items=4, max_bytes=10)
        first = await blocked(dispatcher, work)
        waiting = asyncio.ensure_future(submit(dispatcher, work.lane, [1, 2, 3]))
        await settled()
        with pytest.raises(Problem) as full:
            await submit(dispatcher, work.lane, [4, 5])
        assert full.value.status == 429
        assert int(full.value.headers["Retry-After"]) >= 1
        with pytest.raises(Problem) as full:
            await dispatcher.submit(work.lane, [4], sizes=[9])
        assert full.value.status == 429
        with pytest.raises(Problem) as too_large:
            await submit(dispatcher, work.lane, list(range(5)))
        assert too_large.value.status == 413
        last = asyncio.ensure_future(submit(dispatcher, work.lane, [6]))
        await settled()
        work.go.set()
        await asyncio.gather(first, waiting, last)
        assert sorted([item for batch in work.batches for item in batch]) == [0, 1, 2, 3, 6]
        assert metrics.registry.get_sample_value("nearsight_rejected_total", {"reason": "queue_full"}) == 2
        await dispatcher.close(5)

    run(main())


def test_who_waits_for_room_is_not_refused_and_keeps_nobody_else_away():
    async def main():
        metrics = Metrics()
        work, dispatcher = Work(), make(metrics, max_items=1)
        first = await blocked(dispatcher, work)
        second = asyncio.ensure_future(submit(dispatcher, work.lane, [1]))
        await settled()
        patient = asyncio.ensure_future(submit(dispatcher, work.lane, [2], wait_s=60))
        await asyncio.sleep(0.3)
        count = metrics.registry.get_sample_value
        assert count("nearsight_rejected_total", {"reason": "queue_full"}) is None
        assert await refused(dispatcher, work) == "1"
        with pytest.raises(Problem) as late:
            await submit(dispatcher, work.lane, [3], wait_s=0.1)
        assert late.value.status == 429
        assert count("nearsight_rejected_total", {"reason": "queue_full"}) == 2
        work.go.set()
        assert [(await each)[0] for each in (first, second, patient)] == [[0], [2], [4]]
        await dispatcher.close(5)

    run(main())


async def refused(dispatcher, work):
    with pytest.raises(Problem) as busy:
        await submit(dispatcher, work.lane, [2])
    return busy.value.headers["Retry-After"]


def test_the_predicted_wait_is_bounded():
    async def main():
        work, dispatcher = Work(), make(max_wait_s=1.0)
        dispatcher._seconds_per_item = 0.6
        first = await blocked(dispatcher, work)
        waiting = asyncio.ensure_future(submit(dispatcher, work.lane, [1]))
        await settled()
        with pytest.raises(Problem) as busy:
            await submit(dispatcher, work.lane, [2])
        assert (busy.value.status, busy.value.headers["Retry-After"]) == (429, "2")
        # If all who are refused came back at once, most would be refused again.
        told = [int(await refused(dispatcher, work)) for _ in range(200)]
        assert len(set(told)) > 20
        assert max(told) == 60
        work.go.set()
        await asyncio.gather(first, waiting)
        await dispatcher.close(5)

    run(main())


def test_what_nobody_waits_for_costs_nothing():
    async def main():
        metrics = Metrics()
        work, dispatcher = Work(), make(metrics)
        first = await blocked(dispatcher, work)
        left = asyncio.ensure_future(submit(dispatcher, work.lane, [1, 2]))
        late = asyncio.ensure_future(submit(dispatcher, work.lane, [3], deadline_s=0.01))
        stays = asyncio.ensure_future(submit(dispatcher, work.lane, [4]))
        await settled()
        left.cancel()
        await settled()
        work.go.set()
        await asyncio.gather(first, stays)
        with pytest.raises(Problem) as too_late:
            await late
        assert too_late.value.status == 504
        assert work.batches == [[0], [4]]
        value = metrics.registry.get_sample_value
        assert value("nearsight_dropped_total", {"reason": "client"}) == 2
        assert value("nearsight_dropped_total", {"reason": "deadline"}) == 1
        assert value("nearsight_queue_bytes") == 0
        await dispatcher.close(5)

    run(main())


def test_interactive_comes_first_and_bulk_is_not_starved():
    async def main():
        work, dispatcher = Work(most=1), make()
        first = await blocked(dispatcher, work)
        bulk = asyncio.ensure_future(submit(dispatcher, work.lane, [100, 101, 102], priority="bulk"))
        await settled()
        quick = asyncio.ensure_future(submit(dispatcher, work.lane, list(range(1, 10))))
        await settled()
        work.go.set()
        await asyncio.gather(first, bulk, quick)
        order = [item for batch in work.batches for item in batch][1:]
        assert order[:2] == [1, 2]
        assert order.index(100) <= 3
        assert order.index(101) <= 7
        await dispatcher.close(5)

    run(main())


def test_lanes_are_never_mixed_and_the_oldest_comes_first():
    async def main():
        one, two, dispatcher = Work(name="one"), Work(name="two"), make()
        first = await blocked(dispatcher, one)
        later = [
            asyncio.ensure_future(submit(dispatcher, lane, [i]))
            for i, lane in ((1, two.lane), (2, one.lane), (3, two.lane))
        ]
        await settled()
        two.go.set()
        one.go.set()
        await asyncio.gather(first, *later)
        assert (one.batches, two.batches) == ([[0], [2]], [[1, 3]])
        await dispatcher.close(5)

    run(main())


def test_an_item_that_fails_does_not_fail_its_neighbors():
    async def main():
        work, dispatcher = Work(), make()
        first = await blocked(dispatcher, work)
        others = [asyncio.ensure_future(submit(dispatcher, work.lane, [i])) for i in (1, "poison", 3)]
        await settled()
        work.go.set()
        results = await asyncio.gather(first, *others)
        outcomes = [outcomes[0] for outcomes, _ in results]
        assert outcomes[0:2] == [0, 2]
        assert isinstance(outcomes[2], RuntimeError)
        assert outcomes[3] == 6
        assert dispatcher.is_alive
        await dispatcher.close(5)

    run(main())


def test_closing_finishes_what_waits_and_refuses_what_comes():
    async def main():
        work, dispatcher = Work(), make()
        first = await blocked(dispatcher, work)
        waiting = asyncio.ensure_future(submit(dispatcher, work.lane, [1]))
        await settled()
        closing = asyncio.ensure_future(dispatcher.close(10))
        await settled()
        with pytest.raises(Problem) as refused:
            await submit(dispatcher, work.lane, [2])
        assert refused.value.status == 503
        work.go.set()
        assert (await waiting)[0] == [2]
        await asyncio.gather(first, closing)

    run(main())


def test_closing_answers_what_it_cannot_finish():
    async def main():
        work, dispatcher = Work(), make()
        first = await blocked(dispatcher, work)
        waiting = asyncio.ensure_future(submit(dispatcher, work.lane, [1]))
        await settled()
        await dispatcher.close(0.05)
        with pytest.raises(Problem) as refused:
            await waiting
        assert refused.value.status == 503
        work.go.set()
        await first

    run(main())


def test_a_dead_worker_is_noticed():
    dispatcher = make()
    assert dispatcher.is_alive
    dispatcher._threads.append(dead := threading.Thread(target=time.time))
    dead.start()
    dead.join()
    assert not dispatcher.is_alive
