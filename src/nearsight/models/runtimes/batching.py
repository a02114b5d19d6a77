"""Gathers the items of several threads into large batches for one device."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: An accelerator needs hardly more time for 32 images than for a few.
MAX_BATCH_SIZE = 32


class DynamicBatcher:
    """Runs batches on a device, one at a time, each filled with the items that threads have queued meanwhile.

    *Method.* There is no thread of its own. A thread that arrives while nothing runs takes up to `max_size`
    queued items and runs them for all; the other threads wait for their results. So batches grow by
    themselves when the device is slower than the threads that feed it.

    Parameters
    ----------
    run : callable
        Given a list of at most `max_size` items, returns an array with a row for each. Never called by two
        threads at once.
    max_size : int
        Items in a batch, at least 1.
    """

    def __init__(
        self, run: Callable[[list[Any]], NDArray[np.float32]], max_size: int = MAX_BATCH_SIZE
    ) -> None:
        self._run = run
        self._max_size = max_size
        self._waiting: deque[_Request] = deque()
        self._is_running = False
        self._changed = threading.Condition()

    def __call__(self, values: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Return a row for each value, in order.

        Raises
        ------
        Exception
            What `run` raised for a batch with one of the values.
        """
        requests = [_Request(value) for value in values]
        with self._changed:
            self._waiting.extend(requests)
        while batch := self._next_batch(requests):
            self._run_batch(batch)
        for request in requests:
            if request.error is not None:
                raise request.error
        return [request.row for request in requests if request.row is not None]

    def _next_batch(self, own_requests: "list[_Request]") -> "list[_Request]":
        """Wait until this thread may run a batch and return it; empty once its own requests are done."""
        with self._changed:
            while True:
                if all(request.is_done for request in own_requests):
                    return []
                if not self._is_running:
                    self._is_running = True
                    n = min(self._max_size, len(self._waiting))
                    return [self._waiting.popleft() for _ in range(n)]
                self._changed.wait()

    def _run_batch(self, batch: "list[_Request]") -> None:
        try:
            rows = self._run([request.value for request in batch])
            for request, row in zip(batch, rows, strict=True):
                request.row = row
        # Interrupts too: the other threads must not wait for ever.
        except BaseException as error:
            for request in batch:
                request.error = error
        finally:
            with self._changed:
                self._is_running = False
                self._changed.notify_all()


class _Request:
    """One value that waits for its row."""

    __slots__ = ("error", "row", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.row: NDArray[np.float32] | None = None
        self.error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.row is not None or self.error is not None
