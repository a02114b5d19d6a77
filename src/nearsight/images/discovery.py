"""Find the images that paths, folders, globs, shards, URLs and objects in memory stand for."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH100, PTH110, PTH112, PTH114, PTH116, PTH118, PTH120, PTH206

import fnmatch
import heapq
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from glob import has_magic
from itertools import islice
from tempfile import TemporaryFile
from typing import Any, TypeAlias
from urllib.parse import unquote

import numpy as np
from PIL import Image

from nearsight.errors import ImageFailure
from nearsight.images.path_encoding import describe_error, is_image_name, is_shard_name, is_url
from nearsight.images.remote import canonical_url, exists_remote, find_remote, refusal_reason
from nearsight.images.shards import find_member, has_member, is_member_url, members
from nearsight.images.sources import FileSource, ImageSource, MemorySource

Input: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray[Any, Any] | tuple[str, Any]"
Inputs: TypeAlias = "Input | Iterable[Input]"

# Prefixes of roots that are not a path with everything below it; no absolute path starts so.
_GLOB = "glob:"
_FILE_ONLY = "one:"
# Suffix of a broken link's name while the names of its folder are sorted; no file name holds it.
_BROKEN_LINK = "\0"
# Names of one folder that are sorted in memory: about 20 MB.
_MAX_SORTED_NAMES = 250_000


def find(inputs: Inputs, *, allow_remote: bool = False) -> Iterator[ImageSource | ImageFailure]:
    """Find images, lazily and in the order of the inputs.

    Parameters
    ----------
    inputs : str, path, bytes, PIL image, uint8 array, or an iterable of those
        A string is a folder (walked in order; files without an image's extension and hidden files are
        skipped), a file (whatever its extension), a glob, a tar shard (``.tar``, ``.tar.gz``, ``.tgz``) or a
        URL that fsspec knows. Bytes are an encoded image. An array of four dimensions is a stack of images.
        ``(name, image)`` names an image in memory.
    allow_remote : bool
        Whether addresses other than object stores, such as ``https://``, may be fetched.

    Yields
    ------
    ImageSource or ImageFailure
        A failure for a path that does not exist or may not be read, and for a pattern without a match. Only
        compressed and remote shards are read already; their members hold their bytes.

    Raises
    ------
    TypeError
        `inputs` has another type.

    Notes
    -----
    A million files need no list: at most 250,000 names of one folder are in memory at a time.

    Examples
    --------
    >>> [failure] = find("no/such/image.jpg")
    >>> failure
    ImageFailure(path='no/such/image.jpg', reason='does not exist')
    """
    for position, item in enumerate(_each(inputs), start=1):
        name = f"<image {position}>"
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
            name, item = item
            if isinstance(item, (str, os.PathLike)):
                yield ImageFailure(name, "has both a name and a path; give the path alone")
                continue
        if isinstance(item, (str, os.PathLike)):
            yield from _find_path(os.fsdecode(item), allow_remote)
        elif isinstance(item, (bytes, bytearray, memoryview)):
            yield MemorySource(name, item if isinstance(item, bytes) else bytes(item))
        elif isinstance(item, (Image.Image, np.ndarray)):
            yield MemorySource(name, item)
        else:
            kind = type(item).__name__
            yield ImageFailure(name, f"is of type {kind}; give a path, bytes, a PIL image or a uint8 array")


def _each(inputs: Any) -> Iterable[Any]:
    if isinstance(inputs, np.ndarray):
        return inputs if inputs.ndim == 4 else [inputs]
    if isinstance(inputs, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)):
        return [inputs]
    if isinstance(inputs, Iterable):
        return inputs
    raise TypeError(
        f"cannot look for images in an object of type {type(inputs).__name__}; "
        "give a path, bytes, a PIL image, a uint8 array, or an iterable of those"
    )


def _local(path: str) -> str | None:
    """Return the local path that a string names; None for a URL that is not local."""
    if not is_url(path):
        return path
    if "::" in path or not path.lower().startswith(("file://", "local://")):
        return None
    rest = path.partition("://")[2]
    return unquote(rest) if "%" in rest and not os.path.lexists(rest) else rest


def _find_path(path: str, allow_remote: bool) -> Iterator[ImageSource | ImageFailure]:
    local = _local(path)
    if local is None:
        refused = refusal_reason(path, allow_remote=allow_remote)
        if refused is not None:
            yield ImageFailure(path, refused)
        elif is_member_url(path):
            shard = _local(path.partition("::")[2])
            yield find_member(path, shard or path.partition("::")[2], remote=shard is None)
        elif is_shard_name(path):
            yield from members(path, canonical_url(path), remote=True)
        else:
            yield from find_remote(path)
        return
    try:
        info = os.stat(local)
    except (OSError, ValueError) as error:
        if has_magic(local) and not os.path.lexists(local):
            yield from _find_matching(path, local)
        else:
            yield ImageFailure(path, describe_error(error, local))
        return
    yield from _find_existing(path, os.path.abspath(local), info.st_mode)


def _find_existing(path: str, key: str, mode: int) -> Iterator[ImageSource | ImageFailure]:
    if stat.S_ISDIR(mode):
        for entry in walk(key):
            yield FileSource(entry, entry) if isinstance(entry, str) else entry
    elif is_shard_name(key):
        yield from members(path, key)
    else:
        yield FileSource(path, key)


def _find_matching(path: str, pattern: str) -> Iterator[ImageSource | ImageFailure]:
    n_matches = 0
    for match in expand(pattern):
        n_matches += 1
        try:
            mode = os.stat(match).st_mode
        except OSError as error:
            yield ImageFailure(match, describe_error(error, match))
            continue
        yield from _find_existing(match, os.path.abspath(match), mode)
    if not n_matches:
        yield ImageFailure(path, "does not exist, and as a pattern it matches nothing")


def count(inputs: Inputs, *, allow_remote: bool = False) -> int | None:
    """Count what `find` will yield, for a progress bar; cheap, and not exact while files come and go.

    Parameters
    ----------
    inputs : as for `find`
        Read, not opened.
    allow_remote : bool
        As for `find`; an address that may not be fetched counts as one failure.

    Returns
    -------
    int or None
        None where counting would use the inputs up (an iterator) or cost a download or a pass through
        a shard.
    """
    if isinstance(inputs, Iterator):
        return None
    total = 0
    for item in _each(inputs):
        n_images = _count_path(os.fsdecode(item), allow_remote) if isinstance(item, (str, os.PathLike)) else 1
        if n_images is None:
            return None
        total += n_images
    return total


def _count_path(path: str, allow_remote: bool) -> int | None:
    local = _local(path)
    if local is None:
        return 1 if is_member_url(path) or refusal_reason(path, allow_remote=allow_remote) else None
    is_pattern = has_magic(local) and not os.path.lexists(local)
    total = 0
    for match in expand(local) if is_pattern else [local]:
        if is_shard_name(match) and not os.path.isdir(match):
            return None
        total += sum(1 for _ in walk(os.path.abspath(match), ordered=False)) if os.path.isdir(match) else 1
    return max(1, total) if is_pattern else total


def roots(inputs: Inputs) -> list[str]:
    """Return what the inputs cover: absolute paths, URLs, shards and patterns, for `covers`.

    A path that does not exist covers only its own name and nothing below it, so that an unmounted disk does
    not look like an emptied one. Images in memory cover nothing. An iterator is used up.
    """
    covered = []
    for item in _each(inputs):
        if not isinstance(item, (str, os.PathLike)):
            continue
        path = os.fsdecode(item)
        local = _local(path)
        if local is None:
            covered += (
                [canonical_url(path)]
                if not has_magic(path)
                else [canonical_url(path), _GLOB + canonical_url(path)]
            )
        elif has_magic(local) and not os.path.lexists(local):
            covered.append(_GLOB + os.path.abspath(local))
        elif os.path.lexists(local):
            covered.append(os.path.abspath(local))
        elif os.path.isdir(os.path.dirname(os.path.abspath(local))):
            covered.append(_FILE_ONLY + os.path.abspath(local))
    return covered


def covers(roots: Iterable[str], key: str) -> bool:
    """Return whether an image's key lies at or below one of the roots.

    Examples
    --------
    >>> covers(["/photos"], "/photos/2024/a.jpg"), covers(["/photos"], "/photos2/a.jpg")
    (True, False)
    >>> covers(["/data/a.tar"], "tar://0001.jpg::/data/a.tar")
    True
    """
    # A root that covers a shard covers its members.
    outer = key.partition("::")[2] if is_member_url(key) else ""
    return any(_covers(root, key) or (bool(outer) and _covers_shard(root, outer)) for root in roots)


def _covers(root: str, key: str) -> bool:
    if root.startswith(_GLOB):
        return _matches(root.removeprefix(_GLOB), key)
    if root.startswith(_FILE_ONLY):
        return key == root.removeprefix(_FILE_ONLY)
    return key == root or key.startswith(root if root.endswith(("/", os.sep)) else root + "/")


def _covers_shard(root: str, shard: str) -> bool:
    # A shard is read when it is named or matched, not when a folder above it is walked.
    return shard == root or (root.startswith(_GLOB) and _matches(root.removeprefix(_GLOB), shard))


def exists(key: str) -> bool:
    """Return whether an image found earlier still exists.

    False only where that is certain. An image that may not be looked at, or lies on a server that does not
    answer, counts as existing, so that it is not removed from a collection by mistake.
    """
    if is_member_url(key) and (shard := _local(key.partition("::")[2])) is not None:
        return has_member(key, shard)
    if is_url(key):
        return exists_remote(key)
    try:
        os.stat(key)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


# --- Walking a folder -------------------------------------------------------------------------


def walk(root: str, *, ordered: bool = True) -> Iterator[str | ImageFailure]:
    """Yield the images below an absolute folder, in the order of their paths unless `ordered` is False.

    Hidden files and folders are skipped, and so are files without an image's extension. A link to a folder
    outside `root` is followed once. A link to a folder inside `root` is not followed, because the walk meets
    that folder under its own name.

    Yields
    ------
    str or ImageFailure
        Absolute path; a failure for an unreadable folder, a dangling link and a loop of links.

    Notes
    -----
    Each folder is read once. The names of one folder are sorted in memory; from 250,000 names on, sorted
    parts of them wait in temporary files.
    """
    visited: set[tuple[int, int]] = set()
    real_root = os.path.realpath(root)
    pending = [_entries(root, visited, ordered)]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
        elif isinstance(entry, str) and entry.endswith(os.sep):
            if not _links_inside(entry[:-1], real_root):
                pending.append(_entries(entry[:-1], visited, ordered))
        else:
            yield entry


def _entries(folder: str, visited: set[tuple[int, int]], ordered: bool) -> Iterator[str | ImageFailure]:
    """Yield the entries of a folder not visited before; subfolders end in a separator."""
    try:
        info = os.stat(folder)
        if (info.st_dev, info.st_ino) in visited:
            return
        visited.add((info.st_dev, info.st_ino))
        for name in _sorted_names(folder) if ordered else _marked_names(folder):
            path = os.path.join(folder, name.removesuffix(_BROKEN_LINK))
            yield _broken_link(path) if name.endswith(_BROKEN_LINK) else path
    except OSError as error:
        yield ImageFailure(folder, describe_error(error, folder))


def _sorted_names(folder: str) -> Iterator[str]:
    """Yield the marked names of a folder, sorted, in memory that does not grow with their number."""
    names = _marked_names(folder)
    with ExitStack() as files:
        parts = []
        while len(part := sorted(islice(names, _MAX_SORTED_NAMES))) == _MAX_SORTED_NAMES:
            parts.append(_stored_names(part, files))
        yield from heapq.merge(*parts, part)


def _stored_names(names: list[str], files: ExitStack) -> Iterator[str]:
    """Write names to a temporary file, and return them as an iterator that reads them back."""
    file = files.enter_context(TemporaryFile("w+", encoding="ascii"))  # noqa: SIM115 - closed with the others
    # A name may hold a line break, and bytes that are not UTF-8; its JSON is one line of ASCII.
    file.writelines(f"{json.dumps(name)}\n" for name in names)
    file.seek(0)
    return map(json.loads, file)


def _marked_names(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from filter(None, map(_marked_name, entries))


def _marked_name(entry: os.DirEntry[str]) -> str | None:
    """Return the name of an image, a folder's with a separator, a broken link's with its mark, or None."""
    name = entry.name
    if name.startswith("."):
        return None
    try:
        if entry.is_dir():
            # With its separator, a folder's name sorts as the paths in it do.
            return name + os.sep
        is_usable = not entry.is_symlink() or os.path.exists(entry.path)
    except OSError:  # a loop of links, or one into a forbidden folder
        is_usable = False
    if is_usable:
        return name if is_image_name(name) else None
    # A broken link without an extension may have been a folder of images.
    return name + _BROKEN_LINK if is_image_name(name) or "." not in name else None


def _broken_link(path: str) -> ImageFailure:
    try:
        os.stat(path)
    except OSError as error:
        return ImageFailure(path, describe_error(error, path))
    return ImageFailure(path, "was a broken link a moment ago; try again")


def _links_inside(folder: str, real_root: str) -> bool:
    """Return whether a folder is a link to a folder that is walked under its own name."""
    if not os.path.islink(folder):
        return False
    real = os.path.realpath(folder)
    if real != real_root and not real.startswith(real_root.rstrip(os.sep) + os.sep):
        return False
    return not any(part.startswith(".") for part in real[len(real_root) :].split(os.sep) if part)


# --- Expanding a pattern ----------------------------------------------------------------------


def expand(pattern: str) -> Iterator[str]:
    """Yield the paths that match a glob, sorted, as the shell would write them.

    ``*``, ``?`` and ``[...]`` stay within one name and do not match hidden ones; ``**`` stands for any number
    of folders and does not follow links. A matched file counts if it has the extension of an image or a
    shard, or if the pattern spells its extension out. A matched folder is yielded, to be walked.
    """
    parts = pattern.split(os.sep)
    has_extension = bool(re.search(r"\.[^.*?\[\]]+$", parts[-1]))
    base = parts[0] + os.sep if pattern.startswith(os.sep) else ""
    for path in _expand_parts(base, [part for part in parts if part]):
        if has_extension or is_image_name(path) or is_shard_name(path) or os.path.isdir(path):
            yield path


def _expand_parts(base: str, parts: list[str]) -> Iterator[str]:
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _expand_any_depth(base, rest)
    elif not has_magic(part):
        path = os.path.join(base, part)
        if os.path.lexists(path):
            yield from _expand_parts(path, rest)
    else:
        is_match = re.compile(fnmatch.translate(part)).match
        for name, is_folder in _names(base, hidden=part.startswith(".")):
            if is_match(name) and (is_folder or not rest):
                yield from _expand_parts(os.path.join(base, name), rest)


def _expand_any_depth(base: str, rest: list[str]) -> Iterator[str]:
    while rest and rest[0] == "**":
        rest = rest[1:]
    if not rest:
        # A closing ** is the folder and all that is in it.
        yield base or os.curdir
        return
    yield from _expand_parts(base, rest)
    for name, is_folder in _names(base, hidden=False):
        path = os.path.join(base, name)
        if is_folder and not os.path.islink(path):
            yield from _expand_any_depth(path, rest)


def _names(folder: str, *, hidden: bool) -> list[tuple[str, bool]]:
    """Return the sorted names in a folder, and whether each is a folder; nothing if it is unreadable."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            return sorted((e.name, os.path.isdir(e)) for e in entries if hidden or not e.name.startswith("."))
    except OSError:
        return []


def _matches(pattern: str, path: str) -> bool:
    """Return whether an absolute path matches an absolute glob, or lies below a path that does."""
    return _parts_match(pattern.split(os.sep), path.split(os.sep))


def _parts_match(parts: list[str], names: list[str]) -> bool:
    if not parts:
        return True
    if parts[0] == "**":
        return any(_parts_match(parts[1:], names[i:]) for i in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _parts_match(parts[1:], names[1:])
