"""A collection in a local directory."""

import os
import shutil
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

from nearsight.artifacts import replacing
from nearsight.store.lance.errors import translated
from nearsight.store.lance.store import LanceStore

_LOCK = "write.lock"


class DirectoryLocation:
    """A `Location` in a directory, with LanceDB tables.

    Parameters
    ----------
    directory : Path
    """

    default_storage = "float32"
    is_searched_in_memory = True

    def __init__(self, directory: Path) -> None:
        self.files = directory

    @property
    def uri(self) -> str:
        """The directory."""
        return str(self.files)

    def read_document(self, name: str) -> bytes | None:
        """Return a file; see Location."""
        with translated(self.uri, f"reading {name}"), suppress(FileNotFoundError, NotADirectoryError):
            return (self.files / name).read_bytes()
        return None

    def write_document(self, name: str, content: bytes) -> None:
        """Write a file; see Location."""
        with translated(self.uri, f"writing {name}"), replacing(self.files / name) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def delete_document(self, name: str) -> None:
        """Delete a file; see Location."""
        with translated(self.uri, f"deleting {name}"):
            (self.files / name).unlink(missing_ok=True)

    def lock(self) -> AbstractContextManager[Any]:
        """Return the lock of whoever writes; see Location."""
        return FileLock(self.files / _LOCK)

    def open_store(self, name: str) -> LanceStore:
        """Open a store; see Location."""
        with translated(self.uri, f"opening {name}"), suppress(FileNotFoundError, NotADirectoryError):
            # Raises where a disk is away: the engine says of a place it cannot read that nothing is there.
            (self.files / name).stat()
        return LanceStore.open(self.files / name)

    def create_store(self, name: str, schema: pa.Schema) -> LanceStore:
        """Create a store; see Location."""
        return LanceStore.create(self.files / name, schema)

    def delete_store(self, name: str) -> None:
        """Delete a store; see Location."""
        shutil.rmtree(self.files / name, ignore_errors=True)

    def size_bytes(self) -> int:
        """Return the bytes of all files; see Location."""
        return sum(file.stat().st_size for file in self.files.rglob("*") if file.is_file())
