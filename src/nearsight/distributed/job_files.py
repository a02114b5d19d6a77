"""The files of a job, in a directory or in a bucket: each appears whole, and the first of a name can stay."""

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from filelock import FileLock

from nearsight.artifacts import remedy, replacing
from nearsight.errors import InvalidParameterError, NearsightError, StorageError
from nearsight.images.path_encoding import is_url
from nearsight.object_storage.bucket import Bucket
from nearsight.object_storage.clock import StorageClock
from nearsight.object_storage.lease import Lease

_Found = TypeVar("_Found", bytes, float)


class JobFiles(Protocol):
    """The files of a job. Names are relative, with slashes.

    What reads raises FileNotFoundError where the file does not exist; all raise StorageError if the storage
    refuses or is away.
    """

    @property
    def uri(self) -> str:
        """The directory, absolute, or the URL."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is a file."""
        ...

    def read(self, name: str) -> bytes:
        """Return a small file."""
        ...

    def modified_s(self, name: str) -> float:
        """Return when a file was written, in seconds since 1970 by the clock of the storage."""
        ...

    def now_s(self) -> float:
        """Return the seconds since 1970 by that clock, which is the same for all machines."""
        ...

    def names(self, folder: str = "") -> Iterator[tuple[str, Callable[[], float]]]:
        """Yield the names of the files in a folder, without it, and what returns when each was written."""
        ...

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write a file, whole, unless there is one of that name; return whether it was written."""
        ...

    def replace(self, name: str, content: bytes) -> None:
        """Write a file, whole, in the place of what was there."""
        ...

    def touch(self, name: str) -> None:
        """Set the time of a file to now."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        ...

    def created(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a large file that appears at the end of the block, whole, or never."""
        ...

    def local(self, name: str) -> AbstractContextManager[Path]:
        """Give a large file as one on this machine, for the time of the block."""
        ...

    def opened(self, name: str) -> Any:
        """Return a file for pyarrow, which reads parts of it."""
        ...

    def lock(self, name: str) -> AbstractContextManager[Any]:
        """Return a lock; who dies loses it."""
        ...

    def prepare(self) -> None:
        """Make the directory; or find out whether a bucket keeps the first file of a name."""
        ...


def open_files(place: str | Path | JobFiles) -> JobFiles:
    """Return the files in a directory or below a URL.

    Raises
    ------
    InvalidParameterError, MissingExtraError
        See `BucketFiles`.
    """
    if isinstance(place, str | Path):
        return BucketFiles(str(place)) if is_url(str(place)) else DirectoryFiles(Path(place))
    return place


class DirectoryFiles:
    """`JobFiles` in a directory: a local disk for one machine, a shared file system for several.

    Parameters
    ----------
    directory : Path
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._clock = StorageClock(self._written_now_s)

    @property
    def uri(self) -> str:
        """The directory."""
        return str(self._directory)

    def exists(self, name: str) -> bool:
        """Whether there is a file."""
        return (self._directory / name).exists()

    def read(self, name: str) -> bytes:
        """Return a small file."""
        return (self._directory / name).read_bytes()

    def modified_s(self, name: str) -> float:
        """Return when a file was written."""
        return (self._directory / name).stat().st_mtime

    def now_s(self) -> float:
        """Return the time of the file system, which is that of its server."""
        return self._clock.now_s()

    def _written_now_s(self) -> float:
        name = f".clock-{secrets.token_hex(4)}"
        try:
            # Like `touch`, which leaves it to the server to say when that is.
            (self._directory / name).write_bytes(b"")
            return self.modified_s(name)
        finally:
            self.delete(name)

    def names(self, folder: str = "") -> Iterator[tuple[str, Callable[[], float]]]:
        """Yield the names of the files in a folder."""
        directory = self._directory / folder
        if not directory.is_dir():
            return
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry.name, lambda entry=entry: entry.stat().st_mtime  # type: ignore[misc] # a default binds it

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one."""
        path = self._directory / name
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with self._translated():
            try:
                with open(temporary, "xb") as file:
                    _write_durably(file, content)
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    return False
                except OSError:
                    # A file system without hard links: two processes within a moment may both be heard.
                    if path.exists():
                        return False
                    temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def replace(self, name: str, content: bytes) -> None:
        """Write a file in the place of what was there."""
        with self._translated(), replacing(self._directory / name) as file:
            _write_durably(file, content)

    def touch(self, name: str) -> None:
        """Set the time of a file to now."""
        os.utime(self._directory / name)

    def delete(self, name: str) -> None:
        """Delete a file."""
        (self._directory / name).unlink(missing_ok=True)

    @contextmanager
    def created(self, name: str) -> Iterator[IO[bytes]]:
        """Open a large file that appears at the end."""
        with self._translated(), replacing(self._directory / name) as file:
            yield file

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Give the file itself."""
        yield self._directory / name

    def opened(self, name: str) -> str:
        """Return the path."""
        return str(self._directory / name)

    def lock(self, name: str) -> FileLock:
        """Return a lock, where the file system has any."""
        return FileLock(self._directory / name)

    def prepare(self) -> None:
        """Make the directory."""
        with self._translated():
            (self._directory / "units").mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of the disk into `StorageError`."""
        try:
            yield
        except NearsightError:
            raise
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not self._directory.exists():
                raise StorageError(
                    f"{self.uri} was removed while the job runs; start the command again, which makes a new"
                    " job"
                ) from error
            raise StorageError(
                f"{self.uri} cannot be written to: {error.strerror or error}; {remedy(error)}"
            ) from error


class BucketFiles:
    """`JobFiles` below a URL such as ``s3://bucket/jobs/1`` or ``gs://bucket/jobs/1``.

    Credentials, region and endpoint are those of the driver: the standard variables and files.

    Parameters
    ----------
    url : str

    Raises
    ------
    InvalidParameterError
        The URL has options.
    MissingExtraError
        The driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        if "?" in url:
            raise InvalidParameterError(
                f"{url} has options after ?, and the URL of a job has none; set AWS_ENDPOINT_URL and"
                " AWS_REGION for a server or a region of your own"
            )
        self._bucket = Bucket(self._url)

    @property
    def uri(self) -> str:
        """The URL."""
        return self._url

    def exists(self, name: str) -> bool:
        """Whether there is a file."""
        return self._bucket.written_s(name) is not None

    def read(self, name: str) -> bytes:
        """Return a small file."""
        return _there(self._bucket.read(name), name)

    def modified_s(self, name: str) -> float:
        """Return when a file was written."""
        return _there(self._bucket.written_s(name), name)

    def now_s(self) -> float:
        """Return the server's time."""
        return self._bucket.now_s()

    def names(self, folder: str = "") -> Iterator[tuple[str, Callable[[], float]]]:
        """Yield the names of the files in a folder."""
        for name, (_, written_s) in self._bucket.entries(folder, is_deep=False).items():
            yield name, lambda written_s=written_s: written_s  # type: ignore[misc] # as above

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one."""
        return self._bucket.create(name, content)

    def replace(self, name: str, content: bytes) -> None:
        """Write a file in the place of what was there."""
        self._bucket.write(name, content)

    def touch(self, name: str) -> None:
        """Write a small file again."""
        self.replace(name, self.read(name))

    def delete(self, name: str) -> None:
        """Delete a file."""
        self._bucket.delete(name)

    @contextmanager
    def created(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file of this machine that is sent at the end."""
        with tempfile.TemporaryDirectory(prefix="nearsight-") as folder:
            path = Path(folder, "file")
            with open(path, "xb") as file:
                yield file
            self._bucket.send(name, path)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Fetch a file."""
        with tempfile.TemporaryDirectory(prefix="nearsight-") as folder:
            path = Path(folder, "file")
            self._bucket.fetch(name, path)
            yield path

    def opened(self, name: str) -> Any:
        """Return an open file."""
        return self._bucket.opened(name)

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Return a lock of whoever writes, on whatever machine."""
        return Lease(self._bucket, name).hold()

    def prepare(self) -> None:
        """Find out whether the bucket keeps the first file of a name."""
        name = f"first-{secrets.token_hex(4)}"
        is_kept = self.put_if_absent(name, b"1") and not self.put_if_absent(name, b"2")
        self.delete(name)
        if not is_kept:
            raise StorageError(
                f"{self._url}: the storage replaces a file although the condition of the request forbids it"
                " (If-None-Match), so two processes could not tell who was first; name a folder of a shared"
                " file system, or storage that has conditional writes"
            )


def _there(found: _Found | None, name: str) -> _Found:
    if found is None:
        raise FileNotFoundError(name)
    return found


def _write_durably(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
