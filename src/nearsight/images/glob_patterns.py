"""Glob patterns: what they match now, and whether they would match a path."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH100, PTH112, PTH114, PTH118, PTH119, PTH206

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from glob import has_magic

from nearsight.images.exclusions import Exclusions, PathRules, count_skipped, ending
from nearsight.images.path_encoding import is_image_name, is_shard_name


def expand(
    pattern: str, *, exclusions: Exclusions | None = None, skipped: Counter[str] | None = None
) -> Iterator[str]:
    """Yield the paths that match a glob, sorted, as the shell would write them.

    ``*``, ``?`` and ``[...]`` stay within one name and do not match hidden ones; ``**`` stands for any number
    of folders and does not follow links. A matched file counts if it has the extension of an image or a
    shard, or if the pattern spells its extension out. A matched folder is yielded, to be walked.

    Parameters
    ----------
    pattern : str
    exclusions : Exclusions, optional
        What is left out below the pattern's last folder without a wildcard; nothing by default.
    skipped : Counter, optional
        Counts what matches and is passed over, by kind; see `walk`.
    """
    parts = pattern.split(os.sep)
    has_extension = bool(re.search(r"\.[^.*?\[\]]+$", parts[-1]))
    root = parts[0] + os.sep if pattern.startswith(os.sep) else ""
    include_hidden = exclusions is not None and exclusions.include_hidden
    base = literal_base(pattern)
    # Hidden names match where the pattern says so, and nowhere else.
    rules = PathRules(replace(exclusions, include_hidden=True), os.path.abspath(base)) if exclusions else None
    for path in _expand_parts(root, [part for part in parts if part], include_hidden):
        is_folder = os.path.isdir(path)
        reason = rules.reason(os.path.relpath(path, base), is_folder=is_folder) if rules else None
        if reason is not None:
            count_skipped(skipped, reason)
        elif has_extension or is_folder or is_image_name(path) or is_shard_name(path):
            yield path
        else:
            count_skipped(skipped, ending(os.path.basename(path)))


def literal_base(pattern: str) -> str:
    """Return the folder that a pattern names before its first wildcard.

    Examples
    --------
    >>> literal_base("/a/b/*/c.jpg"), literal_base("*.jpg")
    ('/a/b', '.')
    """
    parts = pattern.split(os.sep)
    n_literal = next((i for i, part in enumerate(parts) if has_magic(part)), len(parts) - 1)
    return os.sep.join(parts[:n_literal]) or (os.sep if pattern.startswith(os.sep) else os.curdir)


def _expand_parts(base: str, parts: list[str], hidden: bool) -> Iterator[str]:
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _expand_any_depth(base, rest, hidden)
    elif not has_magic(part):
        path = os.path.join(base, part)
        if os.path.lexists(path):
            yield from _expand_parts(path, rest, hidden)
    else:
        is_match = re.compile(fnmatch.translate(part)).match
        for name, is_folder in _names(base, hidden=hidden or part.startswith(".")):
            if is_match(name) and (is_folder or not rest):
                yield from _expand_parts(os.path.join(base, name), rest, hidden)


def _expand_any_depth(base: str, rest: list[str], hidden: bool) -> Iterator[str]:
    while rest and rest[0] == "**":
        rest = rest[1:]
    if not rest:
        # A closing ** is the folder and all that is in it.
        yield base or os.curdir
        return
    yield from _expand_parts(base, rest, hidden)
    for name, is_folder in _names(base, hidden=hidden):
        path = os.path.join(base, name)
        if is_folder and not os.path.islink(path):
            yield from _expand_any_depth(path, rest, hidden)


def _names(folder: str, *, hidden: bool) -> list[tuple[str, bool]]:
    """Return the sorted names in a folder, and whether each is a folder; nothing if it is unreadable."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            return sorted((e.name, os.path.isdir(e)) for e in entries if hidden or not e.name.startswith("."))
    except OSError:
        return []


def matches(pattern: str, path: str) -> bool:
    """Return whether an absolute path matches an absolute glob, or lies below a path that does."""
    return _parts_match(pattern.split(os.sep), path.split(os.sep))


def _parts_match(parts: list[str], names: list[str]) -> bool:
    if not parts:
        return True
    if parts[0] == "**":
        return any(_parts_match(parts[1:], names[i:]) for i in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _parts_match(parts[1:], names[1:])
