"""Gathers the items of several threads into large batches for one device."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Generic, TypeVar

R = TypeVar("R")


class DynamicBatcher(Generic[R]):
    """Runs batches on a device, each filled with the items that threads have queued meanwhile.

    *Method.* There is no thread of its own, and no batch waits for items. A thread that arrives while fewer
    than `n_slots` batches run takes queued items, the oldest first, and runs them for all; the other threads
    wait for their results. So batches grow by themselves when the device is slower than the threads that feed
    it, and the device never idles while an item is queued. An item waits for the batches that run and for
    those that the items before it fill, never for items to come.

    Parameters
    ----------
    run : callable
        Given a list of items, returns a result for each. Called by at most `n_slots` threads at once.
    sizes : sequence of int
        Sizes of batches that the device runs well, in increasing order.
    n_slots : int, default 1
        Batches that run at once: with two, one is copied to the device while the other is computed.
    """

    def __init__(
        self, run: Callable[[list[Any]], Sequence[R]], sizes: Sequence[int], *, n_slots: int = 1
    ) -> None:
        self._run = run
        self._sizes = tuple(sizes)
        self._waiting: deque[_Request[R]] = deque()
        self._n_free = n_slots
        self._changed = threading.Condition()

    @property
    def n_waiting(self) -> int:
        """Items that are queued and do not run yet."""
        return len(self._waiting)

    def __call__(self, values: Sequence[Any]) -> list[R]:
        """Return a result for each value, in order.

        Raises
        ------
        Exception
            What `run` raised for a batch with one of the values.
        """
        requests = self._enqueue(values)
        while batch := self._next_batch(requests):
            self._run_batch(batch)
        return _results(requests)

    def submit(self, values: Sequence[Any], pool: Executor) -> Callable[[], list[R]]:
        """Queue values without waiting; threads of a pool run them.

        Parameters
        ----------
        values : sequence
        pool : Executor
            With at least `n_slots` threads.

        Returns
        -------
        callable
            Waits, and returns or raises what `__call__` does.
        """
        requests = self._enqueue(values)
        with self._changed:
            if self._n_free and self._waiting:
                pool.submit(self._run_all)
        return partial(self._wait, requests)

    def _enqueue(self, values: Sequence[Any]) -> "list[_Request[R]]":
        requests: list[_Request[R]] = [_Request(value) for value in values]
        with self._changed:
            self._waiting.extend(requests)
        return requests

    def _run_all(self) -> None:
        """Run batches until nothing is queued."""
        while batch := self._next_batch(None):
            self._run_batch(batch)

    def _wait(self, requests: "list[_Request[R]]") -> list[R]:
        with self._changed:
            self._changed.wait_for(lambda: all(request.is_done for request in requests))
        return _results(requests)

    def _next_batch(self, own_requests: "list[_Request[R]] | None") -> "list[_Request[R]]":
        """Wait until this thread may run a batch and return it; empty once its own requests are done.

        A thread without requests of its own does not wait.
        """
        with self._changed:
            while True:
                if own_requests is not None and all(request.is_done for request in own_requests):
                    return []
                if self._n_free and self._waiting:
                    self._n_free -= 1
                    n = batch_length(len(self._waiting), self._sizes)
                    return [self._waiting.popleft() for _ in range(n)]
                if own_requests is None:
                    return []
                self._changed.wait()

    def _run_batch(self, batch: "list[_Request[R]]") -> None:
        try:
            results = self._run([request.value for request in batch])
            for request, result in zip(batch, results, strict=True):
                request.results = (result,)
        # Interrupts too: the other threads must not wait for ever.
        except BaseException as error:
            for request in batch:
                request.error = error
        finally:
            with self._changed:
                self._n_free += 1
                self._changed.notify_all()


def _results(requests: "list[_Request[R]]") -> list[R]:
    for request in requests:
        if request.error is not None:
            raise request.error
    return [result for request in requests for result in request.results]


def batch_length(n_waiting: int, sizes: Sequence[int]) -> int:
    """Return how many of the queued items the next batch takes.

    A batch is padded to the next of the sizes. If more than half of it would be padding, the batch takes as
    many items as the size below.

    Examples
    --------
    >>> [batch_length(n, (1, 8, 32)) for n in (1, 3, 5, 20, 100)]
    [1, 1, 5, 20, 32]
    """
    if n_waiting >= sizes[-1]:
        return sizes[-1]
    at = next(i for i, size in enumerate(sizes) if size >= n_waiting)
    return n_waiting if 2 * n_waiting > sizes[at] or at == 0 else sizes[at - 1]


class _Request(Generic[R]):
    """One value that waits for its result."""

    __slots__ = ("error", "results", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        # One result, which may be None.
        self.results: tuple[R, ...] = ()
        self.error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return bool(self.results) or self.error is not None
