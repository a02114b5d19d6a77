"""From what a user names to the images it stands for."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH100, PTH112, PTH116, PTH120

import os
import stat
from collections.abc import Iterable, Iterator
from glob import has_magic
from typing import Any, TypeAlias
from urllib.parse import unquote

import numpy as np
from PIL import Image

from nearsight.errors import ImageFailure
from nearsight.images.directory_walk import count_folder, expand, matches, walk
from nearsight.images.path_encoding import describe, is_shard_name, is_url
from nearsight.images.remote import exists_remote, find_remote, identity, refusal
from nearsight.images.shards import find_member, holds, is_member_url, members
from nearsight.images.sources import FileSource, ImageSource, MemorySource

Input: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray[Any, Any] | tuple[str, Any]"
Inputs: TypeAlias = "Input | Iterable[Input]"

# Marks of roots that are more, or less, than a place and all below it; no absolute path starts so.
_GLOB = "glob:"
_ONE = "one:"


def find(inputs: Inputs, *, allow_remote: bool = False) -> Iterator[ImageSource | ImageFailure]:
    """Find images, lazily and in the order of the inputs.

    Parameters
    ----------
    inputs : str, path, bytes, PIL image, uint8 array, or an iterable of those
        A string is a folder (walked; sorted; only files with an image's extension; hidden ones skipped), a
        file (always tried), a glob, a tar shard (``.tar``, ``.tar.gz``, ``.tgz``) or a URL that fsspec knows.
        Bytes are an encoded image. An array of four dimensions is a stack of images. An image in memory
        may be given as ``(name, image)``.
    allow_remote : bool
        Whether addresses other than object stores, such as ``https://``, may be fetched.

    Yields
    ------
    ImageSource or ImageFailure
        A failure for what does not exist, matches nothing or may not be read. Nothing is read yet,
        except from compressed and remote shards, whose members come with their bytes.

    Raises
    ------
    TypeError
        `inputs` is none of the above.

    Notes
    -----
    A million files need no list: names are held for one folder at a time, at most 250,000 of them.

    Examples
    --------
    >>> [failure] = find("no/such/image.jpg")
    >>> failure
    ImageFailure(path='no/such/image.jpg', reason='does not exist')
    """
    for position, one in enumerate(_each(inputs), start=1):
        name = f"<image {position}>"
        if isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str):
            name, one = one
            if isinstance(one, (str, os.PathLike)):
                yield ImageFailure(name, "is named and given as a path; give the path alone")
                continue
        if isinstance(one, (str, os.PathLike)):
            yield from _find_path(os.fsdecode(one), allow_remote)
        elif isinstance(one, (bytes, bytearray, memoryview)):
            yield MemorySource(name, one if isinstance(one, bytes) else bytes(one))
        elif isinstance(one, (Image.Image, np.ndarray)):
            yield MemorySource(name, one)
        else:
            kind = type(one).__name__
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
        why_not = refusal(path, allow_remote=allow_remote)
        if why_not is not None:
            yield ImageFailure(path, why_not)
        elif is_member_url(path):
            shard = _local(path.partition("::")[2])
            yield find_member(path, shard or path.partition("::")[2], remote=shard is None)
        elif is_shard_name(path):
            yield from members(path, identity(path), remote=True)
        else:
            yield from find_remote(path)
        return
    try:
        info = os.stat(local)
    except (OSError, ValueError) as error:
        if has_magic(local) and not os.path.lexists(local):
            yield from _find_matching(path, local)
        else:
            yield ImageFailure(path, describe(error, local))
        return
    yield from _find_existing(path, os.path.abspath(local), info.st_mode)


def _find_existing(path: str, key: str, mode: int) -> Iterator[ImageSource | ImageFailure]:
    if stat.S_ISDIR(mode):
        for found in walk(key):
            yield FileSource(found, found) if isinstance(found, str) else found
    elif is_shard_name(key):
        yield from members(path, key)
    else:
        yield FileSource(path, key)


def _find_matching(given: str, pattern: str) -> Iterator[ImageSource | ImageFailure]:
    found = False
    for path in expand(pattern):
        found = True
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            yield ImageFailure(path, describe(error, path))
            continue
        yield from _find_existing(path, os.path.abspath(path), mode)
    if not found:
        yield ImageFailure(given, "does not exist, and as a pattern it matches nothing")


def count(inputs: Inputs, *, allow_remote: bool = False) -> int | None:
    """Count what `find` will yield, for a progress bar; cheap, and not exact while files come and go.

    Parameters
    ----------
    inputs : as for `find`
        Read, not opened.
    allow_remote : bool
        As for `find`; where it is refused, an address counts as the one failure it will be.

    Returns
    -------
    int or None
        None where counting would use the inputs up (an iterator) or cost a download or a pass through
        a shard.
    """
    if isinstance(inputs, Iterator):
        return None
    total = 0
    for one in _each(inputs):
        if not isinstance(one, (str, os.PathLike)):
            total += 1
            continue
        part = _count_path(os.fsdecode(one), allow_remote)
        if part is None:
            return None
        total += part
    return total


def _count_path(path: str, allow_remote: bool) -> int | None:
    local = _local(path)
    if local is None:
        return 1 if is_member_url(path) or refusal(path, allow_remote=allow_remote) else None
    if is_shard_name(local):
        return None
    if os.path.lexists(local) or not has_magic(local):
        return count_folder(os.path.abspath(local)) if os.path.isdir(local) else 1
    n_found = 0
    for match in expand(local):
        if is_shard_name(match):
            return None
        n_found += count_folder(os.path.abspath(match)) if os.path.isdir(match) else 1
    return max(1, n_found)


def roots(inputs: Inputs) -> list[str]:
    """Return what the named inputs cover: absolute paths, URLs, shards and patterns, for `covers`.

    What is not there covers only its own name and nothing below it, so that an unmounted disk does not look
    like an emptied one.
    Images in memory cover nothing. An iterator is used up.
    """
    covered = []
    for one in _each(inputs):
        if not isinstance(one, (str, os.PathLike)):
            continue
        path = os.fsdecode(one)
        local = _local(path)
        if local is None:
            covered += [identity(path)] if not has_magic(path) else [identity(path), _GLOB + identity(path)]
        elif has_magic(local) and not os.path.lexists(local):
            covered.append(_GLOB + os.path.abspath(local))
        elif os.path.lexists(local):
            covered.append(os.path.abspath(local))
        elif os.path.isdir(os.path.dirname(os.path.abspath(local))):
            covered.append(_ONE + os.path.abspath(local))
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
    # A member of a shard is covered by whatever covers the shard.
    outer = key.partition("::")[2] if is_member_url(key) else ""
    return any(_covers(root, key) or (bool(outer) and _covers_shard(root, outer)) for root in roots)


def _covers(root: str, key: str) -> bool:
    if root.startswith(_GLOB):
        return matches(root.removeprefix(_GLOB), key)
    if root.startswith(_ONE):
        return key == root.removeprefix(_ONE)
    return key == root or key.startswith(root if root.endswith(("/", os.sep)) else root + "/")


def _covers_shard(root: str, shard: str) -> bool:
    # Shards count when they are named or matched, not when a folder above them is walked.
    return shard == root or (root.startswith(_GLOB) and matches(root.removeprefix(_GLOB), shard))


def exists(key: str) -> bool:
    """Return whether an image found earlier is still there.

    False only where that is certain: what may not be looked at, or lies on a server that does not answer,
    counts as existing, so that nothing is forgotten by mistake.
    """
    if is_member_url(key) and (shard := _local(key.partition("::")[2])) is not None:
        return holds(key, shard)
    if is_url(key):
        return exists_remote(key)
    try:
        os.stat(key)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True
