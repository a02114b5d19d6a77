"""A collection in a bucket: its documents, its lock, and its stores."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa

from nearsight.errors import CollectionNotFoundError
from nearsight.object_storage.bucket import Bucket
from nearsight.object_storage.lease import Lease
from nearsight.settings import files_directory
from nearsight.store.lance import index_reach
from nearsight.store.lance.binary_columns import BinaryColumns
from nearsight.store.lance.engine import import_lancedb, new_session
from nearsight.store.lance.object_storage.address import (
    ObjectAddress,
    open_bucket,
    parse_address,
    storage_options,
)
from nearsight.store.lance.object_storage.tables import ObjectTables
from nearsight.store.lance.store import TABLE, LanceStore, check_columns
from nearsight.store.lance.table import SharedTable
from nearsight.store.lance.upkeep import Upkeep


def open_location(uri: str) -> "ObjectLocation":
    """Return the location of ``s3://BUCKET/FOLDER`` or ``gs://BUCKET/FOLDER``."""
    return ObjectLocation(parse_address(uri))


class ObjectLocation:
    """A `Location` below a folder of a bucket.

    Parameters
    ----------
    address : ObjectAddress

    Raises
    ------
    MissingExtraError
        The bucket's driver is not installed.
    """

    default_storage = "float32"
    is_searched_in_memory = True

    def __init__(self, address: ObjectAddress) -> None:
        self._address = address
        self._bucket = open_bucket(address)
        self._lease = Lease(self._bucket)

    @property
    def uri(self) -> str:
        """The URI."""
        return self._address.shown

    @property
    def files(self) -> Path:
        """A directory of this machine, the same for everybody who names this collection."""
        return files_directory(self._address.label)

    def read_document(self, name: str) -> bytes | None:
        """Return a document; see Location."""
        return self._bucket.read(name)

    def write_document(self, name: str, content: bytes) -> None:
        """Write a document; see Location."""
        self._lease.check()
        self._bucket.write(name, content)

    def delete_document(self, name: str) -> None:
        """Delete a document; see Location."""
        self._lease.check()
        self._bucket.delete(name)

    def lock(self) -> AbstractContextManager[Any]:
        """Return the lock of whoever writes, on whatever machine; see Location."""
        return self._lease.hold()

    def open_store(self, name: str) -> LanceStore:
        """Open a store; see Location."""
        tables = self._tables(name)
        rows = tables.open(TABLE)
        if rows is None:
            raise CollectionNotFoundError(
                f"{self.uri}: there is no collection. Check the name, or create one."
            )
        return self._store(name, tables, rows)

    def create_store(self, name: str, schema: pa.Schema) -> LanceStore:
        """Create a store; see Location."""
        tables = self._tables(name)
        rows = tables.make(TABLE, schema)
        check_columns(rows, schema, "folder")
        return self._store(name, tables, rows)

    def _store(self, name: str, tables: ObjectTables, rows: SharedTable) -> LanceStore:
        binary, reach = BinaryColumns(tables), _ReachObject(self._bucket, name)
        hold = self._lease.hold
        upkeep = Upkeep(tables, rows, binary, hold, lambda blocking: hold(blocking=blocking), reach)
        return LanceStore(rows, binary, upkeep, hold, reach)

    def _tables(self, name: str) -> ObjectTables:
        address = self._address
        options = storage_options(address)
        lancedb = import_lancedb()
        try:
            connection = lancedb.connect(
                f"{address.url}/{name}",
                storage_options=options,
                read_consistency_interval=None,
                session=new_session(),
            )
        except Exception as error:
            raise self._bucket.error("opening the collection", error) from error
        return ObjectTables(self._bucket, name, connection, self._lease.check)

    def delete_store(self, name: str) -> None:
        """Delete a store; see Location."""
        self._bucket.delete_folder(name)

    def size_bytes(self) -> int:
        """Return the bytes of all objects; see Location."""
        return sum(size for size, _ in self._bucket.entries().values())


class _ReachObject:
    """A `ReachFile` beside the tables."""

    def __init__(self, bucket: Bucket, folder: str) -> None:
        self._bucket = bucket
        self._name = f"{folder}/{index_reach.FILE}"

    def read(self) -> bytes | None:
        """Return what was written last, or None."""
        return self._bucket.read(self._name)

    def write(self, content: bytes) -> None:
        """Write in the place of what was there."""
        self._bucket.write(self._name, content)
