"""A collection in Qdrant: its documents, its lock, and its stores."""

import base64
import hashlib
import uuid
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock
from qdrant_client import models

from nearsight.errors import CollectionNotFoundError, StorageError
from nearsight.settings import files_directory
from nearsight_qdrant.points import key_of
from nearsight_qdrant.server import Address, client_of, parse_address, translated
from nearsight_qdrant.store import QdrantStore, entry_of


def open_location(uri: str) -> "QdrantLocation":
    """Return the location that a URI names; nearsight calls this for ``qdrant://``."""
    return QdrantLocation(parse_address(uri))


class QdrantLocation:
    """A `nearsight.store.Location` in Qdrant.

    Documents are points without vectors in a table of their own.

    Parameters
    ----------
    address : Address
    """

    default_storage = "float32"
    is_searched_in_memory = False

    def __init__(self, address: Address) -> None:
        self._address = address
        self._documents = f"{address.collection}.documents"

    @property
    def uri(self) -> str:
        """The URI without the key."""
        return self._address.shown

    @property
    def files(self) -> Path:
        """A directory of this machine."""
        place = f"{self._address.place} {self._address.collection}"
        label = f"{self._address.collection}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
        return files_directory(label)

    def read_document(self, name: str) -> bytes | None:
        """Return a document; see Location."""
        with translated(self._address):
            client = client_of(self._address)
            if not client.collection_exists(self._documents):
                return None
            found = client.retrieve(self._documents, [key_of(name)], with_payload=True)
        return base64.b64decode((found[0].payload or {})["content"]) if found else None

    def write_document(self, name: str, content: bytes) -> None:
        """Write a document; see Location."""
        with translated(self._address):
            client = client_of(self._address)
            if not client.collection_exists(self._documents):
                client.create_collection(self._documents, vectors_config={})
            payload = {"name": name, "content": base64.b64encode(content).decode()}
            client.upsert(self._documents, [models.PointStruct(id=key_of(name), vector={}, payload=payload)])

    def delete_document(self, name: str) -> None:
        """Delete a document; see Location."""
        with translated(self._address):
            client = client_of(self._address)
            if client.collection_exists(self._documents):
                client.delete(self._documents, [key_of(name)])

    def lock(self) -> AbstractContextManager[Any]:
        """Return the lock of whoever writes: Qdrant has none, so it is one of this machine; see Location."""
        return FileLock(self.files / "write.lock", is_singleton=True)

    def open_store(self, name: str) -> QdrantStore:
        """Open a store; see Location."""
        content = self.read_document(entry_of(name))
        if content is None:
            raise CollectionNotFoundError(
                f"{self.uri}: there is no collection. Check the name, or create one."
            )
        return QdrantStore(self, self._address, name)

    def create_store(self, name: str, schema: pa.Schema) -> QdrantStore:
        """Create a store; see Location."""
        if self.read_document(entry_of(name)) is None:
            self._create(name, schema)
        store = self.open_store(name)
        types = {field.name: field.type for field in store.stored_schema}
        if any(types.get(field.name) != field.type for field in schema):
            raise StorageError(f"{self.uri}: there is a table with other columns. Choose another name.")
        return store

    def _create(self, name: str, schema: pa.Schema) -> None:
        table = f"{self._address.collection}.{name}"
        dim = schema.field("vector").type.list_size
        is_half = schema.field("vector").type.value_type == pa.float16()
        with translated(self._address):
            client: Any = client_of(self._address)
            # Without an entry, it is what a process left that ended in between.
            if client.collection_exists(table):
                client.delete_collection(table)
            client.create_collection(
                table,
                vectors_config=models.VectorParams(
                    size=dim,
                    distance=models.Distance.DOT,
                    datatype=models.Datatype.FLOAT16 if is_half else models.Datatype.FLOAT32,
                ),
                on_disk_payload=True,
            )
        self.write_document(entry_of(name), QdrantStore.entry(schema, 0, str(uuid.uuid4())))

    def delete_store(self, name: str) -> None:
        """Delete a store; see Location."""
        self.delete_document(entry_of(name))
        with translated(self._address):
            client_of(self._address).delete_collection(f"{self._address.collection}.{name}")

    def size_bytes(self) -> int:
        """Return the bytes of the directory; a server does not say them, so 0. See Location."""
        directory = self._address.directory
        if directory is None:
            return 0
        prefix = f"{self._address.collection}."
        files = (file for file in directory.glob(f"collection/{prefix}*/**/*") if file.is_file())
        return sum(file.stat().st_size for file in files)
