"""Small objects below one prefix of a bucket, by fsspec."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from nearsight.errors import MissingExtraError, StorageError
from nearsight.store.lance.object_storage.address import ObjectAddress

_EXTRAS = {"s3": "s3", "gs": "gcs"}
_AWAY = "the server does not answer. Check the endpoint and the network, and run the same command again"
# By what the SDKs' errors are called or say.
_REMEDIES = {
    "NoCredentials": "there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "PartialCredentials": "the credentials are not complete. Set both the key and the secret",
    "credentials": "the credentials were not accepted. Check the variables or files that the SDK reads",
    "PermissionError": "access was denied. Check what the credentials may do with this bucket",
    "bucket does not exist": "the bucket does not exist. Check its name and the endpoint, or create it",
    "Connect": _AWAY,
    "Timeout": _AWAY,
    "region": "the bucket is in another region. Name it in the URI: ?region=NAME",
}


class Bucket:
    """The objects below the folder of an address.

    Every read and every listing asks the server. Writes are whole or not at all, and durable when they
    return. All methods raise StorageError if the server refuses or is away.

    Parameters
    ----------
    address : ObjectAddress

    Raises
    ------
    MissingExtraError
        The driver is not installed.
    """

    def __init__(self, address: ObjectAddress) -> None:
        self.address = address
        self._fs = _file_system(address)

    def read(self, name: str) -> bytes | None:
        """Return an object, or None if there is none."""
        with self._translated(f"reading {name}"):
            try:
                content: bytes = self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return content

    def write(self, name: str, content: bytes) -> None:
        """Write an object in the place of what was there."""
        with self._translated(f"writing {name}"):
            self._fs.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one of that name; return whether it was written."""
        with self._translated(f"writing {name}"):
            try:
                self._fs.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                # How a server says that two have tried at the same moment.
                if "conflict" in str(error).lower():
                    return False
                raise
            return True

    def delete(self, *names: str) -> None:
        """Delete objects; those that do not exist are ignored."""
        with self._translated("deleting objects"):
            for name in names:
                with suppress(FileNotFoundError):
                    self._fs.rm_file(self._path(name))

    def entries(self, folder: str = "") -> dict[str, tuple[int, float]]:
        """Return the objects below a folder: size in bytes and seconds since 1970, by name."""
        root = self._path(folder) if folder else self.address.path
        with self._translated("listing objects"):
            try:
                found = self._fs.find(root, detail=True)
            except FileNotFoundError:
                return {}
        start = len(root.rstrip("/")) + 1
        return {path[start:]: (int(info["size"] or 0), _written_s(info)) for path, info in found.items()}

    def delete_folder(self, folder: str) -> None:
        """Delete all objects below a folder."""
        names = [f"{folder}/{name}" for name in self.entries(folder)]
        with self._translated("deleting objects"):
            if names:
                self._fs.rm([self._path(name) for name in names])

    def _path(self, name: str) -> str:
        return f"{self.address.path}/{name}"

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            raise storage_error(self.address, doing, error) from error


def storage_error(address: ObjectAddress, doing: str, error: BaseException) -> StorageError:
    """Return the error of an SDK as StorageError, with a remedy."""
    text = f"{type(error).__name__}: {error}"
    remedy = next((remedy for sign, remedy in _REMEDIES.items() if sign in text), None)
    where = f" at {address.endpoint}" if address.endpoint else ""
    detail = remedy or f"{str(error)[:300]}. Run the same command again"
    return StorageError(f"{address.url}{where}: {doing} failed: {detail}. Rows already saved are intact.")


def _file_system(address: ObjectAddress) -> Any:
    # Imported here, because it takes 140 ms and most collections are local.
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False}
    if address.scheme == "s3":
        options["endpoint_url"] = address.endpoint or None
        options["client_kwargs"] = {"region_name": address.region or None}
    try:
        return fsspec.filesystem(address.scheme, **options)
    except ImportError as error:
        raise MissingExtraError(
            f"a collection at {address.scheme}:// needs an extra:"
            f" pip install 'nearsight[{_EXTRAS[address.scheme]}]'"
        ) from error


def _written_s(info: dict[str, Any]) -> float:
    written = info.get("LastModified") or info.get("mtime") or info.get("updated") or 0.0
    if isinstance(written, str):
        written = datetime.fromisoformat(written.replace("Z", "+00:00"))
    return written.timestamp() if isinstance(written, datetime) else float(written)
