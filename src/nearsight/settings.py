"""The one reader of the environment, and the one home of default places."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_COLLECTION = Path(".nearsight")
DEFAULT_DEMO = Path("nearsight-demo")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are, unless a command is told otherwise.

    Attributes
    ----------
    collection : Path
        Directory of the collection. ``NEARSIGHT_COLLECTION``, or ``.nearsight`` in the current directory.
    cache_dir : Path
        Where converted models and temporary pages live. ``NEARSIGHT_CACHE``, or the system's cache
        directory for ``nearsight``.
    device : str
        Where models run. ``NEARSIGHT_DEVICE``, or ``auto``.
    no_color : bool
        Whether colors are unwanted even on a terminal. ``NO_COLOR`` (https://no-color.org).
    """

    collection: Path
    cache_dir: Path
    device: str = "auto"
    no_color: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the process's environment, or the mapping given; a variable set to nothing is unset.

        Examples
        --------
        >>> Settings.from_environment({"NEARSIGHT_COLLECTION": "photos.db"}).collection.name
        'photos.db'
        """
        environ = os.environ if environ is None else environ
        collection, cache = environ.get("NEARSIGHT_COLLECTION"), environ.get("NEARSIGHT_CACHE")
        return cls(
            # A variable from a file or a service unit has not passed through a shell: `~` is still there.
            collection=Path(collection).expanduser() if collection else DEFAULT_COLLECTION,
            cache_dir=Path(cache).expanduser() if cache else _system_cache(),
            device=environ.get("NEARSIGHT_DEVICE") or "auto",
            no_color=bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb",
        )


def _system_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("nearsight", appauthor=False)
