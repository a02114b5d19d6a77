"""The last changes of a kind, each in a numbered file, so that they can be undone."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from nearsight.artifacts import exported
from nearsight.errors import StorageError

#: Changes that can be undone.
MAX_CHANGES = 200


class ChangeFiles:
    """Files of changes in a directory; whoever writes them holds `lock`.

    Parameters
    ----------
    directory : Path
        It is made with the first file.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def numbers(self) -> list[int]:
        """Return the numbers of the changes that can be undone, the last first."""
        numbers = [int(file.stem) for file in self.directory.glob("changes/*.json") if file.stem.isdigit()]
        return sorted(numbers, reverse=True)

    def next_number(self) -> int:
        """Return the number of the next change: no change has had it, so no late undo means another one."""
        return max(*self.numbers(), self._last(), 0) + 1

    def write(self, number: int, facts: Mapping[str, Any]) -> None:
        """Write a change; it is on disk when this returns."""
        write_durably(self._file(number), facts)

    def read(self, number: int) -> dict[str, Any]:
        """Return a change; empty if it cannot be read, because then it cannot be undone."""
        try:
            facts = json.loads(self._file(number).read_text(encoding="utf-8"))
        except (ValueError, OSError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def delete(self, number: int) -> None:
        """Forget a change."""
        if number == max(self.numbers(), default=0) and number > self._last():
            write_durably(self._last_file, {"last": number})
        self._file(number).unlink(missing_ok=True)

    def drop_old(self) -> None:
        """Forget changes but for the last ones."""
        numbers = self.numbers()
        for number in numbers:
            if number <= numbers[0] - MAX_CHANGES:
                self.delete(number)

    def lock(self) -> FileLock:
        """Return the lock of the directory.

        Raises
        ------
        StorageError
            The directory cannot be made.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.directory} cannot be made ({error.strerror})") from error
        return FileLock(self.directory / "lock")

    @property
    def _last_file(self) -> Path:
        return self.directory / "last_change.json"

    def _last(self) -> int:
        """Return the largest number of a change that was forgotten."""
        try:
            return int(json.loads(self._last_file.read_text(encoding="utf-8"))["last"])
        except (ValueError, OSError, KeyError, TypeError):
            return 0

    def _file(self, number: int) -> Path:
        return self.directory / "changes" / f"{number:09}.json"


def write_durably(file: Path, facts: Mapping[str, Any]) -> None:
    """Write a JSON file whole; it is on disk when this returns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with exported(file) as handle:
        handle.write(json.dumps(facts).encode())
        handle.flush()
        os.fsync(handle.fileno())
