"""The lock of whoever writes to a collection."""

from pathlib import Path
from types import TracebackType

from filelock import FileLock

from nearsight.collection import manifest
from nearsight.errors import FingerprintMismatchError


class WriteLock:
    """Held during each write; refuses to write rows of a model that the collection was upgraded from.

    Parameters
    ----------
    directory : Path
    facts : CollectionManifest
        As the collection was opened with.
    """

    def __init__(self, directory: Path, facts: manifest.CollectionManifest) -> None:
        self._directory = directory
        self._facts = facts
        self._lock = FileLock(directory / manifest.LOCK)

    def __enter__(self) -> "WriteLock":
        self._lock.acquire()
        try:
            now = manifest.CollectionManifest.read(self._directory)
            if (now.store, now.fingerprint) != (self._facts.store, self._facts.fingerprint):
                raise FingerprintMismatchError(
                    f"{self._directory} was upgraded to {now.spec.id} since it was opened; open it again"
                )
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
