"""Opens and creates stores by their URI: the only module outside the engines' packages that names one."""

import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pyarrow as pa

from nearsight.errors import InvalidParameterError
from nearsight.store.base import VectorStore
from nearsight.store.lance import platform_checks
from nearsight.store.lance.location import DirectoryLocation
from nearsight.store.lance.store import LanceStore
from nearsight.store.location import Location
from nearsight.text_format import uri_without_secrets

# One slash, because a URI that was held in a Path has lost the other.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(/?)")
# What ships with nearsight, as module:function of the URI; each is imported when it is needed.
_LOCATIONS = {
    "gs": "nearsight.store.lance.object_storage.location:open_location",
    "milvus": "nearsight.store.milvus.location:open_location",
    "postgres": "nearsight.store.postgres.location:open_location",
    "postgresql": "nearsight.store.postgres.location:open_location",
    "s3": "nearsight.store.lance.object_storage.location:open_location",
}
#: Packages that bring another scheme name a function from URI to `Location` under this group.
ENTRY_POINTS = "nearsight.stores"
#: The store of a collection that was never upgraded.
STORE = "store"


def shown_uri(uri: str | Path) -> str:
    """Return a URI without its password, token, key, or any option that is not known to hold none.

    Examples
    --------
    >>> shown_uri("postgres://ann:secret@host/shop?collection=photos&sslmode=require")
    'postgres://ann@host/shop?collection=photos&sslmode=require'
    >>> shown_uri("milvus://host?token=root:secret&collection=photos")
    'milvus://host?token=***&collection=photos'
    """
    return uri_without_secrets(str(uri)) if _SCHEME.match(str(uri)) else str(uri)


def is_directory(uri: str | Path | Location) -> bool:
    """Whether a URI names a local directory.

    Examples
    --------
    >>> is_directory("photos/.nearsight"), is_directory("postgres://host/shop?collection=photos")
    (True, False)
    """
    return isinstance(uri, DirectoryLocation) or (isinstance(uri, str | Path) and not _SCHEME.match(str(uri)))


def local_directory(uri: str | Path) -> Path:
    """Return the directory that a URI names.

    Raises
    ------
    InvalidParameterError
        The URI has a scheme, such as ``postgres://``.

    Examples
    --------
    >>> local_directory("photos/.nearsight").parts
    ('photos', '.nearsight')
    """
    if not is_directory(uri):
        raise InvalidParameterError(
            f"{shown_uri(uri)} is not a directory; give a directory here, such as ./photos.nearsight"
        )
    return Path(uri)


def locate(uri: str | Path | Location) -> Location:
    """Return the place that a URI names; nothing is created there.

    Parameters
    ----------
    uri : str or Path
        A directory, ``postgres://user@host/database?collection=NAME``, ``milvus://host?collection=NAME``,
        ``s3://BUCKET/FOLDER``, ``gs://BUCKET/FOLDER``, or the URI of a plugin.

    Raises
    ------
    InvalidParameterError
        No engine is known for this kind of URI, or it is incomplete.
    MissingExtraError
        The engine's package is not installed.
    """
    if isinstance(uri, Location):
        return uri
    scheme = _SCHEME.match(str(uri))
    if not scheme:
        return DirectoryLocation(Path(uri))
    location: Location = _opener(scheme[1], uri)(str(uri) if scheme[2] else str(uri).replace(":/", "://", 1))
    return location


def _opener(scheme: str, uri: str | Path) -> Callable[[str], Any]:
    if scheme in _LOCATIONS:
        module, _, function = _LOCATIONS[scheme].partition(":")
        opener: Callable[[str], Any] = getattr(import_module(module), function)
        return opener
    plugins = {plugin.name: plugin for plugin in entry_points(group=ENTRY_POINTS)}
    if scheme in plugins:
        loaded: Callable[[str], Any] = plugins[scheme].load()
        return loaded
    known = ", ".join(f"{name}://" for name in sorted({*_LOCATIONS, *plugins}))
    raise InvalidParameterError(
        f"{shown_uri(uri)} cannot be opened: there is no store for {scheme}://; give a directory, such as"
        f" ./photos.nearsight, or one of {known}"
    )


def open_store(uri: str | Path) -> VectorStore:
    """Open the store at a URI.

    Raises
    ------
    CollectionNotFoundError
        There is none.
    InvalidParameterError
        No engine is known for this kind of URI.
    StorageError, UnsupportedMachineError
        The store cannot be read, or the processor cannot run the engine.
    """
    return LanceStore.open(Path(uri)) if is_directory(uri) else locate(uri).open_store(STORE)


def create_store(uri: str | Path, schema: pa.Schema) -> VectorStore:
    """Create an empty store; if there is one with the same columns, open that.

    Parameters
    ----------
    uri : str or Path
        See `locate`; a directory is made if it does not exist.
    schema : pa.Schema
        With ``id`` (string) and ``vector`` (fixed-size list of float32 or float16) at least.

    Raises
    ------
    InvalidParameterError
        No engine is known for this kind of URI.
    StorageError, UnsupportedMachineError
        The storage refuses, or the processor cannot run the engine.
    """
    if is_directory(uri):
        return LanceStore.create(Path(uri), schema)
    return locate(uri).create_store(STORE, schema)


def is_store(directory: Path) -> bool:
    """Whether there is a store in a directory, finished or not."""
    return LanceStore.is_at(directory)


def is_unfinished_store(directory: Path, *, with_rows: bool = False) -> bool:
    """Whether a directory holds at most what an interrupted `create_store` leaves.

    Parameters
    ----------
    directory : Path
    with_rows : bool, default False
        Whether the store may hold rows.
    """
    return LanceStore.is_unfinished_at(directory, with_rows=with_rows)


def check_machine() -> None:
    """Raise `UnsupportedMachineError` if the processor cannot run the engine."""
    platform_checks.check_machine()
