"""Maps functions over items, in threads or in worker processes that all maps share."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from itertools import islice
from typing import Any, TypeVar

from nearsight.parallel.processes import WorkerProcesses, can_start_processes
from nearsight.parallel.threads import in_order, ordered_map

T = TypeVar("T")
R = TypeVar("R")

_LOG = logging.getLogger(__name__)

_Call = tuple[Callable[[Any], Any], Any]


class WorkerPool:
    """Maps functions over items; its processes start at the first map that wants them, and then stay.

    Use it as a context manager: its end ends the processes.

    Parameters
    ----------
    n_workers : int
        Threads, or processes of one thread each; at least 1.
    """

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self._processes: WorkerProcesses[_Call, Any] | None = None
        self._can_start = n_workers > 1 and can_start_processes()

    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        in_processes: bool,
        batch_size: int = 1,
        lost: Callable[[T], R],
    ) -> Generator[R, None, None]:
        """Yield the result of each item, in order; only a few batches of items are taken ahead.

        Parameters
        ----------
        function : callable
            For processes, importable: a function of a module. Items and results are pickled.
        items : iterable
        in_processes : bool
            Whether processes pay. Threads do the work where none can be started.
        batch_size : int
            Items that a process is sent at a time.
        lost : callable
            Returns the result of an item with which worker processes end.

        Raises
        ------
        Exception
            The error of a call, where its result would have been.
        """
        processes = self._started() if in_processes else None
        if processes is None:
            yield from ordered_map(function, items, n_threads=self.n_workers)
            return
        pool = processes

        def submit(batch: list[T]) -> "Future[list[Any]]":
            return pool.submit([(function, item) for item in batch])

        kept: list[list[T]] = []  # those whose results are not there yet, oldest first

        def batches() -> Iterator[list[T]]:
            rest = iter(items)
            while batch := list(islice(rest, batch_size)):
                kept.append(batch)
                yield batch

        with closing(in_order(submit, batches(), look_ahead=pool.n_slots)) as results:
            for values in results:
                for item, value in zip(kept.pop(0), values, strict=True):
                    yield lost(item) if isinstance(value, _Lost) else value

    def _started(self) -> WorkerProcesses[_Call, Any] | None:
        """Return the processes, or None if one is enough, or none can be started."""
        if self._processes is None and self._can_start:
            processes = None
            try:
                processes = WorkerProcesses(
                    start_calls, n_processes=self.n_workers, lost=lambda call, reason: _Lost(reason)
                )
                processes.wait_until_ready()
                self._processes = processes
            except (OSError, RuntimeError) as error:  # such as for want of memory
                _LOG.info("threads do the work of processes: %s", error)
                self._can_start = False
                if processes is not None:
                    processes.close()
        return self._processes

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers; none before the first map in processes, and after the end."""
        return [] if self._processes is None else self._processes.pids

    def close(self) -> None:
        """End the processes at once."""
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Lost:
    """In the place of the result of an item with which workers end."""

    def __init__(self, reason: str) -> None:
        _LOG.warning("an item was given up: %s", reason)


def start_calls() -> Callable[..., list[Any]]:
    """Return what a worker process computes: the results of functions, each called with its item."""
    return lambda calls, *_: [function(item) for function, item in calls]
