"""The protocol of a location: the place of one collection, whatever the engine."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import pyarrow as pa

from nearsight.store.base import VectorStore


@runtime_checkable
class Location(Protocol):
    """The place of one collection: its documents, its lock, and its stores.

    Documents are small files, such as the manifest. A collection has one store of rows, and a second one
    while it is upgraded to another model. Whoever writes to a collection holds the lock. Methods raise
    StorageError if the storage refuses or is away. `nearsight.testing.LocationTests` asks for all of it.
    """

    @property
    def uri(self) -> str:
        """What people are shown; it holds no password."""
        ...

    @property
    def files(self) -> Path:
        """A directory on this machine for caches, and for what analyses save; it may not be writable."""
        ...

    @property
    def default_storage(self) -> str:
        """The number type of a new collection: "float32" or "float16"."""
        ...

    @property
    def is_searched_in_memory(self) -> bool:
        """Whether rows are loaded into memory at the second search; not where a server searches."""
        ...

    def read_document(self, name: str) -> bytes | None:
        """Return a document, or None if there is none."""
        ...

    def write_document(self, name: str, content: bytes) -> None:
        """Write a document, whole or not at all; it is durable when the call returns."""
        ...

    def delete_document(self, name: str) -> None:
        """Delete a document, if there is one."""
        ...

    def lock(self) -> AbstractContextManager[Any]:
        """Return the lock of whoever writes to the collection: at most one process and thread holds it.

        The same object may be entered any number of times, also by the thread that holds it; it is entered
        for each write. A process that dies leaves it, in some engines after a while.
        """
        ...

    def open_store(self, name: str) -> VectorStore:
        """Open a store.

        Raises
        ------
        CollectionNotFoundError
            There is none of that name.
        """
        ...

    def create_store(self, name: str, schema: pa.Schema) -> VectorStore:
        """Create an empty store; if there is one with the same columns, open that."""
        ...

    def delete_store(self, name: str) -> None:
        """Delete a store with its rows, if there is one."""
        ...

    def size_bytes(self) -> int:
        """Return the bytes that the collection takes, with its index and whatever waits to be cleaned up."""
        ...


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """The result of one check of a storage.

    Attributes
    ----------
    name : str
        What was checked.
    status : {"ok", "warn", "fail"}
        ``fail``: indexing or searching will not work.
    detail : str
        The finding; it holds no password.
    fix : str
        What to do; empty if there is nothing to do.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""


@runtime_checkable
class CheckedLocation(Protocol):
    """A location that can be checked; an engine need not offer it."""

    def checks(self) -> Iterator[StoreCheck]:
        """Check the storage; after a check that fails, others may be left out."""
        ...

    def store_checks(self, name: str) -> Iterator[StoreCheck]:
        """Check a store of the collection, if there is one of that name."""
        ...
