"""A small SQLite database that several processes change, one transaction at a time."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from nearsight.errors import StorageError

# The time of a file is this coarse on some file systems.
_CLOCK_STEP_S = 2.0


class FileChanges:
    """Whether files may have changed since they were last asked about; it costs two looks and reads nothing.

    A file that has just changed may change once more within one step of its clock, and look the same.

    Parameters
    ----------
    *files : Path
    """

    def __init__(self, *files: Path) -> None:
        self._files = files
        self._seen: list[tuple[int, int, int]] | None = None

    def may_differ(self) -> bool:
        """Return whether a file differs from how it was at the last call; True at the first one."""
        now = [_state(file) for file in self._files]
        youngest = max(changed for changed, _, _ in now)
        is_settled = time.time() - youngest / 1e9 > _CLOCK_STEP_S
        differs = now != self._seen
        self._seen = now if is_settled else None
        return differs


def _state(file: Path) -> tuple[int, int, int]:
    try:
        facts = file.stat()
    except OSError:
        return 0, 0, 0
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


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

    def changes(self) -> FileChanges:
        """Return what tells whether any process may have written since."""
        return FileChanges(self._file, self._file.with_name(f"{self._file.name}-wal"))

    def vacuum(self) -> None:
        """Write the file anew, so that nothing is left in it of what was deleted or replaced.

        Raises
        ------
        StorageError
            The file cannot be written, or another process uses it for too long.
        """
        try:
            with closing(sqlite3.connect(self._file, timeout=self._timeout_s, isolation_level=None)) as each:
                each.execute("VACUUM")
                each.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise StorageError(f"{self._file} cannot be used: {error}") from error

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
