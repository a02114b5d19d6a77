"""A collection in Milvus: its documents, its lock, and its stores."""

import base64
import hashlib
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from filelock import FileLock

from nearsight.errors import CollectionNotFoundError, StorageError
from nearsight.settings import files_directory
from nearsight.store.location import StoreCheck
from nearsight.store.milvus.address import MilvusAddress, parse_address
from nearsight.store.milvus.entry import StoreEntry, entry_of
from nearsight.store.milvus.expressions import COLUMNS, among
from nearsight.store.milvus.server import Server
from nearsight.store.milvus.store import MilvusStore, binary_table

# Milvus wants a vector in every table.
_NO_VECTOR = [1.0, 0.0]
_FIRST = "store"
_THREAD_LOCKS: dict[str, Any] = {}
_MUTEX = threading.Lock()


def open_location(uri: str) -> "MilvusLocation":
    """Return the location of ``milvus://host:19530?collection=NAME``."""
    return MilvusLocation(parse_address(uri))


class MilvusLocation:
    """A `Location` in Milvus.

    One table holds the documents of all collections of a database. Milvus has no lock: writers of one machine
    take turns by a lock of that machine, so only one machine may write.

    Parameters
    ----------
    address : MilvusAddress
    """

    # Milvus 2.3 has no float16.
    default_storage = "float32"
    is_searched_in_memory = False

    def __init__(self, address: MilvusAddress) -> None:
        self._address = address
        self._server = Server(address)
        self._documents = "nearsight_documents"
        self._has_documents = False

    @property
    def uri(self) -> str:
        """The URI without its password."""
        return self._address.shown

    @property
    def files(self) -> Path:
        """A directory of this machine, the same for everybody who names this collection."""
        return files_directory(self._address.label)

    def read_document(self, name: str) -> bytes | None:
        """Return a document; see Location."""
        if not self._find_documents():
            return None
        found = self._server.read(self._documents, among([self._key(name)]), ["content"])
        return base64.b64decode(found[0]["content"]) if found else None

    def write_document(self, name: str, content: bytes) -> None:
        """Write a document; see Location."""
        if not self._find_documents():
            self._server.create(self._documents, {"content": "text"}, len(_NO_VECTOR))
            self._has_documents = True
        row = {"key": self._key(name), "content": base64.b64encode(content).decode(), "vector": _NO_VECTOR}
        self._server.write(self._documents, [row])

    def delete_document(self, name: str) -> None:
        """Delete a document; see Location."""
        if self._find_documents():
            self._server.delete(self._documents, among([self._key(name)]))

    def _find_documents(self) -> bool:
        self._has_documents = self._has_documents or self._server.has(self._documents)
        return self._has_documents

    def _key(self, name: str) -> str:
        return hashlib.sha256(f"{self._address.collection}/{name}".encode()).hexdigest()[:32]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Return the lock of whoever writes on this machine; see Location."""
        with _MUTEX:
            own = _THREAD_LOCKS.setdefault(self._address.label, threading.RLock())
        with own, FileLock(self.files / "write.lock"):
            yield

    def open_store(self, name: str) -> MilvusStore:
        """Open a store; see Location."""
        if self.read_document(entry_of(name)) is None:
            raise CollectionNotFoundError(
                f"{self.uri}: there is no collection. Check the name, or create one."
            )
        return MilvusStore(self, self._server, self._address, name)

    def create_store(self, name: str, schema: pa.Schema) -> MilvusStore:
        """Create a store; see Location."""
        if self.read_document(entry_of(name)) is None:
            self._create(name, schema)
        store = self.open_store(name)
        types = {field.name: field.type for field in store.stored_schema}
        if any(types.get(field.name) != field.type for field in schema):
            raise StorageError(f"{self.uri}: there is a table with other columns. Choose another name.")
        return store

    def _create(self, name: str, schema: pa.Schema) -> None:
        table = self._address.table(name)
        # Without an entry, tables are what a process left that ended in between.
        for left in (table, binary_table(table)):
            self._server.drop(left)
        dim = schema.field("vector").type.list_size
        self._server.create(table, {COLUMNS: "json"}, dim, self._address.index)
        entry = StoreEntry(schema, 0, str(uuid.uuid4()), self._address.index)
        self.write_document(entry_of(name), entry.encode())

    def checks(self) -> Iterator[StoreCheck]:
        """Check the server and the collection; see CheckedLocation."""
        try:
            version = self._server.version()
        except StorageError as error:
            yield StoreCheck("server", "fail", str(error), "start it; check host, port, user and password")
            return
        yield StoreCheck("server", "ok", f"Milvus {version.removeprefix('v')}")
        host = urlsplit(self._address.url)
        if host.scheme == "https":
            yield StoreCheck("encryption", "ok", "TLS")
        elif host.hostname in ("localhost", "127.0.0.1", "::1"):
            yield StoreCheck("encryption", "ok", "none; the server is on this machine")
        else:
            fix = "turn on TLS at the server, and write tls=1 into the URI"
            yield StoreCheck(
                "encryption", "warn", "none: images and password cross the network in the open", fix
            )
        if self.read_document(entry_of(_FIRST)) is not None:
            yield self._index_check(self._address.table(_FIRST))

    def _index_check(self, table: str) -> StoreCheck:
        kind, n_waiting = self._server.index_state(table)
        if not kind:
            return StoreCheck("index", "fail", "none", "copy the collection to a new one with nearsight copy")
        if n_waiting:
            detail = f"{kind}; {n_waiting:,} rows are not in it yet, and are compared one by one"
            return StoreCheck("index", "warn", detail, "wait, or run: nearsight compact -c URI")
        return StoreCheck("index", "ok", kind)

    def delete_store(self, name: str) -> None:
        """Delete a store; see Location."""
        self.delete_document(entry_of(name))
        for table in (self._address.table(name), binary_table(self._address.table(name))):
            self._server.drop(table)

    def size_bytes(self) -> int:
        """Return 0: Milvus 2.3 does not say it."""
        return 0
