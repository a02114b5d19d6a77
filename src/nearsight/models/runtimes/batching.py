"""Gathers what several threads want of one device into few large batches."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: An accelerator takes 32 images in hardly more time than a few.
MOST = 32


class Batches:
    """Runs batches on a device, one at a time, each made of what has come meanwhile from any thread.

    *Method.* There is no thread of its own. Whoever comes while nothing runs takes what is waiting, up to
    `most` items, and runs it for all; the others wait until theirs is done. So batches grow by themselves
    as far as the device is slower than what feeds it.

    Parameters
    ----------
    run : callable
        Given a list of at most `most` items, returns an array with a row for each. Never called by two
        threads at once.
    most : int
        Items in a batch, at least 1.
    """

    def __init__(self, run: Callable[[list[Any]], NDArray[np.float32]], most: int = MOST) -> None:
        self._run = run
        self._most = most
        self._waiting: deque[_Request] = deque()
        self._is_running = False
        self._changed = threading.Condition()

    def __call__(self, values: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Return a row for each value, in order.

        Raises
        ------
        Exception
            Whatever `run` raised for a batch that one of the values was in.
        """
        items = [_Request(value) for value in values]
        with self._changed:
            self._waiting.extend(items)
        while batch := self._next(items):
            self._do(batch)
        for item in items:
            if item.error is not None:
                raise item.error
        return [item.row for item in items if item.row is not None]

    def _next(self, mine: "list[_Request]") -> "list[_Request]":
        """Wait until this thread is to run a batch, and return it; empty once all of its own is done."""
        with self._changed:
            while True:
                if all(item.is_done for item in mine):
                    return []
                if not self._is_running:
                    self._is_running = True
                    n = min(self._most, len(self._waiting))
                    return [self._waiting.popleft() for _ in range(n)]
                self._changed.wait()

    def _do(self, batch: "list[_Request]") -> None:
        try:
            rows = self._run([item.value for item in batch])
            for item, row in zip(batch, rows, strict=True):
                item.row = row
        # Interrupts too: the other threads must not wait for ever.
        except BaseException as error:
            for item in batch:
                item.error = error
        finally:
            with self._changed:
                self._is_running = False
                self._changed.notify_all()


class _Request:
    """One value on its way through the device."""

    __slots__ = ("error", "row", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.row: NDArray[np.float32] | None = None
        self.error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.row is not None or self.error is not None
