"""Opens and creates stores by their URI: the only module outside `store.lance` that names an engine."""

import re
from pathlib import Path

import pyarrow as pa

from nearsight.errors import InvalidParameterError
from nearsight.store.base import VectorStore
from nearsight.store.lance import platform_checks
from nearsight.store.lance.store import LanceStore

# One slash, because a URI that was held in a Path has lost the other.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


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
    scheme = _SCHEME.match(str(uri))
    if scheme:
        raise InvalidParameterError(
            f"{uri} cannot be opened: this version keeps its data in local directories only, not at"
            f" {scheme[1]}://; give a directory, such as ./photos.nearsight"
        )
    return Path(uri)


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
    return LanceStore.open(local_directory(uri))


def create_store(uri: str | Path, schema: pa.Schema) -> VectorStore:
    """Create an empty store; if there is one with the same columns, open that.

    Parameters
    ----------
    uri : str or Path
        A directory; it is made if it does not exist.
    schema : pa.Schema
        With ``id`` (string) and ``vector`` (fixed-size list of float32 or float16) at least.

    Raises
    ------
    InvalidParameterError
        No engine is known for this kind of URI.
    StorageError, UnsupportedMachineError
        The disk refuses, or the processor cannot run the engine.
    """
    return LanceStore.create(local_directory(uri), schema)


def is_store(uri: str | Path) -> bool:
    """Whether there is a store in a directory, finished or not."""
    return LanceStore.is_at(local_directory(uri))


def is_unfinished_store(uri: str | Path, *, with_rows: bool = False) -> bool:
    """Whether a directory holds at most what an interrupted `create_store` leaves.

    Parameters
    ----------
    uri : str or Path
        A directory.
    with_rows : bool, default False
        Whether the store may hold rows.
    """
    return LanceStore.is_unfinished_at(local_directory(uri), with_rows=with_rows)


def check_machine() -> None:
    """Raise `UnsupportedMachineError` if the processor cannot run the engine."""
    platform_checks.check_machine()
