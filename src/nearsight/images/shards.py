"""Images in tar shards, the format of training data sets."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH113, PTH116

import gzip
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import IO, Any, cast

from nearsight.errors import ImageError, ImageFailure
from nearsight.images.exclusions import Exclusions, PathRules, count_skipped, ending
from nearsight.images.limits import Limits, Stat, stamp_of
from nearsight.images.path_encoding import describe_error, is_image_name
from nearsight.images.remote import remote_stat
from nearsight.images.sources import too_large
from nearsight.object_storage.driver import url_to_fs

_BLOCK_BYTES = 512
# A compressed or remote shard is read once from front to back, so its members are held until they are used.
_MAX_HELD_BYTES = Limits().max_bytes


@dataclass(frozen=True, slots=True)
class MemberSource:
    """One member of a shard: its offset in a plain local shard, or its bytes."""

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
                stamp = stamp_of(os.fstat(file.fileno()).st_mtime_ns)
                file.seek(self.offset)
                data = file.read(self.size_bytes)
        except (OSError, ValueError) as error:
            raise ImageError(
                self.path, f"its shard {describe_error(cast(OSError, error), self.shard)}"
            ) from None
        # At its place, another shard may have another image.
        if stamp != self.shard_stamp or len(data) != self.size_bytes:
            raise ImageError(self.path, "its shard has changed while it was read; index it again")
        return data


def members(
    shard: str,
    key: str,
    *,
    remote: bool = False,
    exclusions: Exclusions | None = None,
    skipped: Counter[str] | None = None,
) -> Iterator[MemberSource | ImageFailure]:
    """Yield the images of a shard in its order.

    Parameters
    ----------
    shard : str
        Path or URL as it was passed, for failures.
    key : str
        Absolute path or URL.
    remote : bool
        Whether `key` is a URL.
    exclusions : Exclusions, optional
        What is passed over; by default only hidden names.
    skipped : Counter, optional
        Counts what is passed over, by kind; see `discovery.find`.

    Yields
    ------
    MemberSource or ImageFailure
        A failure for a damaged or cut off shard comes last; the members before it can be used.
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
            rules = PathRules(exclusions, key, reads_files=False) if exclusions else None
            choose = partial(_is_chosen, rules=rules, skipped=skipped)
            yield from _members(_LastBlockFile(file), key, stamp, choose, hold=compressed or remote)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield ImageFailure(shard, f"the shard is damaged or cut off: {error}; restore the file")
    except (OSError, ValueError) as error:
        yield ImageFailure(shard, describe_error(error, key))


def is_member_url(text: str) -> bool:
    """Return whether a string is the path of a `MemberSource`.

    Examples
    --------
    >>> is_member_url("tar://0.jpg::/data/a.tar"), is_member_url("/data/a.tar")
    (True, False)
    """
    return text.startswith("tar://") and "::" in text


def find_member(url: str, shard: str, *, remote: bool) -> MemberSource | ImageFailure:
    """Return the member of a shard with this URL."""
    for member in members(shard, shard, remote=remote):
        if isinstance(member, ImageFailure):
            return ImageFailure(url, f"its shard cannot be used: {member.reason}")
        if member.path == url:
            return member
    return ImageFailure(url, "does not exist in its shard")


def has_member(url: str, shard: str) -> bool:
    """Return whether a local shard has a member; False only if that is certain."""
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
    for member in members(shard, shard):
        if isinstance(member, ImageFailure):
            return None
        paths.add(member.path)
    return frozenset(paths)


def _open(key: str, remote: bool, opened: ExitStack) -> tuple[IO[bytes], int]:
    if remote:
        fs, path = url_to_fs(key)
        return opened.enter_context(fs.open(path, "rb")), remote_stat(fs.info(path)).stamp
    local = opened.enter_context(open(key, "rb"))  # noqa: SIM115 - closed with the others
    return local, stamp_of(os.fstat(local.fileno()).st_mtime_ns)


class _LastBlockFile:
    """A file that keeps the last block read, because tarfile ends silently at a damaged header."""

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


def _is_chosen(name: str, *, rules: PathRules | None, skipped: Counter[str] | None) -> bool:
    """Return whether a member is an image that is not passed over."""
    last = name.rpartition("/")[2]
    if rules is None:
        return not last.startswith(".") and is_image_name(last)
    if (reason := rules.reason(name.removeprefix("./"))) is not None:
        count_skipped(skipped, reason)
        return False
    if not is_image_name(last):
        count_skipped(skipped, ending(last))
        return False
    return True


def _members(
    file: _LastBlockFile, key: str, stamp: int, is_chosen: Callable[[str], bool], *, hold: bool
) -> Iterator[MemberSource]:
    end = _BLOCK_BYTES
    with tarfile.open(fileobj=cast(Any, file), mode="r:") as tar:
        # In an empty shard, Python 3.10 would seek before its start.
        while tar.offset and (member := tar.next()) is not None:
            # tarfile keeps every member in this list; a shard may have millions.
            tar.members = []  # type: ignore[attr-defined] # typeshed leaves it out
            if not member.isreg() or member.issparse() or not is_chosen(member.name):
                continue
            end = member.offset_data + member.size
            data = None
            if hold and member.size <= _MAX_HELD_BYTES:
                file.seek(member.offset_data)
                data = file.read(member.size)
                if len(data) != member.size:
                    raise tarfile.ReadError(f"it ends inside its member {member.name!r}")
            elif not hold and not _is_long_enough(file, end):
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
    if file.last != bytes(_BLOCK_BYTES):
        content = "a damaged header" if file.last.strip(b"\0") else "its end"
        raise tarfile.ReadError(f"there is {content} where its next member or its end mark should be")


def _is_long_enough(file: _LastBlockFile, end: int) -> bool:
    position = file.tell()
    file.seek(end - 1)
    is_long_enough = bool(file.read(1))
    file.seek(position)
    return is_long_enough
