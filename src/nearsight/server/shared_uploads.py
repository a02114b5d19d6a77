"""Uploaded files that several collections show: a copy names those of its original."""

import shutil
from pathlib import Path

# In a directory of uploads: a file for each further collection that shows some of them.
_SHARED = ".shared"
# Beside that: the collection that the files were sent to was deleted.
_DELETED = ".deleted"


class SharedUploads:
    """Keeps uploads as long as a collection shows them.

    A job that copies rows marks the uploads first. The mark of a collection that lies elsewhere, in a
    database or on a disk that may be away, goes only when that is deleted here.

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
        return any((uploads / _SHARED).glob("*"))

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
        released = self._shown_by(name)
        for folder in released:
            (folder / _SHARED / name).unlink(missing_ok=True)
        if uploads is not None and uploads.is_dir():
            (uploads / _DELETED).touch()
            released.append(uploads)
        for folder in released:
            self.forget_gone(folder)
            if (folder / _DELETED).exists() and not self.is_shared(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def _shown_by(self, name: str) -> list[Path]:
        return [mark.parent.parent for mark in self._base.glob(f"*/{_SHARED}/*") if mark.name == name]
