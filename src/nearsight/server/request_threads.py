"""The threads in which requests wait: those of one database never hold up what has nothing to do with it.

A server that is stopped, or behind a network that swallows packets, answers nothing and refuses nothing: a
call to it waits without end. So each collection that does not lie in a directory has threads of its own; a
request waits for them only so long, and none waits where all of them are held already.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar

from nearsight.server.errors import Problem

_T = TypeVar("_T")
_Call = tuple["Future[Any]", Callable[[], Any]]

#: The collection that the request of this context names.
requested_collection: ContextVar[str] = ContextVar("requested_collection", default="")

# Who asks for a database all of whose threads have been held for so long is refused at once.
_HELD_S = 10.0
# When to come again where many wait.
_RETRY_S = 5.0


def note_collection(path_params: Mapping[str, Any]) -> None:
    """Note which collection a request names in its path, for the choice of its threads."""
    requested_collection.set(str(path_params.get("name", "")))


class RequestThreads:
    """Threads for calls that block; they never keep the process from ending.

    Parameters
    ----------
    n_threads : int
        At most; each is started when it is needed.
    title : str
        Of the threads.
    answer_s : float, optional
        How long a request waits for its call; by default until it returns.
    most_waiting : int, optional
        Calls that wait for a thread; by default any number.
    """

    def __init__(
        self, n_threads: int, title: str, *, answer_s: float | None = None, most_waiting: int | None = None
    ) -> None:
        self._n_threads, self._title, self._answer_s = n_threads, title, answer_s
        self._most_waiting = most_waiting
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._n_idle = 0
        self._since: dict[int, float] = {}

    async def run(self, call: Callable[[], _T]) -> _T:
        """Return what a call returns.

        Raises
        ------
        Problem
            429: too many wait. 503: the call takes too long, or earlier ones hold all threads. It may still
            be carried out.
        """
        if self._most_waiting is not None and self._calls.qsize() >= self._most_waiting:
            raise Problem(
                429,
                f"{self._most_waiting} requests of this kind wait already; try again later",
                code="busy",
                retry_after_s=_RETRY_S,
            )
        if self._answer_s is None:
            return await asyncio.wrap_future(self._submit(call))
        if self._are_held():
            raise _away(_HELD_S)
        submitted = self._submit(call)
        future = asyncio.wrap_future(submitted)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._answer_s)
        except asyncio.TimeoutError:
            if future.done():
                raise
            raise _away(self._answer_s) from None
        finally:
            submitted.cancel()  # if the call has not begun, it never will

    async def close(self, grace_s: float) -> None:
        """Let the threads end, and wait for at most `grace_s`."""
        with self._lock:
            threads = list(self._threads)
            self._n_threads = 0
        with suppress(queue.Empty):
            while (entry := self._calls.get_nowait()) is not None:
                entry[0].cancel()
        for _ in threads:
            self._calls.put(None)
        end = time.monotonic() + grace_s
        while any(thread.is_alive() for thread in threads) and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def _submit(self, call: Callable[[], _T]) -> "Future[_T]":
        future: Future[_T] = Future()
        with self._lock:
            if self._n_idle:
                self._n_idle -= 1
            elif len(self._threads) < self._n_threads:
                thread = threading.Thread(
                    target=self._work, name=f"{self._title}-{len(self._threads)}", daemon=True
                )
                self._threads.append(thread)
                thread.start()
            self._calls.put((future, call))
        return future

    def _are_held(self) -> bool:
        with self._lock:
            begun = list(self._since.values())
        return len(begun) >= self._n_threads and time.monotonic() - min(begun) > _HELD_S

    def _work(self) -> None:
        while (entry := self._calls.get()) is not None:
            future, call = entry
            if future.set_running_or_notify_cancel():
                with self._lock:
                    self._since[threading.get_ident()] = time.monotonic()
                _carry_out(future, call)
            del entry, future, call  # what they hold is not kept until the next call
            with self._lock:
                self._since.pop(threading.get_ident(), None)
                # A thread is idle if no call waits for it.
                self._n_idle = min(self._n_idle + 1, len(self._threads))


def _carry_out(future: "Future[_T]", call: Callable[[], _T]) -> None:
    try:
        result = call()
    except BaseException as error:
        with suppress(asyncio.InvalidStateError):
            future.set_exception(error)
    else:
        future.set_result(result)


def _away(seconds: float) -> Problem:
    return Problem(
        503,
        "the database of this collection does not answer; try again when it does. A change that was sent may"
        " have been made",
        code="collection_away",
        retry_after_s=seconds,
    )
