"""What people decided about faces; it holds whenever groups are computed again, and can be undone."""

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from nearsight.artifacts import read_manifest, remedy, write_manifest
from nearsight.errors import StorageError

FILENAME = "decisions.json"
_FORMAT = 1
# Changes that can be undone.
_MOST_CHANGES = 20
# Faces that stand for a person or a group in a decision about somebody who is not in it.
_MOST_ANCHORS = 50


class PersonKey(NamedTuple):
    """A person of the bank, or a group of faces without a person's name; one of the two is empty.

    Attributes
    ----------
    group : str
    person : str
    """

    group: str
    person: str


#: Ids of faces of one person.
Together = tuple[str, ...]
#: Ids of faces, and ids of faces of other persons.
Apart = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of names, groups and decisions.

    Attributes
    ----------
    id : str
    action : str
        Such as ``name`` or ``merge``.
    faces : tuple of (PersonKey, ids)
        What the faces were called before.
    added, removed : dict of str to tuple
        Decisions that came and went, by the attribute of `FaceDecisions`.
    """

    id: str
    action: str
    faces: tuple[tuple[PersonKey, tuple[str, ...]], ...]
    added: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    removed: dict[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FaceDecisions:
    """The decisions about a bank's faces. A later decision takes back what contradicts it.

    Attributes
    ----------
    together : tuple of tuple of str
        Faces that are of one person.
    apart : tuple of pairs
        Faces that are not of the person of other faces. Names play no part, so renaming and merging need no
        care, and a removed person leaves no name behind.
    hidden : tuple of PersonKey
    history : tuple of Change
        The latest changes, the oldest first.
    """

    together: tuple[Together, ...] = ()
    apart: tuple[Apart, ...] = ()
    hidden: tuple[PersonKey, ...] = ()
    history: tuple[Change, ...] = ()

    @classmethod
    def read(cls, directory: Path) -> "FaceDecisions":
        """Read the decisions of a bank.

        Raises
        ------
        NotACollectionError, NewerFormatError
            The file is damaged, or a newer nearsight wrote it.
        """
        try:
            with read_manifest(directory / FILENAME, _FORMAT) as content:
                return cls(
                    **{name: tuple(map(_READ[name], content[name])) for name in _LISTS},
                    history=tuple(map(_read_change, content["history"])),
                )
        except FileNotFoundError:
            return cls()

    def write(self, directory: Path) -> None:
        """Write all decisions; after a crash, the file holds these or those before.

        Raises
        ------
        StorageError
            The disk is full or read-only.
        """
        history = [
            {
                "id": change.id,
                "action": change.action,
                "faces": change.faces,
                "added": change.added,
                "removed": change.removed,
            }
            for change in self.history
        ]
        lists = {name: getattr(self, name) for name in _LISTS}
        path = directory / FILENAME
        try:
            write_manifest(path, _FORMAT, {**lists, "history": history})
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error}; {remedy(error)}") from error

    def joined(self, faces: Collection[str]) -> "FaceDecisions":
        """Decide that faces are of one person."""
        ids = tuple(sorted(set(faces)))
        together = (*self.together, ids) if len(ids) > 1 else self.together
        return replace(self.reconciled(ids, ids), together=together)

    def reconciled(self, faces: Collection[str], others: Collection[str]) -> "FaceDecisions":
        """Take back that faces are not of the person of others."""
        some, rest = set(faces), set(others)
        apart: list[Apart] = []
        for a, b in self.apart:
            if (some & set(a) and rest & set(b)) or (rest & set(a) and some & set(b)):
                apart += _without(a, b, some, rest)
            else:
                apart.append((a, b))
        return replace(self, apart=tuple(apart))

    def separated(self, faces: Collection[str], others: Collection[str]) -> "FaceDecisions":
        """Decide that faces are not of the person of others; of many others, some stand for all."""
        some = set(faces)
        rest = [id for id in others if id not in some][:_MOST_ANCHORS]
        together = [part for ids in self.together for part in _parts(ids, some)]
        apart = (*self.apart, (tuple(sorted(some)), tuple(sorted(rest)))) if rest else self.apart
        return replace(self, together=tuple(together), apart=apart)

    def shown(self, keys: Collection[PersonKey]) -> "FaceDecisions":
        """Decide that persons and groups are not hidden."""
        return replace(self, hidden=tuple(key for key in self.hidden if key not in keys))

    def with_hidden(self, keys: Collection[PersonKey]) -> "FaceDecisions":
        """Decide that persons and groups are hidden."""
        return replace(self, hidden=tuple(dict.fromkeys((*self.hidden, *keys))))

    def forgotten(self, faces: Collection[str], persons: Collection[str]) -> "FaceDecisions":
        """Forget all about faces and persons, and with it what could be undone."""
        gone = set(faces)
        together = (tuple(id for id in ids if id not in gone) for ids in self.together)
        apart = (
            (tuple(id for id in a if id not in gone), tuple(id for id in b if id not in gone))
            for a, b in self.apart
        )
        return FaceDecisions(
            tuple(ids for ids in together if len(ids) > 1),
            tuple((a, b) for a, b in apart if a and b),
            tuple(key for key in self.hidden if not key.person or key.person not in persons),
        )

    def recorded(
        self, action: str, before: "FaceDecisions", faces: Mapping[str, PersonKey]
    ) -> "FaceDecisions":
        """Remember a change, so that it can be undone; `faces` are the keys of changed faces before."""
        by_key: dict[PersonKey, list[str]] = {}
        for id, key in faces.items():
            by_key.setdefault(key, []).append(id)
        change = Change(
            secrets.token_hex(4),
            action,
            tuple((key, tuple(ids)) for key, ids in by_key.items()),
            {name: _missing(getattr(self, name), getattr(before, name)) for name in _LISTS},
            {name: _missing(getattr(before, name), getattr(self, name)) for name in _LISTS},
        )
        return replace(self, history=(*before.history, change)[-_MOST_CHANGES:])

    def undone(self) -> "FaceDecisions":
        """Take the latest change back; the faces are the caller's."""
        change = self.history[-1]
        lists = {
            name: (*_missing(getattr(self, name), change.added[name]), *change.removed[name])
            for name in _LISTS
        }
        return FaceDecisions(**lists, history=self.history[:-1])

    def united(self, after: "FaceDecisions") -> "FaceDecisions":
        """Return what holds here or there, with the longer history."""
        lists = {name: tuple(dict.fromkeys((*getattr(self, name), *getattr(after, name)))) for name in _LISTS}
        is_undo = after.history == self.history[:-1]
        return FaceDecisions(**lists, history=self.history if is_undo else after.history)

    def group_numbers(self) -> Iterable[int]:
        """Return the numbers of groups that decisions name; a new group must get another."""
        keys = [*self.hidden, *(key for change in self.history for key, _ in change.faces)]
        return [int(key.group[1:]) for key in keys if key.group[1:].isdigit()]


