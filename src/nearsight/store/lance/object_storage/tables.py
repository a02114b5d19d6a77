"""The tables of a store in a bucket."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from nearsight.errors import StorageError
from nearsight.object_storage.bucket import Bucket
from nearsight.store.lance.errors import translated
from nearsight.store.lance.manifest_file import UnknownLayoutError, VersionFacts, read_manifest
from nearsight.store.lance.old_versions import version_number
from nearsight.store.lance.platform_checks import check_process
from nearsight.store.lance.readers_lock import ReadersLock
from nearsight.store.lance.table import FILE_FORMAT, KeptVersions, LanceTables, SharedTable

_ENDING = ".manifest"


class NoReadersLock(ReadersLock):
    """Stands for the lock of readers where there is none: nobody is ever known to be alone."""

    def __init__(self) -> None:
        pass

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Do nothing."""
        yield

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Yield False."""
        yield False


class ObjectTable(SharedTable):
    """A table in a bucket.

    Parameters
    ----------
    bucket : Bucket
    folder : str
        Of the table, below the collection's.
    table : lancedb.table.Table
    check : callable
        Raises StorageError if this process may not write any more.
    """

    def __init__(self, bucket: Bucket, folder: str, table: Any, check: Callable[[], None]) -> None:
        self.place = bucket.shown
        self.files = None
        self._last_schema = (-1, None)
        self._bucket = bucket
        self._folder = folder
        self._table = table
        self._readers_lock = NoReadersLock()
        self._check = check

    @contextmanager
    def use(self, doing: str) -> Iterator[Any]:
        """Yield LanceDB's table at its newest version."""
        check_process()
        self._check()
        with translated(self.place, doing):
            self._table.checkout_latest()
            yield self._table

    @contextmanager
    def use_at(self, doing: str) -> Iterator[tuple[Any, int]]:
        """Yield what `use` does, and the version."""
        with self.use(doing) as table:
            yield table, int(table.version)

    @property
    def version(self) -> int:
        """Grows with every change."""
        with self.use_at("reading") as (_, version):
            return version

    def digest(self) -> str:
        """Return a hash of the newest version's manifest, which names files that no other table has."""
        return hashlib.sha256(self._manifest(self._listed()[-1][1])).hexdigest()[:16]

    def newest_version(self) -> VersionFacts:
        """Return what the newest version consists of; see SharedTable."""
        return self._facts(self._listed()[-1][1])

    def kept(self) -> KeptVersions:
        """Return the versions that were not deleted yet."""
        written_s = [when for _, _, when in self._listed()]
        return KeptVersions(len(written_s), min(written_s))

    def size_bytes(self) -> int:
        """Return the bytes of all objects, those of old versions included."""
        return sum(size for size, _ in self._bucket.entries(self._folder).values())

    def check_room(self, n_bytes: float) -> None:
        """Do nothing: a bucket has room."""

    def delete_old_versions(self, keep_s: float) -> None:
        """Delete the objects of versions older than `keep_s`, the newest excepted; see SharedTable.

        What no version names stays: another process may be about to commit it. So of a killed process,
        objects are left that take room and are never read.
        """
        versions = self._listed()
        now_s = max(self._bucket.now_s(), versions[-1][2])
        expired = [name for _, name, when in versions[:-1] if now_s - when > keep_s]
        kept = [self._facts(name) for _, name, _ in versions if name not in expired]
        in_use = set[str]().union(*(facts.files for facts in kept))
        indices_in_use = set[str]().union(*(facts.indices for facts in kept))
        old = [self._facts(name) for name in expired]
        files = set[str]().union(*(facts.files for facts in old)) - in_use
        indices = set[str]().union(*(facts.indices for facts in old)) - indices_in_use
        # Versions first: after a crash in between, no version is left that lacks an object.
        self._bucket.delete(*[f"{self._folder}/_versions/{name}" for name in expired])
        self._bucket.delete(*[f"{self._folder}/{name}" for name in sorted(files)])
        for index in sorted(indices):
            self._bucket.delete_folder(f"{self._folder}/_indices/{index}")

    def _listed(self) -> list[tuple[int, str, float]]:
        """Return number, name and time of the versions, the newest last."""
        entries = self._bucket.entries(f"{self._folder}/_versions")
        versions = [
            (version_number(name.removesuffix(_ENDING), name), name, written_s)
            for name, (_, written_s) in entries.items()
            if name.endswith(_ENDING)
        ]
        if not versions:
            raise StorageError(f"{self.place}: {self._folder} has no version; it was removed meanwhile")
        return sorted(versions)

    def _facts(self, name: str) -> VersionFacts:
        return read_manifest(self._manifest(name), name)

    def _manifest(self, name: str) -> bytes:
        content = self._bucket.read(f"{self._folder}/_versions/{name}")
        if content is None:
            raise UnknownLayoutError(f"{self.place}: the version {name} was deleted meanwhile")
        return content


class ObjectTables(LanceTables):
    """The tables of a store below a folder of a bucket.

    Parameters
    ----------
    bucket : Bucket
    folder : str
        Of the store, below the collection's.
    connection : lancedb.DBConnection
    check : callable
        See `ObjectTable`.
    """

    def __init__(self, bucket: Bucket, folder: str, connection: Any, check: Callable[[], None]) -> None:
        self.place = bucket.shown
        self.readers_lock = NoReadersLock()
        self._bucket = bucket
        self._folder = folder
        self._connection = connection
        self._check = check

    def open(self, name: str) -> SharedTable | None:
        """Open a table; return None if there is none, or it is not finished."""
        if not self._bucket.entries(f"{self._folder}/{name}.lance/_versions"):
            return None
        with translated(self.place, "opening the collection"):
            return self._made(name, self._connection.open_table(name))

    def make(self, name: str, schema: pa.Schema) -> SharedTable:
        """Create a table, or open the one that is there."""
        with translated(self.place, "making the collection"):
            try:
                table = self._connection.create_table(name, schema=schema, storage_options=FILE_FORMAT)
            except ValueError:
                table = self._connection.open_table(name)
            return self._made(name, table)

    def _made(self, name: str, table: Any) -> SharedTable:
        return ObjectTable(self._bucket, f"{self._folder}/{name}.lance", table, self._check)
