"""Images behind URLs, by fsspec.

Object stores (S3, Google Cloud, Azure) and memory are always opened: their credentials decide who may read
them. ``http``, ``https`` and every other protocol are fetched only with `allow_remote=True`. Otherwise the
user of a server could make it send requests to its own network.
"""

import glob
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nearsight.errors import ImageError, ImageFailure, MissingExtraError
from nearsight.images.exclusions import (
    EXCLUDED,
    NO_MEDIA,
    Exclusions,
    PathRules,
    count_skipped,
    ending,
)
from nearsight.images.glob_patterns import literal_base
from nearsight.images.limits import Limits, Stat
from nearsight.images.path_encoding import is_image_name
from nearsight.images.sources import read_stream, too_large
from nearsight.object_storage.driver import protocols, url_to_fs, written, written_s

_ALWAYS_ALLOWED: Final = frozenset(
    {"abfs", "abfss", "az", "file", "gcs", "gs", "local", "memory", "s3", "s3a", "tar", "zip"}
)
_WEB: Final = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """One image behind a URL."""

    path: str
    key: str
    known: Stat | None = None

    def stat(self) -> Stat:
        """Return size and time, from the listing or the server."""
        if self.known is not None:
            return self.known
        try:
            fs, place = url_to_fs(self.key)
            return remote_stat(fs.info(place))
        except Exception as error:  # each driver raises exceptions of its own
            raise ImageError(self.path, describe_remote_error(error)) from error

    def read(self, limits: Limits) -> bytes:
        """Fetch the bytes, in chunks, within the limits."""
        if self.known is not None and self.known.size_bytes > limits.max_bytes:
            raise ImageError(self.path, too_large(self.known.size_bytes, limits))
        try:
            fs, place = url_to_fs(self.key)
            with fs.open(place, "rb") as file:
                return read_stream(file, self.path, limits)
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(self.path, describe_remote_error(error)) from error


def refusal_reason(url: str, *, allow_remote: bool) -> str | None:
    """Return why a URL may not be opened; None if it may."""
    restricted = [p for p in protocols(url) if p not in _ALWAYS_ALLOWED and not p.startswith("/")]
    if allow_remote or not restricted:
        return None
    return (
        f"{restricted[0]}:// addresses are not fetched by default; "
        "pass allow_remote=True, or --allow-remote on the command line"
    )


def canonical_url(url: str) -> str:
    """Return a URL as listings spell it; the URL itself if its driver is missing."""
    if "::" in url or _WEB.intersection(protocols(url)):
        return url
    try:
        fs, path = url_to_fs(url)
        return _url(fs, path)
    except Exception:
        return url


def find_remote(
    url: str, exclusions: Exclusions, skipped: Counter[str] | None
) -> Iterator[RemoteSource | ImageFailure]:
    """Yield the images at a URL: one object, a folder of them, or a glob; see `discovery.find`.

    Files named ``.nearsightignore`` are not read.
    """
    try:
        fs, path = url_to_fs(url)
        web = bool(_WEB.intersection(protocols(url)))
        if not web and glob.has_magic(path) and not fs.exists(path):
            yield from _matching(fs, path, url, exclusions, skipped)
        elif url.endswith("/") or (not web and "::" not in url and fs.isdir(path)):
            yield from _below(fs, path, PathRules(exclusions, path, reads_files=False), skipped)
        elif web:
            yield RemoteSource(url, url)
        else:
            yield RemoteSource(url, canonical_url(url), remote_stat(fs.info(path)))
    except Exception as error:
        yield ImageFailure(url, describe_remote_error(error))


def _below(
    fs: Any, root: str, rules: PathRules, skipped: Counter[str] | None
) -> Iterator[RemoteSource | ImageFailure]:
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(fs.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
        except Exception as error:
            yield ImageFailure(_url(fs, folder), describe_remote_error(error))
            continue
        if folder != root and any(str(entry["name"]).endswith("/" + NO_MEDIA) for entry in entries):
            count_skipped(skipped, EXCLUDED)
            continue
        below = []
        for entry in entries:
            name = str(entry["name"])
            last = name.rstrip("/").rpartition("/")[2]
            if name.rstrip("/") == folder.rstrip("/"):
                continue
            is_folder = entry.get("type") == "directory"
            relative = name.rstrip("/").removeprefix(root.rstrip("/")).lstrip("/")
            if (reason := rules.reason(relative, is_folder=is_folder)) is not None:
                count_skipped(skipped, reason)
            elif is_folder:
                below.append(name)
            elif is_image_name(last):
                yield RemoteSource(_url(fs, name), _url(fs, name), remote_stat(entry))
            else:
                count_skipped(skipped, ending(last))
        folders.extend(reversed(below))


def _matching(
    fs: Any, pattern: str, url: str, exclusions: Exclusions, skipped: Counter[str] | None
) -> Iterator[RemoteSource | ImageFailure]:
    base = literal_base(pattern)
    rules = PathRules(exclusions, base, reads_files=False)
    n_entries = 0
    for name, entry in sorted(fs.glob(pattern, detail=True).items()):
        if entry.get("type") == "directory":
            continue
        n_entries += 1
        if (reason := rules.reason(name.removeprefix(base).lstrip("/"))) is not None:
            count_skipped(skipped, reason)
        elif is_image_name(name):
            yield RemoteSource(_url(fs, name), _url(fs, name), remote_stat(entry))
        else:
            count_skipped(skipped, ending(name.rpartition("/")[2]))
            n_entries -= 1
    if not n_entries:
        yield ImageFailure(url, "no image matches this pattern")


def _url(fs: Any, path: str) -> str:
    return str(fs.unstrip_protocol(path))


def remote_stat(info: Mapping[str, Any]) -> Stat:
    """Return size and time of an object in a listing, whose keys differ between drivers."""
    size = info.get("size")
    modified = written(info)
    entity = _first(info, "ETag", "etag", "md5Hash", "checksum")
    digest = hashlib.sha256(repr((entity, str(modified), size)).encode()).digest()
    return Stat(int(size or 0), int.from_bytes(digest[:8], "big") >> 1, written_s(info))


def _first(info: Mapping[str, Any], *names: str) -> Any:
    return next((info[name] for name in names if info.get(name)), None)


def exists_remote(url: str) -> bool:
    """Return whether a URL exists; False only if the server says that it does not."""
    try:
        fs, path = url_to_fs(url)
        fs.info(path)
    except FileNotFoundError:
        return False
    except Exception:
        return True
    return True


def describe_remote_error(error: Exception) -> str:
    """Return in words why a URL cannot be used."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied"
    if isinstance(error, MissingExtraError):
        return str(error)
    return f"cannot be read: {error or type(error).__name__}"
