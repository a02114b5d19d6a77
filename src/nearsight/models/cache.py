"""Keeps what is dear to make, in files whose names say what must be inside."""

import hashlib
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

_log = logging.getLogger(__name__)

_N_DIGITS = 16


def user_cache() -> Path:
    """Return the directory of this user's system for what can be made again."""
    return user_cache_path("nearsight", appauthor=False)


def kept(directory: Path, stem: str, suffix: str, build: Callable[[], bytes]) -> bytes:
    """Return a file's bytes from `directory`, or build and keep them there.

    The file is called ``{stem}-{first 16 hex digits of its SHA-256}{suffix}`` and is checked against that
    name each time; a damaged one is removed and built again. Any number of processes may start at once:
    each writes a file of its own and moves it into place. A directory that cannot be written costs time
    at the next start, never the job: that is only logged.

    Parameters
    ----------
    directory : Path
        Made where it is missing.
    stem : str
        Names the content and the version of its maker; without glob characters.
    suffix : str
        With its dot.
    build : callable
        Returns the bytes; called only where no sound file is found.

    Returns
    -------
    bytes
        The content.
    """
    for path in sorted(directory.glob(f"{stem}-*{suffix}")):
        data = _sound(path)
        if data is not None:
            return data
    data = build()
    try:
        _write(directory / f"{stem}-{_digest(data)}{suffix}", data)
    except OSError as error:
        _log.warning(
            "%s was not kept in %s (%s), so it is made again at each start; "
            "give a cache directory that can be written.",
            stem,
            directory,
            error.strerror or error,
        )
    return data


def _sound(path: Path) -> bytes | None:
    """Return the content if it is what the name promises; remove the file otherwise."""
    try:
        data = path.read_bytes()
        if path.stem.rpartition("-")[2] == _digest(data):
            return data
        _log.warning("%s is damaged; it is made again.", path)
        path.unlink()
    except OSError as error:
        _log.warning("%s cannot be used (%s).", path, error.strerror or error)
    return None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same directory, since only then is the move atomic. The name escapes the glob above.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # Not tempfile: its files are private to one user, and a cache may be shared.
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_N_DIGITS]
