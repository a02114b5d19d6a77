"""Walking folders and expanding globs: sorted, lazily, and without ever going round in circles."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH110, PTH112, PTH114, PTH116, PTH118, PTH206

import fnmatch
import heapq
import os
import re
from collections.abc import Iterator
from glob import has_magic
from itertools import chain, islice

from nearsight.errors import ImageFailure
from nearsight.images.path_encoding import describe, is_image_name, is_shard_name

_Identity = tuple[int, int]
# Names of one directory that are sorted at a time: about 20 MB. A larger directory is read several times.
_BATCH_NAMES = 250_000


def walk(root: str) -> Iterator[str | ImageFailure]:
    """Yield the images below an absolute folder in the order of their paths.

    Hidden files and folders are skipped, and so is what has no image's extension. A linked folder is
    followed once; one that lies inside `root` is met under its own name and not followed.

    Yields
    ------
    str or ImageFailure
        Absolute path; a failure for an unreadable folder, a dangling link and a loop of links.
    """
    visited: set[_Identity] = set()
    real_root = os.path.realpath(root)
    pending = [_entries(root, visited)]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
        elif isinstance(entry, str) and entry.endswith(os.sep):
            if not _leads_back(entry[:-1], real_root):
                pending.append(_entries(entry[:-1], visited))
        else:
            yield entry


def _entries(folder: str, visited: set[_Identity]) -> Iterator[str | ImageFailure]:
    """Yield the sorted entries of one folder; sub-folders end in a separator, so they sort as paths do."""
    try:
        info = os.stat(folder)
        if (info.st_dev, info.st_ino) in visited:
            return
        visited.add((info.st_dev, info.st_ino))
        for name in _sorted_names(folder):
            yield _unusable_link(folder, name[:-1]) if name.endswith("\0") else os.path.join(folder, name)
    except OSError as error:
        yield ImageFailure(folder, describe(error, folder))


def _sorted_names(folder: str) -> Iterator[str]:
    last = ""
    while True:
        with os.scandir(folder) as entries:
            names = (name for entry in entries if (name := _interesting(entry)) and name > last)
            batch = list(islice(names, _BATCH_NAMES + 1))
            complete = len(batch) <= _BATCH_NAMES
            batch = sorted(batch) if complete else heapq.nsmallest(_BATCH_NAMES, chain(batch, names))
        yield from batch
        if complete:
            return
        last = batch[-1]


def _interesting(entry: os.DirEntry[str]) -> str | None:
    """Return the name of an image, a folder's with a separator, a broken link's with a NUL, or None."""
    name = entry.name
    if name.startswith("."):
        return None
    try:
        if entry.is_dir():
            return name + os.sep
        usable = not entry.is_symlink() or os.path.exists(entry.path)
    except OSError:  # a loop of links, or one into a forbidden folder
        usable = False
    if usable:
        return name if is_image_name(name) else None
    # A broken link without an extension may have been a folder of images.
    return name + "\0" if is_image_name(name) or "." not in name else None


def _unusable_link(folder: str, name: str) -> ImageFailure:
    path = os.path.join(folder, name)
    try:
        os.stat(path)
    except OSError as error:
        return ImageFailure(path, describe(error, path))
    return ImageFailure(path, "was a broken link a moment ago; try again")


def _leads_back(folder: str, real_root: str) -> bool:
    """Return whether a folder is a link to a folder below the root that is walked under its own name."""
    if not os.path.islink(folder):
        return False
    real = os.path.realpath(folder)
    if real != real_root and not real.startswith(real_root.rstrip(os.sep) + os.sep):
        return False
    return not any(part.startswith(".") for part in real[len(real_root) :].split(os.sep) if part)


def count_folder(root: str) -> int:
    """Return about how many images `walk` will find, without sorting."""
    visited: set[_Identity] = set()
    pending, n_images = [root], 0
    real_root = os.path.realpath(root)
    while pending:
        folder = pending.pop()
        try:
            info = os.stat(folder)
            if (info.st_dev, info.st_ino) in visited:
                continue
            visited.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = _interesting(entry)
                    if name is None:
                        continue
                    if not name.endswith(os.sep):
                        n_images += 1
                    elif not _leads_back(entry.path, real_root):
                        pending.append(entry.path)
        except OSError:
            continue
    return n_images


def expand(pattern: str) -> Iterator[str]:
    """Yield the paths that match a glob, sorted, as the shell would write them.

    ``*``, ``?`` and ``[...]`` stay within one name and do not match hidden ones; ``**`` stands for any number
    of folders and does not follow links. Of matched files, those count that have an image's or a shard's
    extension, and any whose extension the pattern spells out; folders are yielded to be walked.
    """
    parts = pattern.split(os.sep)
    spelled = bool(re.search(r"\.[^.*?\[\]]+$", parts[-1]))
    for path in _match(parts[0] + os.sep if pattern.startswith(os.sep) else "", [p for p in parts if p]):
        if spelled or is_image_name(path) or is_shard_name(path) or os.path.isdir(path):
            yield path


def _match(base: str, parts: list[str]) -> Iterator[str]:
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _match_any_depth(base, rest)
    elif not has_magic(part):
        path = os.path.join(base, part)
        if os.path.lexists(path):
            yield from _match(path, rest)
    else:
        fits = re.compile(fnmatch.translate(part)).match
        for name, is_folder in _names(base, hidden=part.startswith(".")):
            if fits(name) and (is_folder or not rest):
                yield from _match(os.path.join(base, name), rest)


def _match_any_depth(base: str, rest: list[str]) -> Iterator[str]:
    while rest and rest[0] == "**":
        rest = rest[1:]
    if not rest:
        # A closing ** is the folder and all that is in it.
        yield base or os.curdir
        return
    yield from _match(base, rest)
    for name, is_folder in _names(base, hidden=False):
        path = os.path.join(base, name)
        if is_folder and not os.path.islink(path):
            yield from _match_any_depth(path, rest)


def _names(folder: str, *, hidden: bool) -> list[tuple[str, bool]]:
    try:
        with os.scandir(folder or os.curdir) as entries:
            return sorted((e.name, _is_folder(e)) for e in entries if hidden or not e.name.startswith("."))
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def matches(pattern: str, path: str) -> bool:
    """Return whether an absolute path matches an absolute glob, or lies below something that does."""
    return _fits(pattern.split(os.sep), path.split(os.sep))


def _fits(parts: list[str], names: list[str]) -> bool:
    if not parts:
        return True
    if parts[0] == "**":
        return any(_fits(parts[1:], names[i:]) for i in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _fits(parts[1:], names[1:])
