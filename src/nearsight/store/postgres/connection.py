"""Connections to a database: kept for the next call, and made anew when the server was away."""

import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from nearsight.errors import (
    InvalidParameterError,
    MissingExtraError,
    NearsightError,
    StorageError,
    VectorError,
)
from nearsight.store.postgres.address import Address

try:
    import psycopg
    from psycopg.types.string import StrDumper
except ImportError as error:
    raise MissingExtraError(
        f"collections in PostgreSQL need psycopg ({error}); pip install 'nearsight[postgres]'"
    ) from error

T = TypeVar("T")

#: Seconds to wait before each further try, while a server restarts.
PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
_CONNECT_TIMEOUT_S = "10"
# After so many seconds there is no further try: a host that says nothing takes all of one.
_TRY_S = 9.0
# A machine that has gone without a word is noticed within a minute, not after the quarter of an hour that TCP
# takes by itself.
_SILENCE = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# The server ends connections, or does not take any yet: 57P01 to 57P03; 57P05 of one that was idle for too
# long; 08 is the connection itself.
_AWAY_STATES = ("57P01", "57P02", "57P03", "57P05", "08", "53300")
_REFUSED = ("28", "3D")
_REFUSED_TEXTS = (
    "password",
    "authentication failed",
    "no pg_hba.conf entry",
    "does not exist",
    "SSL",
    "certificate",
)
# What a filter and a search rely on, whatever the server's defaults; the extension may be in any schema. A
# server that does not ask whether a machine is there keeps the lock of one that has gone for two hours.
_SETUP = """
SELECT set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false),
       set_config('tcp_keepalives_count', '3', false),
       set_config('standard_conforming_strings', 'on', false), set_config('TimeZone', 'UTC', false),
       set_config('extra_float_digits', '3', false),
       set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''),
           (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
            WHERE e.extname = 'vector')), false)
"""


# Of a parent process: never used, and never closed.
_INHERITED: list[Any] = []


class LostConnectionError(StorageError):
    """The server is away, or the connection was lost."""


class Held(threading.local):
    """What a thread has while it holds the lock of the collection.

    Attributes
    ----------
    connection
        The one that holds the lock; the calls of this thread use it.
    depth : int
        How often the lock was entered.
    versions : dict of int to int
        Of each store, by id: the last that this thread knows.
    renew : callable, optional
        Takes the lock again after its connection was lost.
    """

    connection: Any = None
    depth: int = 0
    versions: dict[int, int] = {}  # noqa: RUF012 - replaced, never changed in place
    renew: Callable[[uuid.UUID | None], None] | None = None


