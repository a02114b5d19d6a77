"""Connections to Qdrant: a server, or a directory that one process at a time uses."""

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ApiException

from nearsight.errors import InvalidParameterError, NearsightError, StorageError

FORM = "qdrant://host:6333?collection=NAME, or qdrant:///directory?collection=NAME"
_TIMEOUT_S = 60
# By place and key: whoever has another key has other rights.
_CLIENTS: dict[tuple[str, str | None], QdrantClient] = {}
_LOCKS: dict[tuple[str, str], Any] = {}
_MUTEX = threading.Lock()


@dataclass(frozen=True)
class Address:
    """A collection in Qdrant.

    Attributes
    ----------
    collection : str
        Its name, which those of its tables in Qdrant begin with.
    directory : Path or None
        Of the local mode; None for a server.
    url : str
        Of the server.
    shown : str
        The URI without the key.
    key : str or None
        The server's API key.
    """

    collection: str
    directory: Path | None
    url: str
    shown: str
    key: str | None = field(repr=False)

    @property
    def place(self) -> str:
        """The server or the directory, without the collection."""
        return str(self.directory) if self.directory else self.url


def parse_address(uri: str) -> Address:
    """Return the address that a URI names.

    Raises
    ------
    InvalidParameterError
        The URI lacks the collection or the place.

    Examples
    --------
    >>> parse_address("qdrant://localhost:6333?collection=photos").url
    'http://localhost:6333'
    """
    try:
        parts = urlsplit(uri)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        # Not chained: the error of urllib holds the URI.
        raise InvalidParameterError(f"this URI of Qdrant cannot be read; write {FORM}") from None
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    collection = options.get("collection", "")
    where = f"qdrant://{parts.hostname or ''}{port}{parts.path}"
    shown = f"{where}?collection={collection}"
    unknown = options.keys() - {"collection", "tls", "api_key"}
    if unknown:
        raise InvalidParameterError(f"{shown}: unknown options {sorted(unknown)}; write {FORM}")
    if not collection.replace("-", "").replace("_", "").isalnum() or not collection.isascii():
        raise InvalidParameterError(
            f"{shown}: collection={collection!r} must be a name of letters, digits, - and _; write {FORM}"
        )
    if parts.hostname:
        scheme = "https" if options.get("tls") in ("1", "true") else "http"
        url = f"{scheme}://{parts.hostname}:{parts.port or 6333}"
        return Address(collection, None, url, shown, options.get("api_key"))
    if len(parts.path) < 2:
        raise InvalidParameterError(f"{shown} names neither a server nor a directory; write {FORM}")
    return Address(collection, Path(parts.path), "", shown, None)


def client_of(address: Address) -> QdrantClient:
    """Return this process's connection to the place of a collection."""
    key = (address.place, address.key)
    with _MUTEX:
        if key not in _CLIENTS:
            with translated(address):
                _CLIENTS[key] = (
                    QdrantClient(path=str(address.directory))
                    if address.directory
                    else QdrantClient(
                        url=address.url,
                        api_key=address.key,
                        timeout=_TIMEOUT_S,
                        # It warns, in a thread of its own, of a server that is away.
                        check_compatibility=False,
                    )
                )
        return _CLIENTS[key]


@atexit.register
def _close() -> None:
    # The client closes itself when it is deleted, which is too late at the end of the process.
    for client in _CLIENTS.values():
        client.close()
    _CLIENTS.clear()


def thread_lock(address: Address) -> Any:
    """Return the lock of the threads of this process that write to a collection."""
    with _MUTEX:
        return _LOCKS.setdefault((address.place, address.collection), threading.RLock())


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Raise the client's errors as those of nearsight."""
    try:
        yield
    except NearsightError:
        raise
    except RuntimeError as error:
        if "already accessed" not in str(error):
            raise
        raise StorageError(
            f"{address.shown}: another process has this directory open. Wait for it, or run a Qdrant server,"
            " which any number of processes can use"
        ) from error
    except (ApiException, OSError) as error:
        text = " ".join(str(error).split())[:300]
        raise StorageError(
            f"{address.shown}: Qdrant does not answer, or refuses: {text}. Check that it runs and try again;"
            " rows that were saved are intact"
        ) from error
