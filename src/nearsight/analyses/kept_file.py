"""Chooses the file to keep among files of the same bytes."""

# Paths stay strings: names that are not UTF-8 survive.
# ruff: noqa: PTH116

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from nearsight.collection import Item
from nearsight.images.path_encoding import absolute

# Folders whose files are about to disappear, by name; the higher the number, the sooner.
_BIN, _TEMPORARY, _DOWNLOADS = 3, 2, 1
_PLACES = (
    (
        _BIN,
        r"\.?trash(es)?|\.trash-\d+|\$recycle\.bin|[#@]recycle|recycle[rd]|recycle bin|recently deleted"
        r"|\.nearsight-trash"
        r"|lost\+found|found\.\d+|papierkorb|corbeille|papelera( de reciclaje)?|cestino|lixeira|prullenbak",
    ),
    (
        _TEMPORARY,
        r"\.?te?mp|temporary.*|.*\.tmp|\.?[\w .-]*cache[sd]?|\.?thumb(nail)?s|@eadir|.*\.lrdata",
    ),
    (
        _DOWNLOADS,
        r"(my )?downloads?|téléchargements|descargas|download-?ordner|scaricati|transferências|ladattu",
    ),
)
_PLACE = [(level, re.compile(names)) for level, names in _PLACES]
# How programs name a second file: "a (1).jpg", "a copy.jpg", "Copy of a.jpg", "a - Kopie.jpg".
_COPY_NAME = re.compile(r"\(\d{1,3}\)$|^copy of |[ _-]+(copy|kopie|copie|copia)( ?\d+)?$")


@dataclass(frozen=True, slots=True)
class KeptFile:
    """The file to keep of an image that lies in several identical files.

    Attributes
    ----------
    item : Item
        The image; its first path is the file to keep, and each further file has one path.
    hard_links : list of str
        Further names of the file to keep. Deleting one frees no space.
    why : str
        Why this file is kept; empty if it is the only one.
    """

    item: Item
    hard_links: list[str]
    why: str


@dataclass(frozen=True, slots=True)
class _File:
    names: list[str]  # one for each hard link, the best first
    place: int
    folder: str  # that the place was recognized by
    n_links: int  # symbolic links that lead to it
    is_missing: bool
    modified_ns: float

    def criteria(self) -> tuple[bool, int, int, float, bool]:
        """Return what decides, in this order; less is better."""
        is_copy = bool(_COPY_NAME.search(PurePath(self.names[0]).stem.casefold()))
        return self.is_missing, self.place, -self.n_links, self.modified_ns, is_copy


def kept_file(item: Item) -> KeptFile:
    """Choose the file to keep of an image, and name every file once.

    *Method*: never a file in a bin; then none in a cache, a temporary folder or `Downloads`, as far as not
    all lie there; then the file that most symbolic links lead to, so that they keep working; then the oldest;
    then one that is not named as a copy; then the first. A link is no duplicate: whoever keeps it and deletes
    its target has lost the image.
    """
    if not item.paths:
        return KeptFile(item, [], "")
    files = sorted(_files(item.paths), key=_File.criteria)
    best, paths = files[0], [name for file in files[1:] for name in file.names]
    why = _reason(best, files[1:])
    return KeptFile(replace(item, path=best.names[0], paths=[best.names[0], *paths]), best.names[1:], why)


def passing_folder(path: str, others: Iterable[str] = ()) -> tuple[int, str]:
    """Return how soon a file may disappear, and the name of the folder that says so: a bin, a cache, ...

    0 and an empty name for other files. Folders that `others` lie in as well say nothing.
    """
    folders = _folders(path)
    # A URL and a local path share no folder, and that says nothing about either.
    shared = [_folders(other) for other in others if ("://" in other) is ("://" in path)]
    n_shared = min((_n_same(folders, other) for other in shared), default=0)
    return max(map(_level, folders[n_shared:]), key=lambda found: found[0], default=(0, ""))


def n_distinct_files(paths: Iterable[str]) -> int:
    """Return the number of files behind paths, where hard links of one file count once."""
    return len({_identity(path) or path for path in paths})


def _files(paths: Sequence[str]) -> list[_File]:
    """Return each file once, whatever links lead to it."""
    aliases: dict[object, dict[str, list[str]]] = {}
    for path in paths:
        target = path if "://" in path else os.path.realpath(path)
        aliases.setdefault(_identity(path) or target, {}).setdefault(target, []).append(path)
    targets = [target for names in aliases.values() for target in names]
    files = []
    for names in aliases.values():
        best = sorted(
            (
                (passing_folder(target, targets), next((p for p in of if absolute(p) == target), of[0]))
                for target, of in names.items()
            ),
            key=lambda name: name[0][0],
        )
        (place, folder), first = best[0]
        files.append(
            _File(
                [name for _, name in best],
                place,
                folder,
                sum(map(len, names.values())) - len(names),
                *_missing_and_modified(first),
            )
        )
    return files


def _reason(best: _File, others: Sequence[_File]) -> str:
    if not others:
        return ""
    second = others[0]
    if second.is_missing and not best.is_missing:
        return "the only one of identical files that is still there"
    if second.place > best.place:
        return f"identical, and not in {second.folder}"
    if second.n_links != best.n_links:
        return "identical, and links lead to it"
    if second.modified_ns != best.modified_ns:
        return "the oldest of identical files"
    return "the first of identical files"


def _identity(path: str) -> tuple[int, int] | None:
    """Return what is the same for all names of a file."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    return (info.st_dev, info.st_ino) if info.st_ino else None


def _missing_and_modified(path: str) -> tuple[bool, float]:
    if "://" in path:
        return False, float("inf")
    try:
        return False, os.stat(path).st_mtime_ns
    except (OSError, ValueError):
        return True, float("inf")


def _folders(path: str) -> tuple[str, ...]:
    return PurePath(absolute(path)).parent.parts


def _n_same(left: Sequence[str], right: Sequence[str]) -> int:
    n = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
    return min(len(left), len(right)) if n is None else n


def _level(folder: str) -> tuple[int, str]:
    name = unicodedata.normalize("NFC", folder).casefold()
    return next(((level, folder) for level, names in _PLACE if names.fullmatch(name)), (0, ""))
