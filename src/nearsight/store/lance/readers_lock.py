"""A lock of the readers of a store, across processes.

Old versions of the table may be deleted only while nobody reads them. Every operation holds the lock shared.
Deleting tries to hold it exclusively; if that fails, recent versions are kept.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no shared file locks, so there the exclusive lock is never granted
    fcntl = None  # type: ignore[assignment] # a module elsewhere


class ReadersLock:
    """A file lock that many operations share, or one holds exclusively.

    Parameters
    ----------
    path : Path
        The lock file. If it can be neither created nor opened (a read-only disk), nothing is locked:
        nothing can be deleted there either.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._n_active = 0
        self._fd: int | None = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock shared: no files are deleted while the block runs."""
        with self._mutex:
            if self._n_active == 0:
                self._lock()
            self._n_active += 1
        try:
            yield
        finally:
            with self._mutex:
                self._n_active -= 1
                if self._n_active == 0:
                    self._unlock()

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Try to hold the lock exclusively, so that others wait for the block; yield whether it is held."""
        with self._mutex:
            if fcntl is None or self._n_active or not self._open():
                is_granted = False
            else:
                try:
                    fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[arg-type] # open: _open() set it
                    is_granted = True
                except OSError:
                    is_granted = False
            if is_granted:
                try:
                    yield True
                finally:
                    self._unlock()
                return
        yield False

    def _open(self) -> bool:
        if self._fd is None:
            for flags in (os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, os.O_RDONLY | os.O_CLOEXEC):
                try:
                    self._fd = os.open(self._path, flags, 0o666)
                    break
                except OSError:
                    continue
        return self._fd is not None

    def _lock(self) -> None:
        if fcntl is not None and self._open():
            try:
                fcntl.flock(self._fd, fcntl.LOCK_SH)  # type: ignore[arg-type] # open: _open() set it
            except OSError:  # a file system without locks, where the exclusive lock fails too
                self._unlock()

    def _unlock(self) -> None:
        # Closing also unlocks, and leaves no descriptor that a forked child would share.
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
