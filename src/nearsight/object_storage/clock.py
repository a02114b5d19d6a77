"""The clock of a storage: the one that all machines which use it share."""

import time
from collections.abc import Callable

from nearsight.errors import StorageError

# A machine that was suspended counts fewer seconds than have passed.
_LOOK_S = 60.0


class StorageClock:
    """The time by which a storage tells when something was written.

    The clocks of two machines may be an hour apart. So the age of what another machine has written is never
    counted by one's own.

    Parameters
    ----------
    written_now_s : callable
        Writes something, and returns when it was written, in seconds since 1970.
    """

    def __init__(self, written_now_s: Callable[[], float]) -> None:
        self._written_now_s = written_now_s
        self._looked_s = 0.0
        self._ahead_s: float | None = None

    def now_s(self) -> float:
        """Return the seconds since 1970; for whoever may not write there, by the clock of this machine."""
        if self._ahead_s is None or time.monotonic() - self._looked_s > _LOOK_S:
            try:
                now_s = self._written_now_s()
            except (OSError, StorageError):
                return time.time()
            self._looked_s = time.monotonic()
            self._ahead_s = now_s - self._looked_s
        return time.monotonic() + self._ahead_s
