"""The settings: the only reader of the environment, and the default places."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nearsight.errors import InvalidParameterError

DEFAULT_COLLECTION = ".nearsight"
DEFAULT_DEMO = Path("nearsight-demo")


@dataclass(frozen=True, slots=True)
class Settings:
    """The defaults of the command line's options.

    Attributes
    ----------
    collection : str
        URI of the collection. ``NEARSIGHT_COLLECTION``, or ``.nearsight`` in the current directory.
    cache_dir : Path
        Directory of converted models and temporary reports. ``NEARSIGHT_CACHE``, or the system's cache
        directory for ``nearsight``.
    device : str
        Where models run. ``NEARSIGHT_DEVICE``, or ``auto``.
    processes : str
        Number of worker processes that embed images, see `n_processes`. ``NEARSIGHT_PROCESSES``.
    no_color : bool
        Whether colors are unwanted even on a terminal. ``NO_COLOR`` (https://no-color.org).
    """

    collection: str
    cache_dir: Path
    device: str = "auto"
    processes: str = ""
    no_color: bool = False

    @property
    def n_processes(self) -> int | None:
        """Worker processes that embed images; None leaves the number to a measurement.

        Raises
        ------
        InvalidParameterError
            The variable is not a number.
        """
        if not self.processes:
            return None
        if not (self.processes.isascii() and self.processes.isdigit()):
            raise InvalidParameterError(
                f"NEARSIGHT_PROCESSES is {self.processes!r}; it must be a whole number, 0 or more"
            )
        return int(self.processes)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from the environment; an empty variable counts as unset.

        Parameters
        ----------
        environ : mapping of str to str, optional
            By default, the environment of this process.

        Examples
        --------
        >>> Settings.from_environment({"NEARSIGHT_COLLECTION": "photos.db"}).collection
        'photos.db'
        """
        environ = os.environ if environ is None else environ
        collection, cache = environ.get("NEARSIGHT_COLLECTION"), environ.get("NEARSIGHT_CACHE")
        return cls(
            collection=_expand_home(collection) if collection else DEFAULT_COLLECTION,
            cache_dir=Path(cache).expanduser() if cache else _system_cache(),
            device=environ.get("NEARSIGHT_DEVICE") or "auto",
            processes=environ.get("NEARSIGHT_PROCESSES") or "",
            no_color=bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb",
        )


def environment() -> Mapping[str, str]:
    """Return the variables of this process."""
    return os.environ


def files_directory(label: str) -> Path:
    """Return the directory for files of a collection that is not in a directory itself.

    It lies in ``NEARSIGHT_FILES``, or in the system's directory for data of ``nearsight``, and is made if the
    disk allows it.

    Parameters
    ----------
    label : str
        A name that no other collection has.
    """
    from platformdirs import user_data_path

    named = os.environ.get("NEARSIGHT_FILES")
    root = Path(named).expanduser() if named else user_data_path("nearsight", appauthor=False) / "collections"
    directory = root / label
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
    return directory


def _expand_home(uri: str) -> str:
    # A variable from a file or a service unit still has its `~`: no shell has expanded it.
    return str(Path(uri).expanduser()) if uri.startswith("~") else uri


def _system_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("nearsight", appauthor=False)
