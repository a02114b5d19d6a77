"""Work spread over threads, in order and in bounded memory."""

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
    ahead = 2 * n_threads if look_ahead is None else look_ahead
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="nearsight")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
