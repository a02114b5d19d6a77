"""Directories of what the service keeps for a collection; another one that gets its name finds none of it."""

import hashlib
import shutil
from pathlib import Path

from nearsight.artifacts import replacing
from nearsight.collection import Collection
from nearsight.collection.manifest import CollectionManifest

_OWNER = ".collection"
# The time of a file is this coarse on some file systems.
_CLOCK_STEP_S = 2.0


def identity(collection: Collection | CollectionManifest) -> str:
    """Return what tells a collection from one of the same name: a digest of when it was created.

    It stays through an upgrade, and when the collection is moved or copied.
    """
    return hashlib.sha256(collection.created.isoformat().encode()).hexdigest()[:12]


def owner(folder: Path) -> str:
    """Return the identity of the collection that a directory is of; empty where none has asked for it."""
    stamp = folder / _OWNER
    return folder.name.partition("@")[2] or (stamp.read_text() if stamp.exists() else "")


class CollectionFolders:
    """One directory for each collection, named after its name and identity.

    Earlier versions named it after the name alone. Such a directory goes to the first collection that asks
    for it, unless that was created later than the directory was changed; it keeps its name, since rows hold
    paths.

    Parameters
    ----------
    base : Path
        The directory above.
    """

    def __init__(self, base: Path) -> None:
        self.base = base

    def names(self) -> list[str]:
        """Return the names of the collections that have, or had, a directory."""
        if not self.base.is_dir():
            return []
        return sorted({each.name.partition("@")[0] for each in self.base.iterdir()})

    def of(self, name: str, collection: Collection) -> Path:
        """Return the directory of a collection; it may not be there."""
        own = identity(collection)
        former = self.base / name
        return former if self._is_owner(former, own, collection) else self.base / f"{name}@{own}"

    def remove(self, name: str, collection: Collection) -> None:
        """Remove the directory of a collection, if there is one."""
        shutil.rmtree(self.of(name, collection), ignore_errors=True)

    def _is_owner(self, former: Path, own: str, collection: Collection) -> bool:
        if not former.is_dir():
            return False
        stamp = former / _OWNER
        if stamp.exists():
            return stamp.read_text() == own
        if former.stat().st_mtime < collection.created.timestamp() - _CLOCK_STEP_S:
            return False
        with replacing(stamp) as file:
            file.write(own.encode())
        return True
