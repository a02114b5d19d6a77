"""A collection in Milvus: its documents, its lock, and its stores."""

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from filelock import FileLock

from nearsight.errors import CollectionNotFoundError, StorageError
from nearsight.settings import files_directory
from nearsight.store.location import StoreCheck
from nearsight.store.milvus.address import MilvusAddress, parse_address
from nearsight.store.milvus.documents import MilvusDocuments
from nearsight.store.milvus.entry import StoreEntry, entry_of
from nearsight.store.milvus.expressions import COLUMNS
from nearsight.store.milvus.server import Server
from nearsight.store.milvus.store import MilvusStore, binary_table


def open_location(uri: str) -> "MilvusLocation":
    """Return the location of ``milvus://host:19530?collection=NAME``."""
    return MilvusLocation(parse_address(uri))


class MilvusLocation:
    """A `Location` in Milvus.

    Milvus has no lock: writers of one machine
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
        self._documents = MilvusDocuments(self._server, address.collection)

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
        return self._documents.read(name)

    def write_document(self, name: str, content: bytes) -> None:
        """Write a document; see Location."""
        self._documents.write(name, content)

    def delete_document(self, name: str) -> None:
        """Delete a document; see Location."""
        self._documents.delete(name)

    def seal_documents(self, *, patiently: bool) -> None:
        """Have the server seal the documents of all collections."""
        self._documents.seal(patiently=patiently)

    def lock(self) -> AbstractContextManager[Any]:
        """Return the lock of whoever writes on this machine; see Location."""
        # The same object for whoever names this collection; each thread has a turn of its own.
        return FileLock(self.files / "write.lock", is_singleton=True)

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
        """Check the server; see CheckedLocation."""
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

    def store_checks(self, name: str) -> Iterator[StoreCheck]:
        """Check a store; see CheckedLocation."""
        if self.read_document(entry_of(name)) is not None:
            table = self._address.table(name)
            yield self._replica_check(table)
            yield self._index_check(table)

    def _index_check(self, table: str) -> StoreCheck:
        kind, n_waiting = self._server.index_state(table)
        if not kind:
            return StoreCheck("index", "fail", "none", "copy the collection to a new one with nearsight copy")
        if n_waiting:
            detail = f"{kind}; {n_waiting:,} rows are not in it yet, and are compared one by one"
            return StoreCheck("index", "warn", detail, "wait, or run: nearsight compact -c URI")
        return StoreCheck("index", "ok", kind)

    def _replica_check(self, table: str) -> StoreCheck:
        asked = self._address.replicas
        try:
            n_loaded = self._server.count_replicas(table)
        except StorageError as error:
            # As the server answers while a query node is away.
            return StoreCheck("replicas", "warn", str(error), "start the query nodes that are away")
        if n_loaded < asked:
            detail = f"{n_loaded}; the URI asks for {asked}"
            return StoreCheck("replicas", "warn", detail, "to have more: nearsight copy URI NEW-URI")
        return StoreCheck("replicas", "ok", str(n_loaded))

    def delete_store(self, name: str) -> None:
        """Delete a store; see Location."""
        self.delete_document(entry_of(name))
        for table in (self._address.table(name), binary_table(self._address.table(name))):
            self._server.drop(table)

    def size_bytes(self) -> int:
        """Return 0: Milvus 2.3 does not say it."""
        return 0
