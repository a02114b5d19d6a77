"""Walks a folder: each folder is read once, whatever links lead to it."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH110, PTH114, PTH116, PTH118, PTH119, PTH206

import heapq
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from tempfile import TemporaryFile

from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.images.exclusions import EXCLUDED, Exclusions, FolderRules, count_skipped, ending
from nearsight.images.path_encoding import describe_error, is_image_name

# Suffix of a broken link's name while the names of its folder are sorted; no file name holds it.
_BROKEN_LINK = "\0"
# Names of one folder that are sorted in memory: about 20 MB.
_MAX_SORTED_NAMES = 250_000


def walk(
    root: str,
    *,
    ordered: bool = True,
    exclusions: Exclusions | None = None,
    skipped: Counter[str] | None = None,
) -> Iterator[str | ImageFailure]:
    """Yield the images below an absolute folder, in the order of their paths unless `ordered` is False.

    A link to a folder outside `root` is followed once. A link to a folder inside `root` is not followed,
    because the walk meets that folder under its own name.

    Parameters
    ----------
    root : str
        It is walked whatever its name.
    ordered : bool
    exclusions : Exclusions, optional
        What is passed over; by default hidden names and what `Exclusions` always excludes.
    skipped : Counter, optional
        Counts what is passed over, by kind: ``".cr2"``, ``"hidden"``, ``"excluded"``. A folder counts once.

    Yields
    ------
    str or ImageFailure
        Absolute path; a failure for an unreadable folder, a dangling link and a loop of links, and for a
        ``.nearsightignore`` that cannot be read, with nothing of its folder.

    Notes
    -----
    Each folder is read once. The names of one folder are sorted in memory; from 250,000 names on, sorted
    parts of them wait in temporary files.
    """
    exclusions = exclusions or Exclusions()
    visited: set[tuple[int, int]] = set()
    real_root = os.path.realpath(root)
    pending = [_Folder(root, None, exclusions, skipped).entries(visited, ordered)]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
        elif not isinstance(entry, _Folder):
            yield entry
        elif not _links_inside(entry.path, real_root, exclusions):
            pending.append(entry.entries(visited, ordered))


class _Folder:
    """A folder of a walk."""

    __slots__ = ("_above", "_exclusions", "_rules", "_skipped", "path")

    def __init__(
        self, path: str, above: FolderRules | None, exclusions: Exclusions, skipped: Counter[str] | None
    ) -> None:
        self.path = path
        # The rules of the folder above; None for the root.
        self._above = above
        self._exclusions = exclusions
        self._skipped = skipped

    def entries(
        self, visited: set[tuple[int, int]], ordered: bool
    ) -> "Iterator[str | _Folder | ImageFailure]":
        """Yield what is in the folder, unless it was visited before."""
        path = self.path
        try:
            info = os.stat(path)
            if (info.st_dev, info.st_ino) in visited:
                return
            visited.add((info.st_dev, info.st_ino))
            above, name = self._above, os.path.basename(path)
            rules = self._exclusions.rules(path) if above is None else above.below(name)
            if rules is None:
                count_skipped(self._skipped, EXCLUDED)
                return
            names = _marked_names(path, rules, self._skipped)
            for name in _sorted_names(names) if ordered else names:
                below = os.path.join(path, name.removesuffix(_BROKEN_LINK))
                if name.endswith(os.sep):
                    yield _Folder(below[:-1], rules, self._exclusions, self._skipped)
                else:
                    yield _broken_link(below) if name.endswith(_BROKEN_LINK) else below
        except OSError as error:
            yield ImageFailure(path, describe_error(error, path))
        except InvalidParameterError as error:
            yield ImageFailure(path, str(error))


def _sorted_names(names: Iterator[str]) -> Iterator[str]:
    """Yield the marked names of a folder, sorted, in memory that does not grow with their number."""
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


def _marked_names(folder: str, rules: FolderRules, skipped: Counter[str] | None) -> Iterator[str]:
    """Yield the names of images, folders with a separator, and broken links with their mark."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            try:
                is_folder = entry.is_dir()
                is_broken = not is_folder and entry.is_symlink() and not os.path.exists(entry.path)
            except OSError:  # a loop of links, or one into a forbidden folder
                is_folder, is_broken = False, True
            if (reason := rules.reason(name, is_folder=is_folder)) is not None:
                count_skipped(skipped, reason)
            elif is_folder:
                # With its separator, a folder's name sorts as the paths in it do.
                yield name + os.sep
            elif is_image_name(name):
                yield name + _BROKEN_LINK if is_broken else name
            elif is_broken and "." not in name:
                # It may have been a folder of images.
                yield name + _BROKEN_LINK
            elif skipped is not None:
                count_skipped(skipped, ending(name))


def _broken_link(path: str) -> ImageFailure:
    try:
        os.stat(path)
    except OSError as error:
        return ImageFailure(path, describe_error(error, path))
    return ImageFailure(path, "was a broken link a moment ago; try again")


def _links_inside(folder: str, real_root: str, exclusions: Exclusions) -> bool:
    """Return whether a folder is a link to a folder that is walked under its own name, or is excluded."""
    if not os.path.islink(folder):
        return False
    real = os.path.realpath(folder)
    if real != real_root and not real.startswith(real_root.rstrip(os.sep) + os.sep):
        return False
    parts = real[len(real_root) :].split(os.sep)
    return exclusions.include_hidden or not any(part.startswith(".") for part in parts if part)
