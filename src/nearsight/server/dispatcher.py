"""The queue between requests and the threads that decode and embed.

Whoever is free takes what waits: nobody lingers for a batch to fill. The queue is bounded in items, bytes and
predicted time; a request is accepted whole or not at all. What nobody waits for any more is dropped when its
turn comes, before any work is spent on it.
"""

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nearsight.server.errors import Problem
from nearsight.server.metrics import Metrics

_log = logging.getLogger("nearsight.server")

Priority = Literal["interactive", "bulk"]
# Every so many turns, what is in bulk comes first.
_BULK_TURN = 4
# How often who waits for room in the queue looks for it.
_ROOM_POLL_S = 0.05
# Who is told to come back later than this may not come: OpenAI's clients give up then.
_LONGEST_RETRY_S = 60
# The weight of the latest batch in the moving mean of seconds per item.
_SMOOTH = 0.1


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a lane made of a batch: for each item a result or an exception, and the seconds it took."""

    outcomes: list[Any]
    decode_s: float = 0.0
    infer_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Lane:
    """Items that can be worked on together.

    Attributes
    ----------
    name : str
        For metrics.
    run : callable
        Turns a list of items into a `BatchResult`. It may raise: then its items are tried one by one.
    most : int
        Items of one batch at most.
    """

    name: str
    run: Callable[[list[Any]], BatchResult]
    most: int = 8


@dataclass(slots=True)
class Timing:
    """Where the time of one request went, in seconds from `begun_ns`: waiting, decoding, embedding."""

    begun_ns: int = field(default_factory=time.time_ns)
    queue_s: float = 0.0
    decode_s: float = 0.0
    infer_s: float = 0.0

    def header(self) -> str:
        """Return the value of ``Server-Timing``."""
        parts = (("queue", self.queue_s), ("decode", self.decode_s), ("infer", self.infer_s))
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in parts)


@dataclass(eq=False)
class _Pending:
    """The items of one request."""

    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[list[Any]]"
    n_missing: int
    deadline: float
    outcomes: list[Any]
    timing: Timing = field(default_factory=Timing)
    is_abandoned: bool = False

    def finish(self, error: Problem | None = None) -> None:
        """Answer the request from any thread."""

        def settle() -> None:
            if not self.future.done():
                self.future.set_exception(error) if error else self.future.set_result(self.outcomes)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(settle)


@dataclass(slots=True)
class _Entry:
    pending: _Pending
    position: int
    item: Any
    n_bytes: int
    since: float


class Dispatcher:
    """Worker threads and what waits for them.

    Parameters
    ----------
    n_threads : int
    max_items, max_bytes : int
        What may wait at most.
    max_wait_s : float
        A request that would wait longer is refused.
    metrics : Metrics
    """

    def __init__(
        self, *, n_threads: int, max_items: int, max_bytes: int, max_wait_s: float, metrics: Metrics
    ) -> None:
        self._max_items, self._max_bytes, self._max_wait_s = max_items, max_bytes, max_wait_s
        self._metrics = metrics
        self._condition = threading.Condition()
        self._queues: dict[Priority, dict[Lane, deque[_Entry]]] = {"interactive": {}, "bulk": {}}
        self._n_items = self._n_bytes = self._n_busy = self._turn = 0
        self._seconds_per_item: float | None = None
        # When the last of the refused requests was told to come back.
        self._retry_at = -math.inf
        self._is_closed = False
        self._threads: list[threading.Thread] = []
        self.ensure_threads(n_threads)

    @property
    def is_alive(self) -> bool:
        """Whether every worker still runs, or ends because it was told to."""
        return self._is_closed or all(thread.is_alive() for thread in self._threads)

    @property
    def fill(self) -> float:
        """How full the queue is, 0..1."""
        return max(self._n_items / self._max_items, self._n_bytes / self._max_bytes)

    def ensure_threads(self, n: int) -> None:
        """Have at least `n` workers; an accelerator needs more than cores."""
        while len(self._threads) < n:
            thread = threading.Thread(
                target=self._work, name=f"nearsight-worker-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    async def submit(
        self,
        lane: Lane,
        items: Sequence[Any],
        *,
        sizes: Sequence[int],
        priority: Priority = "interactive",
        deadline_s: float = math.inf,
        wait_s: float = 0.0,
    ) -> tuple[list[Any], Timing]:
        """Wait for the outcomes of all items, results or exceptions, in order.

        If the caller is cancelled, what is still in the queue is dropped.

        Parameters
        ----------
        lane : Lane
        items : sequence
        sizes : sequence of int
            Bytes of each item.
        priority : str
        deadline_s : float
            From when the items are in the queue.
        wait_s : float
            How long to wait for room in the queue, before the items are refused.

        Raises
        ------
        Problem
            429: the queue is full, or the wait would be too long. 503: the service stops. 504: too late.
        """
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        refused_at = now + wait_s
        if not items:
            return [], Timing()
        while True:
            with self._condition:
                if self._has_room(len(items), sum(sizes), may_wait=now < refused_at):
                    pending = _Pending(
                        loop, loop.create_future(), len(items), now + deadline_s, [None] * len(items)
                    )
                    entries = [
                        _Entry(pending, i, item, n_bytes, now)
                        for i, (item, n_bytes) in enumerate(zip(items, sizes, strict=True))
                    ]
                    self._queues[priority].setdefault(lane, deque()).extend(entries)
                    self._count(lane, priority, entries, 1)
                    self._condition.notify(len(entries))
                    break
            await asyncio.sleep(_ROOM_POLL_S)
            now = time.monotonic()
        try:
            return await pending.future, pending.timing
        except asyncio.CancelledError:
            pending.is_abandoned = True
            raise

    async def close(self, grace_s: float) -> None:
        """Refuse what comes, finish what waits for at most `grace_s`, and end the workers."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        end = time.monotonic() + grace_s
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        with self._condition:
            waiting = [e for by_lane in self._queues.values() for q in by_lane.values() for e in q]
            for by_lane in self._queues.values():
                by_lane.clear()
            self._n_items = self._n_bytes = 0
        for pending in {id(entry.pending): entry.pending for entry in waiting}.values():
            pending.finish(_stopping())

    def _has_room(self, n_items: int, n_bytes: int, *, may_wait: bool) -> bool:
        """Return whether items may come into the queue; where they may not wait for that, refuse them."""
        if self._is_closed:
            raise _stopping()
        if n_items > self._max_items or n_bytes > self._max_bytes:
            raise Problem(
                413,
                f"the request has {n_items} items of {n_bytes:,} bytes, more than the queue holds; split it",
            )
        seconds = (self._seconds_per_item or 0.0) / len(self._threads)
        wait_s = (self._n_items + n_items) * seconds
        is_full = self._n_items + n_items > self._max_items or self._n_bytes + n_bytes > self._max_bytes
        # A request alone is accepted however long it takes: later it would take no less.
        if not is_full and (wait_s <= self._max_wait_s or not self._n_items):
            return True
        if not may_wait:
            self._metrics.rejected.labels("queue_full" if is_full else "max_wait").inc()
            # At the pace of the work: if all came back at once, most would be refused again.
            now = time.monotonic()
            next_s = max(1.0, wait_s, self._retry_at + n_items * seconds - now)
            self._retry_at = now + min(next_s, _LONGEST_RETRY_S)
            raise Problem(
                429,
                "the service is busy; try again later",
                code="queue_full",
                retry_after_s=self._retry_at - now,
            )
        return False

    def _count(self, lane: Lane, priority: Priority, entries: Sequence[_Entry], sign: int) -> None:
        self._n_items += sign * len(entries)
        self._n_bytes += sign * sum(entry.n_bytes for entry in entries)
        self._metrics.queue_items.labels(lane.name, priority).inc(sign * len(entries))
        self._metrics.queue_bytes.set(self._n_bytes)

    def _work(self) -> None:
        while True:
            with self._condition:
                while not (batch := self._take()):
                    if self._is_closed:
                        return
                    self._condition.wait()
                self._n_busy += 1
            lane, entries = batch
            try:
                self._embed(lane, entries)
            except Exception as error:
                _log.error("a batch was lost", exc_info=error)
                for entry in entries:
                    entry.pending.finish(Problem(500, "the service has failed; its log has the reason"))
            finally:
                with self._condition:
                    self._n_busy -= 1

    def _take(self) -> tuple[Lane, list[_Entry]] | None:
        """Take the next batch: the oldest of a class, and a share that leaves something for idle workers."""
        order: tuple[Priority, ...] = ("interactive", "bulk")
        for priority in reversed(order) if self._turn % _BULK_TURN == _BULK_TURN - 1 else order:
            by_lane = self._queues[priority]
            while by_lane:
                lane = min(by_lane, key=lambda lane: by_lane[lane][0].since)
                queue = by_lane[lane]
                n_idle = max(1, len(self._threads) - self._n_busy)
                size = min(lane.most, math.ceil(len(queue) / n_idle))
                taken: list[_Entry] = []
                dropped: list[_Entry] = []
                while queue and len(taken) < size:
                    entry = queue.popleft()
                    (taken if self._is_wanted(entry) else dropped).append(entry)
                self._count(lane, priority, [*taken, *dropped], -1)
                if not queue:
                    del by_lane[lane]
                if taken:
                    self._turn += 1
                    return lane, taken
        return None

    def _is_wanted(self, entry: _Entry) -> bool:
        pending = entry.pending
        if pending.is_abandoned:
            self._metrics.dropped.labels("client").inc()
            return False
        if time.monotonic() > pending.deadline:
            self._metrics.dropped.labels("deadline").inc()
            pending.is_abandoned = True
            pending.finish(
                Problem(504, "the request has waited too long in the queue; try again", retry_after_s=1)
            )
            return False
        return True

    def _embed(self, lane: Lane, entries: list[_Entry]) -> None:
        begun = time.monotonic()
        for entry in entries:
            self._metrics.queue_wait_seconds.labels(lane.name).observe(begun - entry.since)
        result = _run(lane, [entry.item for entry in entries])
        self._metrics.batch_items.labels(lane.name).observe(len(entries))
        self._metrics.decode_seconds.labels(lane.name).observe(result.decode_s)
        self._metrics.infer_seconds.labels(lane.name).observe(result.infer_s)
        self._metrics.embedded.labels(lane.name).inc(len(entries))
        seconds = (time.monotonic() - begun) / len(entries)
        done = []
        with self._condition:
            mean = self._seconds_per_item
            self._seconds_per_item = seconds if mean is None else mean + _SMOOTH * (seconds - mean)
            for entry, outcome in zip(entries, result.outcomes, strict=True):
                pending = entry.pending
                pending.outcomes[entry.position] = outcome
                pending.n_missing -= 1
                timing = pending.timing
                timing.queue_s = max(timing.queue_s, begun - entry.since)
                timing.decode_s += result.decode_s / len(entries)
                timing.infer_s += result.infer_s / len(entries)
                if not pending.n_missing:
                    done.append(pending)
        for pending in done:
            pending.finish()


def _run(lane: Lane, items: list[Any]) -> BatchResult:
    try:
        return lane.run(items)
    except Exception as error:
        if len(items) == 1:
            return BatchResult([error])
    # One item must not fail another's request.
    results = [_run(lane, [item]) for item in items]
    return BatchResult(
        [result.outcomes[0] for result in results],
        sum(result.decode_s for result in results),
        sum(result.infer_s for result in results),
    )


def _stopping() -> Problem:
    return Problem(503, "the service stops; try again", code="stopping", retry_after_s=5)
