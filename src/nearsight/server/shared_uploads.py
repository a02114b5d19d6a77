"""Uploaded files that several collections show: a copy names those of its original."""

import contextlib
import shutil
from pathlib import Path

from nearsight.collection.manifest import FILENAME, CollectionManifest
from nearsight.errors import NearsightError
from nearsight.server.collection_folders import identity, owner

# In a directory of uploads: a file for each further collection that shows some of them.
_SHARED = ".shared"
# Beside that: the collection that the files were sent to was deleted.
_DELETED = ".deleted"


class SharedUploads:
    """Keeps uploads as long as a collection shows them.

    A job that copies rows marks the uploads first. The mark of a collection that lies elsewhere, in a
    database or on a disk that may be away, goes only when that is deleted here. A copy that somebody else has
    put beside the original, such as `nearsight copy` does, is known by its identity: that of the original.

    Parameters
    ----------
    base : Path
        The directory of all uploads.
    collections : Path
        The directory of the collections that the service created.
    """

    def __init__(self, base: Path, collections: Path) -> None:
        self._base = base
        self._collections = collections

    def marks(self, uploads: Path, source: str, target: str, place: str) -> dict[str, str]:
        """Return the marks of a copy, by their files: what their content is.

        Parameters
        ----------
        uploads : Path
            Of the source. If that is a copy itself, it shows other ones, too.
        source, target : str
            Names of collections.
        place : str
            Of the target, as it may be written down.
        """
        content = "" if Path(place).parent == self._collections.absolute() else place
        folders = (uploads, *self._shown_by(source))
        return {str((folder / _SHARED / target).absolute()): content for folder in folders}

    def is_shared(self, uploads: Path) -> bool:
        """Whether other collections show, or may show, these files."""
        return any((uploads / _SHARED).glob("*")) or self._has_unmarked_copy(uploads)

    def forget_gone(self, uploads: Path) -> None:
        """Remove the marks of copies that never came to be, or are gone."""
        for mark in list((uploads / _SHARED).glob("*")):
            if not mark.read_text("utf-8") and not (self._collections / mark.name).exists():
                mark.unlink(missing_ok=True)

    def release(self, name: str, uploads: Path | None = None) -> None:
        """Remove the files that no other collection shows, after one was deleted.

        Parameters
        ----------
        name : str
        uploads : Path, optional
            What was sent to it.
        """
        for folder in self._shown_by(name):
            (folder / _SHARED / name).unlink(missing_ok=True)
        if uploads is not None and uploads.is_dir():
            (uploads / _DELETED).touch()
        for folder in [mark.parent for mark in self._base.glob(f"*/{_DELETED}")]:
            self.forget_gone(folder)
            # A copy that has got the name since is the same collection.
            if _name(folder) not in self._collections_of(folder) and not self.is_shared(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def _shown_by(self, name: str) -> list[Path]:
        return [mark.parent.parent for mark in self._base.glob(f"*/{_SHARED}/*") if mark.name == name]

    def _has_unmarked_copy(self, uploads: Path) -> bool:
        """Whether one of two collections is a copy of the other, and no job of the service has made it."""
        name = _name(uploads)
        originals = {_name(folder) for folder in self._shown_by(name)}
        others = self._collections_of(uploads) - {name} - originals
        return any(not self._shown_by(other) for other in others)

    def _collections_of(self, uploads: Path) -> set[str]:
        """Return the names of the collection that files were sent to and of its copies, if they are there."""
        own, names = owner(uploads), set()
        for file in self._collections.glob(f"*/{FILENAME}") if own else ():
            with contextlib.suppress(NearsightError):
                if identity(CollectionManifest.read(file.parent)) == own:
                    names.add(file.parent.name)
        return names


def _name(uploads: Path) -> str:
    return uploads.name.partition("@")[0]