class ConnectionPool:
    """One database for the threads of one process.

    Parameters
    ----------
    address : Address
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._mutex = threading.Lock()
        self._idle: list[Any] = []
        weakref.finalize(self, _close_all, self._idle)
        self._process = os.getpid()
        self._has_answered = False
        self.held = Held()

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """Give a connection in autocommit mode to the block; errors become those of nearsight."""
        if self.held.connection is None and self.held.renew is not None:
            # The lock was lost with its connection: nothing is written without it.
            self.held.renew(None)
        held = self.held.connection
        connection = held or self.take()
        try:
            with self.translated(connection):
                yield connection
        finally:
            if held is None:
                self.give_back(connection)

    def connect(self) -> Any:
        """Return a new connection.

        Raises
        ------
        LostConnectionError
            The server is away; it was tried for some seconds.
        StorageError
            The server refuses.
        """
        started = time.monotonic()
        for pause in (*PAUSES_S, None):
            try:
                with self.translated(None):
                    connection = self._connect()
                self._has_answered = True
                return connection
            except LostConnectionError:  # noqa: PERF203 - a few times, with pauses between
                if pause is None or time.monotonic() - started > _TRY_S:
                    raise
                time.sleep(pause)
        raise AssertionError

    def _connect(self) -> Any:
        try:
            options: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(self.address.dsn)
        except psycopg.ProgrammingError:
            # Not chained, and not told: the driver's message holds the URI with its password.
            known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
            named = dict(parse_qsl(urlsplit(self.address.dsn).query, keep_blank_values=True))
            detail = (
                f"there are no options {unknown}; those of libpq may be given, such as sslmode"
                if (unknown := sorted(named.keys() - known))
                else "the driver cannot read this URI. Write what is no letter or digit in a user or"
                " password as %20, %2F, %40, and check the options after the ?"
            )
            raise InvalidParameterError(f"{self.address.shown}: {detail}") from None
        options.setdefault("connect_timeout", _CONNECT_TIMEOUT_S)
        options.setdefault("application_name", "nearsight")
        for name, value in _SILENCE.items():
            options.setdefault(name, value)
        # Without prepared statements: a pooler may give each transaction to another server process.
        connection = psycopg.connect(**options, autocommit=True, prepare_threshold=None)
        # Text that came from a file name or metadata has no type that the server could not infer.
        connection.adapters.register_dumper(str, StrDumper)
        connection.execute(_SETUP)
        return connection

    def retried(self, work: Callable[[Any], T]) -> T:
        """Return ``work(connection)``; if the connection is lost, do it again on another one.

        The work must have the same effect when it is done twice.
        """
        for pause in (*PAUSES_S, None):
            try:
                with self.connection() as connection:
                    return work(connection)
            except LostConnectionError:  # noqa: PERF203 - a few times, with pauses between
                # A server that has never answered was tried for some seconds by `connect`; one that has is
                # waited for longer, as it may be starting again.
                if pause is None or not self._has_answered:
                    raise
                time.sleep(pause)
                if self.held.renew is not None:
                    self.held.renew(None)
        raise AssertionError

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._mutex:
            _close_all(self._idle)

    def take(self) -> Any:
        """Return a connection that the caller gives back."""
        with self._mutex:
            if self._process != os.getpid():
                # A forked child must not speak on its parent's connections.
                _INHERITED.extend(self._idle)
                self._idle.clear()
                self._process = os.getpid()
            connection = self._idle.pop() if self._idle else None
        return connection or self.connect()

    def give_back(self, connection: Any) -> None:
        """Keep a connection for the next call, or close it if it is not sound."""
        status = connection.info.transaction_status
        if not connection.closed and status == psycopg.pq.TransactionStatus.IDLE:
            with self._mutex:
                self._idle.append(connection)
        else:
            with suppress(psycopg.Error):
                connection.close()

    @contextmanager
    def translated(self, connection: Any) -> Iterator[None]:
        """Raise the driver's errors as those of nearsight."""
        try:
            yield
        except NearsightError:
            raise
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise VectorError(f"{self.address.shown} does not take these rows: {_text(error)}") from error
        except psycopg.Error as error:
            raise self._storage_error(error, connection) from error

    def _storage_error(self, error: "psycopg.Error", connection: Any) -> StorageError:
        shown, text, state = self.address.shown, _text(error), error.sqlstate or ""
        is_refusal = state.startswith(_REFUSED) or (
            not state and any(part in text for part in _REFUSED_TEXTS)
        )
        if connection is None and is_refusal:
            return StorageError(
                f"{shown}: the server refuses the connection: {text}. Check the user, the database and"
                " sslmode of the URI, and give the password in PGPASSWORD or in ~/.pgpass"
            )
        is_lost = connection is None or connection.closed or state.startswith(_AWAY_STATES)
        if is_lost and (not state or state.startswith(_AWAY_STATES)):
            if connection is not None:
                # The other connections went with it.
                self.close()
            return LostConnectionError(
                f"{shown}: the server is away: {text}. Start it, check host and port, and run the same"
                " command again; rows that were saved are intact"
            )
        if state.startswith("53"):
            return StorageError(
                f"{shown}: the server has run out of room or memory: {text}. Free some, and run the same"
                " command again; rows that were saved are intact"
            )
        if state in ("42501", "25006"):
            return StorageError(f"{shown}: permission was denied: {text}. Ask the owner of the database")
        return StorageError(f"{shown}: the server reports: {text}")


@contextmanager
def unhurried(connection: Any) -> Iterator[None]:
    """Let the statements of the block take as long as they must, whatever limits the server has."""
    connection.execute(
        "SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false)"
    )
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("RESET statement_timeout")
            connection.execute("RESET lock_timeout")


def _close_all(connections: list[Any]) -> None:
    while connections:
        with suppress(psycopg.Error):
            connections.pop().close()


def _text(error: "psycopg.Error") -> str:
    """Return what the server says, in one line; libpq puts no password into it."""
    return " ".join(str(error).split()).rstrip(".?")
