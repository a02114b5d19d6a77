"""Where the thumbnails of a report are: in the page, or in a folder beside it."""

import hashlib
import re
import shutil
from pathlib import Path
from urllib.parse import quote

from nearsight.artifacts import exported
from nearsight.errors import StorageError

_NAME = re.compile(r"[0-9a-f]{16}\.jpg")


class ThumbnailFolder:
    """Thumbnails as files in a folder beside a page, which a browser loads when they come into view.

    Parameters
    ----------
    page : Path
        The page; the folder of ``report.html`` is ``report_images``.
    """

    def __init__(self, page: Path) -> None:
        self.path = page.with_name(f"{page.stem}_images")
        self._names: set[str] = set()

    def source(self, jpeg: bytes) -> str:
        """Write a thumbnail, once, and return its address relative to the page.

        Raises
        ------
        StorageError
            The file cannot be written.
        """
        name = f"{hashlib.sha256(jpeg).hexdigest()[:16]}.jpg"
        if name not in self._names:
            self._names.add(name)
            self._write(self.path / name, jpeg)
        return f"{quote(self.path.name, errors='surrogateescape')}/{name}"

    def _write(self, file: Path, jpeg: bytes) -> None:
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{self.path} could not be created: {error.strerror or error}; it holds the thumbnails of a"
                " report, so choose another name or folder for the report"
            ) from error
        if not file.exists():
            with exported(file) as handle:
                handle.write(jpeg)

    def remove_others(self) -> None:
        """Remove the thumbnails of an earlier report, and the folder if nothing is left in it."""
        if not self.path.is_dir():
            return
        for file in self.path.iterdir():
            if _NAME.fullmatch(file.name) and file.name not in self._names:
                file.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            shutil.rmtree(self.path, ignore_errors=True)
