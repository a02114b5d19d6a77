"""An ordered map over threads, and the order of results of anything that returns futures."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, n_threads: int, look_ahead: int | None = None
) -> Generator[R, None, None]:
    """Apply a function to items in threads and yield the results in the order of the items.

    At most `look_ahead` items are taken from `items` before their results are asked for, so memory does not
    grow with the number of items. An error of one call is raised where its result would have been; calls that
    have not begun are then dropped, and those that run are waited for.

    Parameters
    ----------
    function : callable
        Called from several threads at once.
    items : iterable
        Consumed in the caller's thread, lazily.
    n_threads : int
        At least 1.
    look_ahead : int, optional
        At least `n_threads`; by default twice as many, so that no thread idles while results are consumed.

    Examples
    --------
    >>> list(ordered_map(abs, [-3, 2, -1], n_threads=2))
    [3, 2, 1]
    """
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="nearsight")

    def submit(item: T) -> Future[R]:
        return pool.submit(function, item)

    try:
        yield from in_order(
            submit,
            items,
            look_ahead=2 * n_threads if look_ahead is None else look_ahead,
        )
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order(
    submit: Callable[[T], Future[R]], items: Iterable[T], *, look_ahead: int
) -> Generator[R, None, None]:
    """Submit items, at most `look_ahead` before a result is asked for, and yield the results in their order.

    Parameters
    ----------
    submit : callable
        Begins the work on an item.
    items : iterable
        Consumed in the caller's thread, lazily.
    look_ahead : int
        Submitted items whose results were not asked for yet.
    """
    pending: deque[Future[R]] = deque()
    for item in items:
        pending.append(submit(item))
        if len(pending) > look_ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
