"""Progress of long jobs: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeVar

from tqdm import tqdm

T = TypeVar("T")

_LINE_INTERVAL_S = 10.0


class Bar(Protocol):
    """What `bar` returns; a context manager."""

    def update(self, n: float | None = 1, n_failed: int = 0, /) -> object:
        """Count `n` more units as done, and of those some as failed."""
        ...

    def __enter__(self) -> "Bar": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


@dataclass(slots=True)
class _Steps:
    n_steps: int
    n_begun: int = 0
    n_open: int = 0


#: Told the description, how much is done, and the total (None if unknown).
Listener = Callable[[str, float, float | None], None]

_steps: ContextVar[_Steps | None] = ContextVar("nearsight_progress_steps", default=None)
_listener: ContextVar[Listener | None] = ContextVar("nearsight_progress_listener", default=None)


def is_watched(progress: bool | None) -> bool:
    """Whether a bar is drawn: as `progress` says, or if it is None, where stderr is a terminal.

    A listener watches, too.
    """
    if _listener.get() is not None:
        return True
    return _is_terminal() if progress is None else progress


@contextmanager
def steps(n_steps: int) -> Iterator[None]:
    """Count the bars opened in the block as steps: ``step 2 of 4: comparing neighbors``.

    Bars inside a bar belong to its step. A block inside a block changes nothing: the outer one numbers. It
    may learn how many are left by `steps_left`.

    Parameters
    ----------
    n_steps : int
        How many bars the job opens one after the other.
    """
    if _steps.get() is not None:
        yield
        return
    token = _steps.set(_Steps(n_steps))
    try:
        yield
    finally:
        _steps.reset(token)


def steps_left(n_steps: int) -> None:
    """Correct the number of steps, once it is known how many bars follow; without a block, do nothing."""
    if (job := _steps.get()) is not None:
        job.n_steps = job.n_begun + n_steps


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Tell a listener of the progress in the block, instead of drawing.

    Examples
    --------
    >>> told = []
    >>> with told_to(lambda *facts: told.append(facts)):
    ...     list(track("ab", "adding"))
    ['a', 'b']
    >>> told
    [('adding', 0.0, 2), ('adding', 1.0, 2), ('adding', 2.0, 2)]
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def bar(
    description: str, total: int | None = None, *, unit: str = "images", progress: bool | None = None
) -> Bar:
    """Return a context manager that shows how far a step has come.

    Parameters
    ----------
    description : str
        What the step does, in words a user knows, such as ``comparing neighbors``.
    total : int, optional
        How many units there are; without it no time left is shown.
    unit : str
        What is counted, in the plural.
    progress : bool, optional
        True draws a bar and False nothing. By default a terminal gets a bar, and a file or pipe a line every
        ten seconds, so that a short job writes none.
    """
    return _Step(description, total, unit, progress)


def track(
    items: Iterable[T],
    description: str,
    *,
    total: int | None = None,
    unit: str = "images",
    progress: bool | None = None,
) -> Iterator[T]:
    """Yield `items`, counting each as done when the next is asked for; see `bar`.

    Examples
    --------
    >>> list(track([1, 2], "adding", progress=False))
    [1, 2]
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(description, total, unit=unit, progress=progress) as shown:
        for item in items:
            yield item
            shown.update()


class _Step:
    def __init__(self, description: str, total: int | None, unit: str, progress: bool | None) -> None:
        self._facts = description, total, unit
        self._progress = progress
        self._n_failed = 0
        self._job = _steps.get()
        self._listener = _listener.get()

    def __enter__(self) -> "_Step":
        description, total, unit = self._facts
        job = self._job
        if job is not None:
            if not job.n_open and job.n_begun < job.n_steps:
                job.n_begun += 1
                description = f"step {job.n_begun} of {job.n_steps}: {description}"
            job.n_open += 1
        self._display: tqdm[None] | _Lines | _Told | None = None
        if self._listener is not None:
            self._display = _Told(self._listener, description, total)
        elif is_watched(self._progress):
            self._display = tqdm(
                total=total, desc=description, unit=f" {unit}", dynamic_ncols=True, smoothing=0.05
            )
        elif self._progress is None:
            self._display = _Lines(description, total, unit)
        return self

    def update(self, n: float | None = 1, n_failed: int = 0, /) -> None:
        if self._display is None:
            return
        self._n_failed += n_failed
        if n_failed and not isinstance(self._display, _Told):
            self._display.set_postfix_str(f"{self._n_failed:,} failed" if self._n_failed else "", False)
        self._display.update(n or 0)

    def __exit__(self, *error: object) -> None:
        if self._job is not None:
            self._job.n_open -= 1
        if self._display is not None:
            self._display.close()


class _Told:
    """Tells a listener."""

    def __init__(self, listener: Listener, description: str, total: float | None) -> None:
        self._listener, self._description, self._total = listener, description, total
        self._n = 0.0
        self.update(0)

    def update(self, n: float) -> None:
        self._n += n
        self._listener(self._description, self._n, self._total)

    def close(self) -> None:
        """Nothing is left to do."""


class _Lines:
    """One line every ten seconds, for a stderr that is a file or a pipe."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._n, self._postfix = 0.0, ""
        self._begun = self._told = time.monotonic()

    def set_postfix_str(self, text: str, refresh: bool = False) -> None:
        """Say something at the end of each line, as tqdm does."""
        self._postfix = f", {text}" if text else ""

    def update(self, n: float) -> None:
        self._n += n
        now = time.monotonic()
        if now - self._told >= _LINE_INTERVAL_S:
            self._told = now
            print(self._line(now - self._begun), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is left to do."""

    def _line(self, seconds: float) -> str:
        rate = self._n / seconds
        text = f"{self._description}: {self._n:,.0f}"
        if self._total is not None:
            text += f" of {self._total:,}"
        text += f" {self._unit}, {rate:,.1f}/s"
        if self._total is not None and rate > 0:
            text += f", {tqdm.format_interval(max(0.0, self._total - self._n) / rate)} left"
        return text + self._postfix


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
