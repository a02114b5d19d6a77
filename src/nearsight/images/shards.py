"""Images inside tar archives, as data sets for training come."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH113, PTH116

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Any, cast

from nearsight.errors import ImageError, ImageFailure
from nearsight.images.limits import Limits, Stat
from nearsight.images.path_encoding import describe, is_image_name
from nearsight.images.remote import remote_stat, url_to_fs
from nearsight.images.sources import too_large

_BLOCK_BYTES = 512
# A compressed shard is read once from front to back, so its members are held until they are used.
_MAX_HELD_BYTES = Limits().max_bytes


@dataclass(frozen=True, slots=True)
class MemberSource:
    """One member of a shard: where it lies in a plain local one, or its bytes."""

    path: str
    shard: str
    size_bytes: int
    modified_s: float
    shard_stamp: int
    offset: int
    data: bytes | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """The URL by which fsspec opens the member again."""
        return self.path

    def stat(self) -> Stat:
        """Return the member's size and the shard's stamp."""
        return Stat(self.size_bytes, self.shard_stamp, self.modified_s)

    def read(self, limits: Limits) -> bytes:
        """Return the member's bytes."""
        if self.size_bytes > limits.max_bytes:
            raise ImageError(self.path, too_large(self.size_bytes, limits))
        if self.data is not None:
            return self.data
        if self.offset < 0:
            raise ImageError(self.path, too_large(self.size_bytes, Limits()))
        try:
            with open(self.shard, "rb", buffering=0) as file:
                file.seek(self.offset)
                data = file.read(self.size_bytes)
        except (OSError, ValueError) as error:
            raise ImageError(self.path, f"its shard {describe(cast(OSError, error), self.shard)}") from None
        if len(data) != self.size_bytes:
            raise ImageError(self.path, "changed while it was read: its shard is shorter than before")
        return data


def members(shard: str, key: str, *, remote: bool = False) -> Iterator[MemberSource | ImageFailure]:
    """Yield the images of a shard in the order they lie in it.

    Parameters
    ----------
    shard : str
        Path or URL as it was given, for failures.
    key : str
        Absolute path or URL.
    remote : bool
        Whether `key` is a URL.

    Yields
    ------
    MemberSource or ImageFailure
        A failure for a damaged or cut off shard comes last; the members before it stay good.
    """
    if not remote and not os.path.isfile(key):
        yield ImageFailure(shard, "is not a file")
        return
    try:
        with ExitStack() as opened:
            file, stamp = _open(key, remote, opened)
            compressed = not key.lower().endswith(".tar")
            if compressed:
                file = opened.enter_context(cast(IO[bytes], gzip.GzipFile(fileobj=file)))
            yield from _members(_Tape(file), key, stamp, hold=compressed or remote)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield ImageFailure(shard, f"the shard is damaged or cut off: {error}")
    except (OSError, ValueError) as error:
        yield ImageFailure(shard, describe(error, key))


def is_member_url(text: str) -> bool:
    """Return whether a string is the path of a `MemberSource`.

    Examples
    --------
    >>> is_member_url("tar://0.jpg::/data/a.tar"), is_member_url("/data/a.tar")
    (True, False)
    """
    return text.startswith("tar://") and "::" in text


def find_member(url: str, shard: str, *, remote: bool) -> MemberSource | ImageFailure:
    """Return one member of a shard by the path it was found under."""
    for one in members(shard, shard, remote=remote):
        if isinstance(one, ImageFailure):
            return ImageFailure(url, f"its shard cannot be used: {one.reason}")
        if one.path == url:
            return one
    return ImageFailure(url, "does not exist in its shard")


def holds(url: str, shard: str) -> bool:
    """Return False only where it is certain that a local shard lacks a member, or is gone itself."""
    try:
        stamp = os.stat(shard).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    paths = _paths_in(shard, stamp)
    return paths is None or url in paths


@lru_cache(maxsize=4)
def _paths_in(shard: str, stamp: int) -> frozenset[str] | None:
    paths = set()
    for one in members(shard, shard):
        if isinstance(one, ImageFailure):
            return None
        paths.add(one.path)
    return frozenset(paths)


def _open(key: str, remote: bool, opened: ExitStack) -> tuple[IO[bytes], int]:
    if remote:
        fs, path = url_to_fs(key)
        return opened.enter_context(fs.open(path, "rb")), remote_stat(fs.info(path)).stamp
    local = opened.enter_context(open(key, "rb"))  # noqa: SIM115 - closed with the others
    return local, os.fstat(local.fileno()).st_mtime_ns


class _Tape:
    """A file that remembers the last block read: tarfile ends silently on a damaged header."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        self.last = self._file.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _members(tape: _Tape, key: str, stamp: int, *, hold: bool) -> Iterator[MemberSource]:
    end = _BLOCK_BYTES
    with tarfile.open(fileobj=cast(Any, tape), mode="r:") as tar:
        # Of an empty one, Python 3.10 would go back before its beginning.
        while tar.offset and (member := tar.next()) is not None:
            # tarfile keeps every member it has seen; a shard may have millions.
            tar.members = []  # type: ignore[attr-defined] # typeshed leaves it out
            name = member.name.rpartition("/")[2]
            if not member.isreg() or member.issparse() or name.startswith(".") or not is_image_name(name):
                continue
            end = member.offset_data + member.size
            data = None
            if hold and member.size <= _MAX_HELD_BYTES:
                tape.seek(member.offset_data)
                data = tape.read(member.size)
                if len(data) != member.size:
                    raise tarfile.ReadError(f"it ends inside its member {member.name!r}")
            elif not hold and not _reaches(tape, end):
                raise tarfile.ReadError(f"it ends inside its member {member.name!r}")
            yield MemberSource(
                path=f"tar://{member.name}::{key}",
                shard=key,
                size_bytes=member.size,
                modified_s=float(member.mtime),
                shard_stamp=stamp,
                offset=-1 if hold else member.offset_data,
                data=data,
            )
    if tape.last != bytes(_BLOCK_BYTES):
        what = "a damaged header" if tape.last.strip(b"\0") else "its end"
        raise tarfile.ReadError(f"there is {what} where its next member or its end mark should be")


def _reaches(tape: _Tape, end: int) -> bool:
    here = tape.tell()
    tape.seek(end - 1)
    reached = bool(tape.read(1))
    tape.seek(here)
    return reached
