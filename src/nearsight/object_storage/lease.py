"""A lock of whoever writes, in a bucket that knows no locks.

Turns are numbered. Whoever creates the object of the next number, which only one can, and finds that no
higher one is there, has the lock. The holder writes its object again and again. The lock is free when the
holder says so, or when the object has not changed for a while by the clock of the one who waits; so no two
clocks need agree.
"""

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType

import filelock

from nearsight.errors import StorageError
from nearsight.object_storage.bucket import Bucket

_FREE = b"free"
#: After so many seconds without a sign, a holder is taken for dead.
TTL_S = 30.0
_LEAST_WAIT_S, _MOST_WAIT_S = 0.1, 2.0


class LeaseHold:
    """Holds a lock while a block runs; it may be entered again, also within itself.

    Parameters
    ----------
    enter : callable
        Returns a context manager, which holds the lock once.
    """

    def __init__(self, enter: Callable[[], AbstractContextManager[None]]) -> None:
        self._enter = enter
        # Only who has the lock gets here.
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        entered = self._enter()
        entered.__enter__()
        self._entered.append(entered)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, trace)


class Lease:
    """A lock; the thread that holds it may enter again.

    Parameters
    ----------
    bucket : Bucket
    folder : str, default "lock"
        What the lock is called: its objects are in this folder.
    ttl_s : float, optional
        The same for everybody; by default `TTL_S`.
    """

    def __init__(self, bucket: Bucket, folder: str = "lock", *, ttl_s: float | None = None) -> None:
        self._bucket = bucket
        self._folder = folder
        self._ttl_s = TTL_S if ttl_s is None else ttl_s
        self._own = threading.RLock()
        # Of the sign and the release.
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._depth = 0
        self._owner = 0
        self._number = 0
        self._sign_s = 0.0

    def hold(self, *, blocking: bool = True) -> "LeaseHold":
        """Return what waits for the lock, and holds it while a block runs; any number of times.

        Raises
        ------
        filelock.Timeout
            Without `blocking`, if somebody else holds it.
        """
        return LeaseHold(lambda: self._held(blocking=blocking))

    @contextmanager
    def _held(self, *, blocking: bool) -> Iterator[None]:
        if not self._own.acquire(blocking=blocking):
            raise filelock.Timeout(self._bucket.shown)
        try:
            if not self._depth:
                self._acquire(blocking=blocking)
                self._owner = threading.get_ident()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    self._owner = 0
                    self._release()
        finally:
            self._own.release()

    def check(self) -> None:
        """Raise StorageError if this thread had the lock, and another process has taken it since.

        Whoever was stopped for longer than `ttl_s`, for instance with its machine, must not write.
        """
        if self._owner == threading.get_ident() and time.monotonic() - self._sign_s > self._ttl_s / 2:
            self._sign()

    def _acquire(self, *, blocking: bool) -> None:
        seen: tuple[int, bytes | None] = (0, None)
        since_s, wait_s = time.monotonic(), _LEAST_WAIT_S
        while True:
            last = self._last()
            content = self._bucket.read(self._name(last)) if last else _FREE
            if (last, content) != seen:
                seen, since_s = (last, content), time.monotonic()
            is_abandoned = time.monotonic() - since_s > self._ttl_s
            if (content == _FREE or is_abandoned) and self._take(last + 1):
                return
            if not blocking:
                raise filelock.Timeout(self._bucket.shown)
            time.sleep(wait_s)
            wait_s = min(_MOST_WAIT_S, 1.5 * wait_s)

    def _take(self, number: int) -> bool:
        token = _token()
        if not self._bucket.create(self._name(number), token):
            return False
        # The number may be one that was used and deleted; then there is a higher one.
        if self._last() != number:
            self._bucket.delete(self._name(number))
            return False
        self._number, self._sign_s = number, time.monotonic()
        self._bucket.delete(*[self._name(old) for old in self._numbers() if old < number])
        self._ended = threading.Event()
        threading.Thread(target=self._keep, args=(self._ended,), daemon=True).start()
        return True

    def _keep(self, ended: threading.Event) -> None:
        while not ended.wait(self._ttl_s / 5):
            # The next sign may succeed; whoever writes meanwhile checks.
            with self._mutex, suppress(StorageError):
                if not ended.is_set():
                    self._sign()

    def _sign(self) -> None:
        started_s = time.monotonic()
        if self._last() != self._number:
            raise StorageError(
                f"{self._bucket.shown}: this process gave no sign for {self._ttl_s:.0f} s, and"
                " another one writes now. Run the same command again; rows already saved are intact."
            )
        self._bucket.write(self._name(self._number), _token())
        self._sign_s = started_s

    def _release(self) -> None:
        with self._mutex, suppress(StorageError):  # then others wait until it counts as abandoned
            self._ended.set()
            if self._last() == self._number:
                self._bucket.write(self._name(self._number), _FREE)

    def _numbers(self) -> list[int]:
        return sorted(int(name) for name in self._bucket.entries(self._folder) if name.isdecimal())

    def _last(self) -> int:
        return max(self._numbers(), default=0)

    def _name(self, number: int) -> str:
        return f"{self._folder}/{number:012}"


def _token() -> bytes:
    return json.dumps([platform.node(), os.getpid(), uuid.uuid4().hex]).encode()
