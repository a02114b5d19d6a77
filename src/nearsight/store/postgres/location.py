"""A collection in a database: its documents, its lock, and its stores."""

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from nearsight.errors import CollectionNotFoundError, InvalidParameterError, StorageError, VectorError
from nearsight.settings import files_directory
from nearsight.store.location import StoreCheck
from nearsight.store.postgres.address import Address, parse_address
from nearsight.store.postgres.checks import check_server
from nearsight.store.postgres.connection import ConnectionPool, LostConnectionError, unhurried
from nearsight.store.postgres.sql import name_sql
from nearsight.store.postgres.store import PostgresStore
from nearsight.store.postgres.tables import Tables

_SETUP_LOCK = 0x6E656172  # of whoever makes the schema, whatever the collection


def open_location(uri: str) -> "PostgresLocation":
    """Return the location of ``postgres://user@host/database?collection=NAME``."""
    return PostgresLocation(parse_address(uri))


class PostgresLocation:
    """A `Location` in a schema of a database.

    The table ``_documents`` holds the documents of all collections, ``_stores`` what is known of each store.

    Parameters
    ----------
    address : Address
    """

    # The index compares float16 whatever is stored, and half the room keeps more of it in memory.
    default_storage = "float16"
    is_searched_in_memory = False

    def __init__(self, address: Address) -> None:
        self._address = address
        self._database = ConnectionPool(address)
        self._lock = CollectionLock(self._database)
        self._documents = f"{name_sql(address.schema)}._documents"
        self._stores = f"{name_sql(address.schema)}._stores"
        self._is_set_up = False

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
        if not self._has_tables():
            return None
        row = self._database.retried(
            lambda connection: connection.execute(
                f"SELECT content FROM {self._documents} WHERE collection = %s AND name = %s",
                (self._address.collection, name),
            ).fetchone()
        )
        return None if row is None else bytes(row[0])

    def write_document(self, name: str, content: bytes) -> None:
        """Write a document; see Location."""
        self._set_up()
        self._database.retried(
            lambda connection: connection.execute(
                f"INSERT INTO {self._documents} VALUES (%s, %s, %s)"
                " ON CONFLICT (collection, name) DO UPDATE SET content = EXCLUDED.content",
                (self._address.collection, name, content),
            )
        )

    def delete_document(self, name: str) -> None:
        """Delete a document; see Location."""
        if not self._has_tables():
            return
        self._database.retried(
            lambda connection: connection.execute(
                f"DELETE FROM {self._documents} WHERE collection = %s AND name = %s",
                (self._address.collection, name),
            )
        )

    def lock(self) -> "CollectionLock":
        """Return the lock of whoever writes; see Location."""
        return self._lock

    def open_store(self, name: str) -> PostgresStore:
        """Open a store; see Location."""
        found = self._find(name) if self._has_tables() else None
        if found is None:
            raise CollectionNotFoundError(
                f"{self.uri}: there is no collection. Check the name, or create one."
            )
        return found

    def create_store(self, name: str, schema: pa.Schema) -> PostgresStore:
        """Create a store; see Location."""
        tables = Tables(self._address.schema, self._address.collection, name)
        tables.require_storable(schema)
        self._set_up()
        if (store := self._find(name)) is None:
            self._database.retried(lambda connection: self._create(connection, tables, name, schema))
            store = self.open_store(name)
        types = {field.name: field.type for field in store.stored_schema}
        if any(types.get(field.name) != field.type for field in schema):
            raise StorageError(f"{self.uri}: there is a table with other columns. Choose another name.")
        return store

    def _create(self, connection: Any, tables: Tables, name: str, schema: pa.Schema) -> None:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SETUP_LOCK,))
            if connection.execute(
                f"SELECT 1 FROM {self._stores} WHERE collection = %s AND name = %s",
                (self._address.collection, name),
            ).fetchone():
                return
            # Without an entry, tables are what somebody else made.
            for statement in tables.create(schema):
                connection.execute(statement)
            connection.execute(
                f"INSERT INTO {self._stores} (collection, name, arrow_schema, incarnation)"
                " VALUES (%s, %s, %s, %s)",
                (self._address.collection, name, schema.serialize().to_pybytes(), uuid.uuid4()),
            )

    def _find(self, name: str) -> PostgresStore | None:
        row = self._database.retried(
            lambda connection: connection.execute(
                f"SELECT id FROM {self._stores} WHERE collection = %s AND name = %s",
                (self._address.collection, name),
            ).fetchone()
        )
        tables = Tables(self._address.schema, self._address.collection, name)
        return (
            None if row is None else PostgresStore(self._database, self._lock, tables, self._stores, row[0])
        )

    def delete_store(self, name: str) -> None:
        """Delete a store; see Location."""
        if not self._has_tables():
            return
        tables = Tables(self._address.schema, self._address.collection, name)

        def delete(connection: Any) -> None:
            with connection.transaction():
                connection.execute(
                    f"DELETE FROM {self._stores} WHERE collection = %s AND name = %s",
                    (self._address.collection, name),
                )
                connection.execute(tables.drop())

        self._database.retried(delete)

    def size_bytes(self) -> int:
        """Return the bytes of all tables with their indexes; see Location."""
        row = self._database.retried(
            lambda connection: connection.execute(
                "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
                " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r'"
                " AND (c.relname = %s OR starts_with(c.relname, %s))",
                (self._address.schema, self._address.collection, f"{self._address.collection}."),
            ).fetchone()
        )
        return int(row[0])

    def checks(self) -> Iterator[StoreCheck]:
        """Check the server; see CheckedLocation."""
        try:
            with self._database.connection() as connection:
                yield from check_server(connection, self._address)
        except (StorageError, InvalidParameterError) as error:
            fix = "start the server; check host, port, database, user and sslmode of the URI, and PGPASSWORD"
            yield StoreCheck("server", "fail", str(error), fix)

    def store_checks(self, name: str) -> Iterator[StoreCheck]:
        """Check a store; see CheckedLocation."""
        if self._has_tables() and (store := self._find(name)) is not None:
            yield from store.checks()

    def _has_tables(self) -> bool:
        if not self._is_set_up:
            row = self._database.retried(
                lambda connection: connection.execute(
                    "SELECT to_regclass(%s) IS NOT NULL", (self._stores,)
                ).fetchone()
            )
            self._is_set_up = bool(row[0])
        return self._is_set_up

    def _set_up(self) -> None:
        """Make the extension, the schema and the tables of all collections."""
        if self._has_tables():
            return
        self._database.retried(self._make_tables)
        # So that every connection finds the type of vectors.
        self._database.close()
        self._is_set_up = True

    def _make_tables(self, connection: Any) -> None:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SETUP_LOCK,))
            if not connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
                self._make_extension(connection)
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name_sql(self._address.schema)}")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._documents} (collection text NOT NULL, name text NOT NULL,"
                " content bytea NOT NULL, PRIMARY KEY (collection, name))"
            )
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._stores} ("
                "id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
                " collection text NOT NULL, name text NOT NULL, arrow_schema bytea NOT NULL,"
                " incarnation uuid NOT NULL, version bigint NOT NULL DEFAULT 0, last_write uuid,"
                " next_row bigint NOT NULL DEFAULT 0, UNIQUE (collection, name))"
            )

    def _make_extension(self, connection: Any) -> None:
        try:
            with self._database.translated(connection), connection.transaction():
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except (StorageError, VectorError) as error:
            if isinstance(error, LostConnectionError):
                raise
            raise StorageError(
                f"{self.uri}: the database lacks the extension pgvector, and it could not be made"
                f" ({error.args[0]}). Install pgvector 0.8 or newer on the server, and let its owner"
                " run: CREATE EXTENSION vector"
            ) from error


