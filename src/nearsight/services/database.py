"""A small SQLite database that several processes change, one transaction at a time."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from nearsight.errors import StorageError


class Database:
    """The file of a database; it is made by the first transaction.

    Parameters
    ----------
    file : Path
        Its directory exists by then.
    schema : str
        SQL that makes the tables that are not there.
    timeout_s : float
        How long to wait for another process.
    """

    def __init__(self, file: Path, schema: str, timeout_s: float) -> None:
        self._file, self._schema, self._timeout_s = file, schema, timeout_s
        self._is_made = False

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block does, or nothing if it raises.

        Raises
        ------
        StorageError
            The file cannot be read or written.
        """
        try:
            with closing(
                sqlite3.connect(self._file, timeout=self._timeout_s, isolation_level=None)
            ) as database:
                database.row_factory = sqlite3.Row
                if not self._is_made:
                    database.execute("PRAGMA journal_mode = WAL")
                    database.executescript(self._schema)
                    self._is_made = True
                database.execute("BEGIN IMMEDIATE")
                try:
                    yield database
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
        except sqlite3.Error as error:
            raise StorageError(f"{self._file} cannot be used: {error}") from error
