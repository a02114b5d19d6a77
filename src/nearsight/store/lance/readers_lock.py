"""Who is using a collection's files right now, across processes.

Old versions may only be dropped at once when nobody reads them. Every operation holds a shared
lock; dropping asks for the exclusive one and, refused, keeps what is recent instead.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no shared file locks: there, nobody can ever be sure to be alone
    fcntl = None  # type: ignore[assignment] # a module elsewhere


class Presence:
    """A shared lock held while operations run, which can tell whether anybody else runs one.

    Parameters
    ----------
    path : Path
        The lock file. Where it can be neither made nor opened (a read-only disk), nothing is locked:
        nobody can drop anything there either.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._n_active = 0
        self._fd: int | None = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Keep others from dropping files while the block runs."""
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
    def alone(self) -> Iterator[bool]:
        """Yield True, and keep everybody waiting, if nobody else is here; False otherwise."""
        with self._mutex:
            if fcntl is None or self._n_active or not self._open():
                alone = False
            else:
                try:
                    fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[arg-type]
                    alone = True
                except OSError:
                    alone = False
            if alone:
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
                fcntl.flock(self._fd, fcntl.LOCK_SH)  # type: ignore[arg-type]
            except OSError:  # a file system without locks; dropping fails there in the same way
                self._unlock()

    def _unlock(self) -> None:
        # Closing also releases, and leaves no descriptor behind for a forked child to share.
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