def _without(a: tuple[str, ...], b: tuple[str, ...], some: set[str], rest: set[str]) -> list[Apart]:
    """Return a pair of sides without the pairs of faces of which one is in `some` and one in `rest`."""
    pairs: dict[tuple[str, ...], list[str]] = {}
    for face in a:
        others = rest if face in some else set()
        others = others | some if face in rest else others
        remaining = tuple(other for other in b if other not in others)
        pairs.setdefault(remaining, []).append(face)
    return [(tuple(faces), others) for others, faces in pairs.items() if others]


def _parts(ids: Together, some: set[str]) -> list[Together]:
    parts = (tuple(id for id in ids if id in some), tuple(id for id in ids if id not in some))
    return [part for part in parts if len(part) > 1]


def _missing(values: Iterable[Any], others: Iterable[Any]) -> tuple[Any, ...]:
    present = set(others)
    return tuple(value for value in values if value not in present)


def _read_apart(value: Any) -> Apart:
    a, b = value
    return tuple(a), tuple(b)


def _read_key(value: Any) -> PersonKey:
    group, person = value
    return PersonKey(group, person)


_LISTS = ("together", "apart", "hidden")
_READ: dict[str, Callable[[Any], Any]] = {"together": tuple, "apart": _read_apart, "hidden": _read_key}


def _read_change(value: Mapping[str, Any]) -> Change:
    lists = [
        {name: tuple(map(_READ[name], value[side][name])) for name in _LISTS} for side in ("added", "removed")
    ]
    faces = tuple((_read_key(key), tuple(ids)) for key, ids in value["faces"])
    return Change(value["id"], value["action"], faces, *lists)
