"""Models that jobs of a service made: trained ones, and int8 variants, by alias."""

import json
import re
import shutil
from pathlib import Path

from filelock import FileLock

from nearsight.artifacts import replacing
from nearsight.errors import InvalidParameterError

ALIAS = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_FILENAME = "models.json"


class MadeModels:
    """The models in a directory of a service, and what else jobs made, by alias.

    Parameters
    ----------
    directory : path
        It is made with the first model.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory).absolute()
        self._file = self.directory / _FILENAME

    def folder(self, alias: str) -> Path:
        """Return where a model of this alias is written.

        Raises
        ------
        InvalidParameterError
            It is not a name.
        """
        if not re.fullmatch(ALIAS, alias):
            raise InvalidParameterError(
                f"the alias is {alias!r}; it is up to 64 letters, digits, - and _, with no - or _ in front"
            )
        return self.directory / alias

    def all(self) -> dict[str, str]:
        """Return the names of the models by alias."""
        try:
            names: dict[str, str] = json.loads(self._file.read_text(encoding="utf-8"))
            return names
        except FileNotFoundError:
            return {}

    def add(self, alias: str, name: str) -> None:
        """Note the model that an alias means from now on."""
        self.folder(alias)
        self._write({alias: name})

    def remove(self, alias: str) -> None:
        """Forget a model, and delete its files."""
        folder = self.folder(alias)
        self._write({}, but=alias)
        shutil.rmtree(folder, ignore_errors=True)

    def _write(self, new: dict[str, str], but: str = "") -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with FileLock(self._file.with_suffix(".lock")):
            names = {alias: name for alias, name in {**self.all(), **new}.items() if alias != but}
            with replacing(self._file) as file:
                file.write(json.dumps(names, indent=2).encode())