class CollectionLock:
    """An advisory lock of the server, held by one thread of one process, which may enter it again.

    While it is held, the thread's calls use the connection that holds it: if that one is lost, so is the
    lock, and nothing is written without it.

    Parameters
    ----------
    database : ConnectionPool
    """

    def __init__(self, database: ConnectionPool) -> None:
        self._database = database
        self._key = _key(database.address)
        self._stores = f"{name_sql(database.address.schema)}._stores"

    def __enter__(self) -> "CollectionLock":
        state = self._database.held
        if state.connection is None:
            self._acquire()
        state.depth += 1
        return self

    def __exit__(self, *error: object) -> None:
        state = self._database.held
        state.depth -= 1
        if state.depth == 0:
            connection = state.connection
            state.connection, state.versions, state.renew = None, {}, None
            if connection is None:  # it was lost, and the server did not come back
                return
            # The server gives up the lock when the connection ends.
            with suppress(StorageError), self._database.translated(connection):
                connection.execute("SELECT pg_advisory_unlock(%s)", (self._key,))
            self._database.give_back(connection)

    def _acquire(self) -> None:
        state = self._database.held
        while state.connection is None:
            connection = self._database.take()
            try:
                with self._database.translated(connection):
                    self._take(connection)
                    state.versions = self._versions(connection)
                state.connection, state.renew = connection, self.renew
            except LostConnectionError:
                self._database.give_back(connection)
            except BaseException:
                connection.close()
                raise

    def _take(self, connection: Any) -> None:
        [is_taken] = connection.execute("SELECT pg_try_advisory_lock(%s)", (self._key,)).fetchone()
        if not is_taken:
            with unhurried(connection):
                connection.execute("SELECT pg_advisory_lock(%s)", (self._key,))

    def _versions(self, connection: Any, but: uuid.UUID | None = None) -> dict[int, int]:
        """Return the versions of the collection's stores; a write of one's own is not counted."""
        if connection.execute("SELECT to_regclass(%s)", (self._stores,)).fetchone()[0] is None:
            return {}
        rows = connection.execute(
            f"SELECT id, version, last_write FROM {self._stores} WHERE collection = %s",
            (self._database.address.collection,),
        ).fetchall()
        return {id: version - (but is not None and last_write == but) for id, version, last_write in rows}

    def renew(self, token: uuid.UUID | None = None) -> None:
        """Take the lock again after its connection was lost.

        Parameters
        ----------
        token : UUID, optional
            Of the write that was under way, which may have been done.

        Raises
        ------
        StorageError
            Somebody else has written meanwhile: what this thread has read is old.
        """
        state = self._database.held
        before, state.connection = state.versions, None
        self._acquire()
        with self._database.connection() as connection:
            state.versions = self._versions(connection, token)
        changed = [id for id, version in state.versions.items() if before.get(id, version) != version]
        if changed:
            raise StorageError(
                f"{self._database.address.shown}: the connection was lost, and another process has written"
                " meanwhile; run the same command again. Rows that were saved are intact"
            )


def _key(address: Address) -> int:
    digest = hashlib.sha256(f"{address.schema}.{address.collection}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
