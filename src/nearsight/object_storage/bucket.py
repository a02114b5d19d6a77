"""Objects below one prefix of a bucket, by fsspec."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nearsight.errors import NearsightError, StorageError
from nearsight.object_storage.clock import StorageClock
from nearsight.object_storage.driver import url_to_fs, written_s

_AWAY = "the server is away. Check the endpoint and the network, and run the same command again"
_NO_CREDENTIALS = (
    "there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the"
    " machine a role; for gs://, set GOOGLE_APPLICATION_CREDENTIALS"
)
# By what the SDKs' errors are called or say.
_REMEDIES = {
    "NoCredentials": _NO_CREDENTIALS,
    "Unable to locate credentials": _NO_CREDENTIALS,
    "Anonymous caller": _NO_CREDENTIALS,
    "PartialCredentials": "the credentials are not complete. Set both the key and the secret",
    "redentials": "the credentials were not accepted. Check the variables or files that the SDK reads",
    "PermissionError": "access is denied. Check what the credentials may do with this bucket",
    "bucket does not exist": "the bucket does not exist. Check its name and the endpoint, or create it",
    "Connect": _AWAY,
    "Timeout": _AWAY,
    "region": "the bucket is in another region. Name it: ?region=NAME in the URI, or AWS_REGION",
}
#: A server that never answered is given up after so many seconds: the drivers ask again for a minute or more,
#: as is right for one that answered before.
FIRST_ANSWER_S = 10.0


class Bucket:
    """The objects below a URL such as ``s3://bucket/folder``.

    Every read and every listing asks the server. Writes are whole or not at all, and durable when they
    return. All methods raise StorageError if the server refuses or is away.

    Parameters
    ----------
    url : str
    shown : str, optional
        What errors call it; by default the URL.
    **options
        Of the driver, such as ``endpoint_url``.

    Raises
    ------
    MissingExtraError
        The driver is not installed.
    """

    def __init__(self, url: str, *, shown: str = "", **options: Any) -> None:
        self.shown = shown or url
        self._fs, self._root = url_to_fs(url, use_listings_cache=False, **options)
        self._clock = StorageClock(self._written_now_s)
        # Only of these drivers a call can be given up.
        self._is_known = not getattr(self._fs, "async_impl", False)

    def read(self, name: str) -> bytes | None:
        """Return an object, or None if there is none."""
        with self._translated(f"reading {name}"):
            try:
                return bytes(self._ask(self._fs.cat_file, self._path(name)))
            except FileNotFoundError as error:
                self._check_bucket(error)
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object in the place of what was there."""
        with self._translated(f"writing {name}"):
            self._ask(self._fs.pipe_file, self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one of that name.

        Returns
        -------
        bool
            Whether it was written; True, too, if the one that is there has the same content. So contents of
            two processes must differ. It may be one's own: the answer was lost, and the driver asked again.
        """
        with self._translated(f"writing {name}"):
            try:
                self._ask(self._fs.pipe_file, self._path(name), content, mode="create")
            except FileExistsError:
                pass
            except OSError as error:
                # How a server says that two have tried at the same moment.
                if "conflict" not in str(error).lower():
                    raise
            else:
                return True
        return self.read(name) == content

    def delete(self, *names: str) -> None:
        """Delete objects; those that do not exist are ignored."""
        with self._translated("deleting objects"):
            for name in names:
                with suppress(FileNotFoundError):
                    self._fs.rm_file(self._path(name))

    def written_s(self, name: str) -> float | None:
        """Return when an object was written, in seconds since 1970 by the server's clock, or None."""
        with self._translated(f"reading {name}"):
            try:
                return written_s(self._ask(self._fs.info, self._path(name)))
            except FileNotFoundError as error:
                self._check_bucket(error)
                return None

    def now_s(self) -> float:
        """Return the seconds since 1970 by the server's clock."""
        return self._clock.now_s()

    def _written_now_s(self) -> float:
        name = f".clock-{secrets.token_hex(4)}"
        self.write(name, b"now")
        try:
            return self.written_s(name) or 0.0
        finally:
            self.delete(name)

    def entries(self, folder: str = "", *, is_deep: bool = True) -> dict[str, tuple[int, float]]:
        """Return the objects in a folder: size in bytes and seconds since 1970, by name.

        Parameters
        ----------
        folder : str
        is_deep : bool, default True
            Whether those of folders in it count.
        """
        root = self._path(folder)
        with self._translated("listing objects"):
            try:
                if not self._is_known:
                    # A listing may take long, and this does not.
                    self._ask(self._fs.info, root)
                found = (
                    self._fs.find(root, detail=True).values() if is_deep else self._fs.ls(root, detail=True)
                )
            except FileNotFoundError as error:
                self._check_bucket(error)
                return {}
        start = len(root) + 1
        return {
            str(info["name"])[start:]: (int(info["size"] or 0), written_s(info))
            for info in found
            if info["type"] == "file"
        }

    def delete_folder(self, folder: str) -> None:
        """Delete all objects below a folder."""
        names = [f"{folder}/{name}" for name in self.entries(folder)]
        with self._translated("deleting objects"):
            if names:
                self._fs.rm([self._path(name) for name in names])

    def send(self, name: str, path: Path) -> None:
        """Write an object from a file of this machine."""
        with self._translated(f"writing {name}"):
            self._fs.put_file(str(path), self._path(name))

    def fetch(self, name: str, path: Path) -> None:
        """Write an object into a file of this machine; FileNotFoundError if there is none."""
        with self._translated(f"reading {name}"):
            self._fs.get_file(self._path(name), str(path))

    def opened(self, name: str) -> Any:
        """Return an object as an open file; FileNotFoundError if there is none."""
        with self._translated(f"reading {name}"):
            return self._fs.open(self._path(name), "rb")

    def _ask(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Have the driver read or write something small; see `FIRST_ANSWER_S`."""
        if self._is_known:
            return method(*arguments, **options)
        try:
            answer = method(*arguments, **options, timeout=FIRST_ANSWER_S)
        except (FileExistsError, FileNotFoundError):
            self._is_known = True
            raise
        self._is_known = True
        return answer

    def error(self, doing: str, error: BaseException) -> StorageError:
        """Return the error of an SDK as StorageError, with a remedy."""
        text = f"{type(error).__name__}: {error}"
        remedy = next((remedy for sign, remedy in _REMEDIES.items() if sign in text), None)
        detail = remedy or f"{str(error)[:300]}. Run the same command again"
        return StorageError(
            f"{self.shown}{self._endpoint()}: {doing} failed: {detail}. What was saved is intact."
        )

    def _endpoint(self) -> str:
        """Return the address of the server, as far as the driver has found it."""
        client = getattr(self._fs, "_s3", None)
        address = client.meta.endpoint_url if client is not None else getattr(self._fs, "_location", "")
        return f" at {address}" if address else ""

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    @staticmethod
    def _check_bucket(error: FileNotFoundError) -> None:
        """Raise an error again that is about the bucket, and not about the object."""
        if "bucket does not exist" in str(error):
            raise error

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except NearsightError:
            raise
        except Exception as error:  # each driver raises exceptions of its own
            if isinstance(error, FileNotFoundError):
                # Whoever writes names no object that must be there; Google's driver does not say what is.
                if not doing.startswith("writing") and "bucket does not exist" not in str(error):
                    raise
                error = FileNotFoundError(f"bucket does not exist ({error})")
            raise self.error(doing, error) from error
