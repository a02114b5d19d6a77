"""Caches files that are costly to build, under names that contain the hash of their content."""

import hashlib
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

_log = logging.getLogger(__name__)

_N_DIGITS = 16


def user_cache_dir() -> Path:
    """Return the user's cache directory for nearsight on this system."""
    return user_cache_path("nearsight", appauthor=False)


def cached_bytes(directory: Path, stem: str, suffix: str, build: Callable[[], bytes]) -> bytes:
    """Return the bytes of a file in `directory`; build and store them if it is missing or damaged.

    The file is called ``{stem}-{first 16 hex digits of its SHA-256}{suffix}``. Its content is checked against
    that name at each read; a damaged file is removed and built again. Several processes may do this at once:
    each writes its own temporary file and renames it. If the directory cannot be written to, a warning is
    logged and the bytes are built again at the next start.

    Parameters
    ----------
    directory : Path
        Created if missing.
    stem : str
        Names the content and the version of the code that builds it; without glob characters.
    suffix : str
        With its dot.
    build : callable
        Returns the bytes.

    Returns
    -------
    bytes
        The content.
    """
    for path in sorted(directory.glob(f"{stem}-*{suffix}")):
        data = _read_checked(path)
        if data is not None:
            return data
    data = build()
    try:
        _write(directory / f"{stem}-{_digest(data)}{suffix}", data)
    except OSError as error:
        _log.warning(
            "%s could not be cached in %s (%s), so it is built again at each start; "
            "use a cache directory that can be written to.",
            stem,
            directory,
            error.strerror or error,
        )
    return data


def _read_checked(path: Path) -> bytes | None:
    """Return the content if it matches the hash in the name; remove the file otherwise."""
    try:
        data = path.read_bytes()
        if path.stem.rpartition("-")[2] == _digest(data):
            return data
        _log.warning("%s is damaged and will be built again.", path)
        path.unlink()
    except OSError as error:
        _log.warning("%s cannot be read (%s).", path, error.strerror or error)
    return None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A rename is atomic only within one directory. The leading dot keeps the file out of the glob above.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # Not tempfile: it makes files that only one user can read, and a cache may be shared.
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_N_DIGITS]
