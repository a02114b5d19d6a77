"""Finds images by the names that people use in tables: the only rule of what a name stands for."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH119, PTH122

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nearsight.errors import InvalidParameterError
from nearsight.images.path_encoding import absolute, name_in
from nearsight.text_format import count, nfc, printable, shortened

# Digits of an id's beginning that stand for the whole in a table: fewer could be an article number.
_ID_DIGITS = 12
_ID_LENGTH = 32
_HEX = frozenset("0123456789abcdef")
_MAX_CANDIDATES = 3


class ImageLookup:
    """Finds images by their names.

    Names compare by Unicode's form C. Where two files differ in form only, the exact name decides.

    Parameters
    ----------
    images : iterable of (str, sequence of str)
        The id of each image, and the paths of its files. Any key will do for an id.
    """

    def __init__(self, images: Iterable[tuple[str, Sequence[str]]]) -> None:
        self._ids: set[str] = set()
        # Each by the form in which names compare; the values tell the exact path.
        self._by_path: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._by_name: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._by_stem: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for id, paths in images:
            self._ids.add(id)
            for path in paths:
                self._add(id, path)

    def _add(self, id: str, path: str) -> None:
        pair = (path, id)
        self._by_path[nfc(path)].append(pair)
        if (whole := absolute(path)) != path:
            self._by_path[nfc(whole)].append((whole, id))
        name = nfc(os.path.basename(name_in(path)))
        self._by_name[name].append(pair)
        self._by_stem[os.path.splitext(name)[0]].append(pair)

    def find_file(self, name: str, folder: str = "") -> set[str]:
        """Return the ids of the images that a whole id or path names; a path may be relative.

        Parameters
        ----------
        name : str
        folder : str
            Of the table; a path is relative to it, or else to where the process is.
        """
        if name in self._ids:
            return {name}
        for spelling in (name, absolute(name, folder), absolute(name)):
            if pairs := self._by_path.get(nfc(spelling)):
                return _ids_of(pairs, [path for path, _ in pairs if path == spelling])
        return set()

    def find(self, name: str, folder: str = "", *, id_digits: int = _ID_DIGITS) -> set[str]:
        """Return the ids of the images with a name, by the first of these that finds any.

        A whole id; a path; the end of a path; a file name; a file name without its ending; the beginning of
        an id.

        Parameters
        ----------
        name, folder
            See `find_file`.
        id_digits : int
            So many digits of an id, at least, are its beginning.
        """
        if not name:
            return set()
        if ids := self.find_file(name, folder):
            return ids
        path = nfc(os.path.normpath(name))
        base = os.path.basename(path)
        if base != path:
            suffix = os.sep + path.lstrip(os.sep)
            pairs = [
                pair for pair in self._by_name.get(base, []) if _ends_with(nfc(name_in(pair[0])), suffix)
            ]
            return _ids_of(pairs, [path for path, _ in pairs if _ends_with(name_in(path), os.sep + name)])
        # A stem may hold a dot: with an ending that no file has, the name is looked for as one.
        for pairs in (self._by_name.get(base, []), self._by_stem.get(base, [])):
            if pairs:
                exact = [path for path, _ in pairs if os.path.basename(name_in(path)).startswith(name)]
                return _ids_of(pairs, exact)
        if id_digits <= len(name) <= _ID_LENGTH and _HEX.issuperset(name):
            return {id for id in self._ids if id.startswith(name)}
        return set()

    def resolve(self, names: Iterable[str], folder: str = "") -> "Resolution":
        """Return the images that the rows of a table name, and the names that no image or several have."""
        resolution = Resolution()
        for name in names:
            resolution.n_rows += 1
            if name in resolution.ids:
                continue
            ids = self.find(name, folder)
            if len(ids) == 1:
                resolution.ids[name] = ids.pop()
            elif ids:
                resolution.ambiguous[name] = sorted(self.paths_of(name, ids))
                resolution.n_lost += 1
            else:
                resolution.unmatched[name] = resolution.unmatched.get(name, 0) + 1
                resolution.n_lost += 1
        return resolution

    def paths_of(self, name: str, ids: Iterable[str]) -> list[str]:
        """Return a path of each of the images that `find` found by a name."""
        by_id: dict[str, str] = {}
        base = nfc(os.path.basename(name))
        for pairs in (self._by_path.get(nfc(name)), self._by_name.get(base), self._by_stem.get(base)):
            for path, id in pairs or ():
                by_id.setdefault(id, path)
        return [by_id.get(id, id) for id in ids]


@dataclass
class Resolution:
    """What the names in a table stand for.

    Attributes
    ----------
    ids : dict of str to str
        The image of each name that one image has.
    unmatched : dict of str to int
        Names that no image has, and how many rows have each.
    ambiguous : dict of str to list of str
        Names that several images have, and the paths of those.
    n_rows, n_lost : int
        Rows of the table, and those of them whose name is unmatched or ambiguous.
    """

    ids: dict[str, str] = field(default_factory=dict)
    unmatched: dict[str, int] = field(default_factory=dict)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)
    n_rows: int = 0
    n_lost: int = 0

    def forget(self, names: Iterable[str]) -> None:
        """Take names out of the unmatched: they stand for something that is not asked for here."""
        for name in list(names):
            self.n_lost -= self.unmatched.pop(name)

    def require_most(self, source: str) -> None:
        """Refuse a table of which more than half of the rows name no image.

        Raises
        ------
        InvalidParameterError
            The message names some of them.
        """
        require_most(source, self.n_rows, self.n_lost, self.unmatched, self.ambiguous)

    def report(self, source: str) -> list[str]:
        """Return what to say of the names that were left out; nothing if there are none."""
        lines = []
        if self.unmatched:
            n_rows = count(sum(self.unmatched.values()), "row")
            names = printable(shortened(list(self.unmatched), 10))
            lines.append(f"{n_rows} of {source} skipped, because no image has the name: {names}")
        if self.ambiguous:
            n_names = count(len(self.ambiguous), "name")
            candidates = (
                f"{name} ({' or '.join(paths[:_MAX_CANDIDATES])})" for name, paths in self.ambiguous.items()
            )
            lines.append(
                f"{n_names} of {source} skipped, because several images have it; give the path instead:"
                f" {printable(shortened(list(candidates), 10))}"
            )
        return lines


def require_most(
    source: str,
    n_rows: int,
    n_lost: int,
    unmatched: Iterable[str],
    ambiguous: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Refuse a table of which more than half of the rows name no image; see `Resolution`.

    Raises
    ------
    InvalidParameterError
        The message names some of them.
    """
    if 2 * n_lost <= n_rows:
        return
    names = ", ".join(repr(name) for name in [*unmatched, *(ambiguous or ())][:5])
    raise InvalidParameterError(
        f"{n_lost:,} of the {n_rows:,} rows of {source} name no image, or several, such as {names}. An image"
        " is named by its path (absolute, or relative to the table), file name, file name without ending, or"
        " id; nearsight ls lists them"
    )


def _ends_with(path: str, suffix: str) -> bool:
    """Whether a path ends with whole names; that of a shard's member begins without a separator."""
    return (os.sep + path).endswith(suffix)


def _ids_of(pairs: Sequence[tuple[str, str]], exact: Sequence[str]) -> set[str]:
    """Return the ids of the exact paths if there are any, and else of all."""
    return {id for path, id in pairs if not exact or path in exact}
