"""The lock of whoever writes to a collection."""

from pathlib import Path
from types import TracebackType

from nearsight.collection import manifest
from nearsight.errors import FingerprintMismatchError
from nearsight.store import Location, locate


class WriteLock:
    """Held during each write; refuses to write rows of a model that the collection was upgraded from.

    Parameters
    ----------
    place : Path or Location
        Of the collection.
    facts : CollectionManifest
        As the collection was opened with.
    """

    def __init__(self, place: Path | Location, facts: manifest.CollectionManifest) -> None:
        self._location = locate(place)
        self._facts = facts
        self._lock = self._location.lock()

    def __enter__(self) -> "WriteLock":
        self._lock.__enter__()
        try:
            now = manifest.CollectionManifest.read(self._location)
            if not now.has_rows_of(self._facts):
                raise FingerprintMismatchError(
                    f"{self._location.uri} was upgraded to {now.spec.id} since it was opened; open it again"
                )
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)
