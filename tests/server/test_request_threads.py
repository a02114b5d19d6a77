"""Threads of requests: in order, bounded, and no reason not to end."""

import asyncio
import threading

import pytest

from nearsight.server.errors import Problem
from nearsight.server.request_threads import RequestThreads

from coroutines import run_coroutine


def test_calls_return_raise_and_share_threads():
    async def run():
        threads = RequestThreads(2, "shared")
        assert await asyncio.gather(*(threads.run(lambda n=n: n * n) for n in range(50))) == [
            n * n for n in range(50)
        ]
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        for _ in range(20):  # one after another needs one thread
            assert (await threads.run(lambda: threading.current_thread().name)).startswith("shared-")
        assert len(threads._threads) <= 2
        await threads.close(10)
        assert not any(thread.is_alive() for thread in threads._threads)

    run_coroutine(run())


def test_one_thread_serves_calls_that_follow_each_other():
    async def run():
        threads = RequestThreads(4, "one")
        names = set()
        for _ in range(20):
            names.add(await threads.run(lambda: threading.current_thread().name))
            while not threads._n_idle:
                await asyncio.sleep(0)
        assert names == {"one-0"}
        await threads.close(10)

    run_coroutine(run())


def test_what_has_not_begun_is_dropped_with_its_request():
    async def run():
        may_end, ran = threading.Event(), []
        threads = RequestThreads(1, "dropped", answer_s=0.05)
        with pytest.raises(Problem) as late:
            await threads.run(may_end.wait)
        with pytest.raises(Problem):
            await threads.run(lambda: ran.append("late"))
        left = asyncio.ensure_future(threads.run(lambda: ran.append("left")))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert (late.value.status, late.value.code) == (503, "collection_away")
        may_end.set()
        while await _is_refused(threads):
            await asyncio.sleep(0.01)
        assert ran == []
        await threads.close(10)

    run_coroutine(run())


def test_a_call_that_never_ends_does_not_hold_up_the_end():
    async def run():
        never = threading.Event()
        threads = RequestThreads(1, "held", answer_s=0.01)
        with pytest.raises(Problem):
            await threads.run(never.wait)
        await threads.close(0.01)
        assert threads._threads[0].daemon
        never.set()

    run_coroutine(run())


async def _is_refused(threads) -> bool:
    try:
        return await threads.run(lambda: False)
    except Problem:
        return True
