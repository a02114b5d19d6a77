"""The keys of the service: who may do what. Only hashes are stored."""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock

from nearsight.artifacts import replacing
from nearsight.errors import InvalidParameterError, StorageError

FILENAME = "keys.json"
SCOPES = ("embed", "read", "write", "admin", "faces")
_PREFIX = "ns_"
_SHOWN_CHARACTERS = 10


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without its secret.

    Attributes
    ----------
    name : str
        For people.
    prefix : str
        The first characters of the secret, which logs show.
    sha256 : str
        Hash of the secret. The secret has 256 random bits, so a slow hash would add nothing.
    scopes : tuple of str
        ``embed``: vectors. ``read``: search and look. ``write``: add, change and remove. ``faces``: persons.
        ``admin``: all of these, and everything else.
    created : str
        Time, ISO 8601, UTC.
    """

    name: str
    prefix: str
    sha256: str
    scopes: tuple[str, ...]
    created: str

    def allows(self, scope: str) -> bool:
        """Whether the key has a scope."""
        return scope in self.scopes or "admin" in self.scopes


class KeyStore:
    """The keys in a data directory. A running service sees changes at once.

    Parameters
    ----------
    directory : path
        It is made when the first key is added.
    """

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory) / FILENAME
        self._cached: tuple[tuple[int, int, int], list[ApiKey]] = ((0, 0, 0), [])

    def __len__(self) -> int:
        return len(self.all())

    def all(self) -> list[ApiKey]:
        """Return all keys, the oldest first.

        Raises
        ------
        StorageError
            The file is damaged. Restore it, or delete it and add keys again.
        """
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return []
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if self._cached[0] != stamp:
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
                keys = [ApiKey(**{**key, "scopes": tuple(key["scopes"])}) for key in content["keys"]]
            except (KeyError, TypeError, ValueError, OSError) as error:
                raise StorageError(
                    f"{self.path} is damaged ({type(error).__name__}); restore it, or delete it and add "
                    f"keys again"
                ) from error
            self._cached = (stamp, keys)
        return self._cached[1]

    def add(self, name: str, scopes: Iterable[str]) -> tuple[ApiKey, str]:
        """Make a key; return it with its secret, which is stored nowhere.

        Raises
        ------
        InvalidParameterError
            The name is taken or empty, or a scope is unknown.
        """
        wanted = tuple(dict.fromkeys(scopes))
        if not wanted or not set(wanted) <= set(SCOPES):
            raise InvalidParameterError(f"the scopes are {list(wanted)}; they must be of {', '.join(SCOPES)}")
        secret = _PREFIX + secrets.token_urlsafe(32)
        key = key_of(secret, name, wanted)
        with self._change() as keys:
            if not name.strip() or any(other.name == name for other in keys):
                raise InvalidParameterError(f"the name {name!r} is empty or taken; choose another")
            keys.append(key)
        return key, secret

    def revoke(self, name: str) -> ApiKey:
        """Remove a key by its name or prefix; return it.

        Raises
        ------
        InvalidParameterError
            No key has that name.
        """
        with self._change() as keys:
            matches = [key for key in keys if name in (key.name, key.prefix)]
            if not matches:
                names = ", ".join(key.name for key in keys) or "none"
                raise InvalidParameterError(f"there is no key {name!r}; there are: {names}")
            keys.remove(matches[0])
        return matches[0]

    def find(self, secret: str, extra: Iterable[ApiKey] = ()) -> ApiKey | None:
        """Return the key of a secret, or None; the time taken does not depend on the secret."""
        digest = _hash(secret)
        found = None
        for key in [*self.all(), *extra]:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    @contextmanager
    def _change(self) -> Iterator[list[ApiKey]]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            keys = list(self.all())
            yield keys
            with replacing(self.path) as file:
                Path(file.name).chmod(0o600)
                file.write(json.dumps({"keys": [asdict(key) for key in keys]}, indent=2).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())


def key_of(secret: str, name: str, scopes: Iterable[str] = ("admin",)) -> ApiKey:
    """Return the key that a secret stands for."""
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return ApiKey(name, secret[:_SHOWN_CHARACTERS], _hash(secret), tuple(scopes), created)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
