"""The persons of a bank, and what people decide about them: names, merges, and whom a face is not of."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa

from nearsight.errors import InvalidParameterError, UnknownIdError
from nearsight.faces.decisions import Change, FaceDecisions, PersonKey
from nearsight.faces.groups import FaceGroup, listed_groups
from nearsight.faces.schema import COLUMNS, BankedFace, images_of
from nearsight.faces.storage import BankStorage
from nearsight.faces.suggestions import Suggestions
from nearsight.text_format import nfc


class People:
    """The persons and groups of a face bank, and decisions about them.

    Every decision is on disk when the call returns, holds whenever groups are computed again, and can be
    taken back by `undo`. Nothing that was removed can.

    Parameters
    ----------
    storage : BankStorage
    """

    def __init__(self, storage: BankStorage) -> None:
        self._storage = storage

    def faces(self, ids: Sequence[str] | None = None) -> list[BankedFace]:
        """Return the faces of the bank, or those of some ids, oldest first; other ids are ignored."""
        table = self._storage.table(*COLUMNS, ids=ids)
        return [BankedFace.from_row(row) for row in table.to_pylist()]

    def groups(self) -> list[FaceGroup]:
        """Return the persons and groups as they are now, the largest first.

        Faces that were added since the last `FaceBank.group` are left out.
        """
        directory = self._storage.directory
        return listed_groups(self.faces(), Suggestions.read(directory), self.decisions())

    def decisions(self) -> FaceDecisions:
        """Return what was decided.

        Raises
        ------
        NotACollectionError, NewerFormatError
            The file is damaged, or a newer nearsight wrote it.
        """
        return FaceDecisions.read(self._storage.directory)

    def key(self, name: str) -> PersonKey:
        """Return the person of a name, or else the group.

        Raises
        ------
        UnknownIdError
            There is neither.
        """
        table = self._storage.table("person", "group")
        persons = {nfc(person): person for person in table["person"].to_pylist() if person}
        if nfc(name) in persons:
            return PersonKey("", persons[nfc(name)])
        if name and name in table["group"].to_pylist():
            return PersonKey(name, "")
        known = ", ".join(sorted(persons)[:20]) or "nobody"
        raise UnknownIdError(f"the bank has no person and no group {name!r}; there is {known}")

    # --- decisions ------------------------------------------------------------------------------------

    def name(self, key: PersonKey, name: str) -> int:
        """Name a group, which enrolls its faces, or rename a person; return the number of faces.

        With the name of another person, the two become one.

        Raises
        ------
        UnknownIdError
            There is no such person or group.
        InvalidParameterError
            The name is empty.
        """
        person = _checked_name(name)
        with self._changing("name" if key.group else "rename") as edit:
            ids = edit.faces_of(key)
            edit.assign(ids, person)
            edit.carry_hidden([key], PersonKey("", person))
        return len(ids)

    def assign(self, faces: Collection[str], name: str) -> int:
        """Give faces a person's name, whatever they were called before; return their number.

        Raises
        ------
        UnknownIdError
            There is no such face.
        """
        person = _checked_name(name)
        with self._changing("assign") as edit:
            edit.require(faces)
            edit.assign(faces, person)
        return len(set(faces))

    def confirm(self, faces: Sequence[str]) -> dict[str, int]:
        """Give faces the name of the person that they match; return the number of faces by person.

        Raises
        ------
        UnknownIdError
            There is no such face.
        InvalidParameterError
            A face matches nobody: name it, or assign it to a person.
        """
        person_of = {id: group.person for group in self.groups() for id in group.suggested}
        confirmed: dict[str, list[str]] = {}
        with self._changing("confirm") as edit:
            edit.require(faces)
            for id in dict.fromkeys(faces):
                person = person_of.get(id) or edit.keys[id].person
                if not person:
                    raise InvalidParameterError(f"the face {id} matches nobody; give it a name instead")
                confirmed.setdefault(person, []).append(id)
            for person, ids in confirmed.items():
                edit.assign(ids, person)
        return {person: len(ids) for person, ids in confirmed.items()}

    def reject(self, faces: Sequence[str]) -> int:
        """Decide that each face is not of the person or group that it is in or matches; return their number.

        Raises
        ------
        UnknownIdError
            There is no such face.
        """
        self._separate("reject", faces)
        return len(set(faces))

    def split(self, faces: Sequence[str], name: str | None = None) -> PersonKey:
        """Split faces off their persons or groups: together they are another person. Return the key of that.

        Parameters
        ----------
        faces : sequence of str
            Ids.
        name : str, optional
            Of the person that they are; by default they become a group.

        Raises
        ------
        UnknownIdError
            There is no such face.
        """
        return self._separate("split", faces, together=True, name=name)

    def merge(self, keys: Sequence[PersonKey], name: str | None = None) -> PersonKey:
        """Make one of several persons and groups; return its key.

        Parameters
        ----------
        keys : sequence of PersonKey
        name : str, optional
            By default that of the first person among them; without one, they are one group.

        Raises
        ------
        UnknownIdError
            There is no such person or group.
        """
        if not keys:
            raise InvalidParameterError("there is nothing to merge; name the persons or groups")
        persons = [key.person for key in keys if key.person]
        person = _checked_name(name) if name is not None else next(iter(persons), "")
        merged = PersonKey("" if person else keys[0].group, person)
        with self._changing("merge") as edit:
            ids = [id for key in dict.fromkeys(keys) for id in edit.faces_of(key)]
            if person:
                edit.assign(ids, person)
            else:
                edit.decisions = edit.decisions.joined(ids)
                edit.set(ids, merged)
            edit.carry_hidden(keys, merged)
        return merged

    def hide(self, keys: Collection[PersonKey], hidden: bool = True) -> int:
        """Hide persons or groups, or show them again; return how many changed.

        Raises
        ------
        UnknownIdError
            There is no such person or group.
        """
        with self._changing("hide" if hidden else "show") as edit:
            for key in keys:
                edit.faces_of(key)
            before = set(edit.decisions.hidden)
            edit.hide(keys, hidden)
            return len(before ^ set(edit.decisions.hidden))

    def undo(self, change: str | None = None) -> Change:
        """Take the latest change back, and return it.

        Parameters
        ----------
        change : str, optional
            Its id; by default whichever is the latest.

        Raises
        ------
        InvalidParameterError
            There is none, or another change came after it.
        """
        with self._storage.writing():
            decisions = self.decisions()
            latest = decisions.history[-1] if decisions.history else None
            if latest is None or change not in (None, latest.id):
                reason = (
                    "there is nothing to undo" if latest is None else "another change came after this one"
                )
                raise InvalidParameterError(f"{reason}; what was removed cannot be brought back")
            self._commit(decisions, decisions.undone(), {id: key for key, ids in latest.faces for id in ids})
        return latest

    def history(self) -> list[Change]:
        """Return the changes that can be undone, the latest first."""
        return list(reversed(self.decisions().history))

    # --- removal --------------------------------------------------------------------------------------

    def remove(self, is_removed: Callable[[str, PersonKey], bool], *, read_again: bool = False) -> int:
        """Remove faces without a trace, by their id and key; return their number.

        Parameters
        ----------
        is_removed : callable
        read_again : bool, default False
            Whether a later scan may find them again. Otherwise the hashes of their images are kept, so that
            who was removed does not come back.
        """
        with self._storage.writing():
            table = self._storage.table()
            keys = _keys(table)
            gone = {id for id, key in keys.items() if is_removed(id, key)}
            if not gone:
                return 0
            remains = pa.array([id not in gone for id in keys], pa.bool_())
            kept = table.filter(remains)
            directory = self._storage.directory
            if not read_again:
                images = images_of(table) - images_of(kept)
                self._storage.add_without_faces(images)
            persons = {key.person for key in keys.values()} - set(kept["person"].to_pylist())
            decisions = self.decisions()
            if decisions != FaceDecisions():
                decisions.forgotten(gone, persons).write(directory)
            suggestions = Suggestions.read(directory)
            if suggestions.matches:
                suggestions.without(gone).write(directory)
            self._storage.replace_table(kept)
            return len(gone)

    # --- inner workings -------------------------------------------------------------------------------

    def _separate(
        self, action: str, faces: Sequence[str], *, together: bool = False, name: str | None = None
    ) -> PersonKey:
        person = "" if name is None else _checked_name(name)
        matched = {id: group.key for group in self.groups() for id in group.suggested}
        with self._changing(action) as edit:
            edit.require(faces)
            apart: dict[PersonKey, list[str]] = {}
            for id in dict.fromkeys(faces):
                key = edit.keys[id] if any(edit.keys[id]) else matched.get(id, PersonKey("", ""))
                apart.setdefault(key, []).append(id)
            for key, ids in apart.items():
                others = edit.faces_of(key) if any(key) else []
                edit.decisions = edit.decisions.separated(ids, others)
            new = PersonKey("", person) if person else PersonKey(edit.new_group(), "")
            if together:
                edit.decisions = edit.decisions.joined(faces)
            if person:
                edit.assign(faces, person)
            for id in dict.fromkeys(faces) if not person else ():
                edit.set([id], new if together else PersonKey(edit.new_group(), ""))
        return new

    @contextmanager
    def _changing(self, action: str) -> Iterator["_Edit"]:
        """Lock out other writers; at the end of the block, write what it changed, and how to undo it."""
        with self._storage.writing():
            before = self.decisions()
            edit = _Edit(_keys(self._storage.table("id", "person", "group")), before)
            yield edit
            old = edit.changed()
            if not old and edit.decisions == before:
                return
            after = edit.decisions.recorded(action, before, old)
            self._commit(before, after, {id: edit.keys[id] for id in old})

    def _commit(self, before: FaceDecisions, after: FaceDecisions, keys: Mapping[str, PersonKey]) -> None:
        """Write decisions and the keys of faces; the caller holds the lock.

        While the keys are written, what was decided before and after holds: a crash loses nothing of either,
        and the change can be undone, or undone again.
        """
        directory = self._storage.directory
        table = self._storage.table()
        ids = table["id"].to_pylist()
        if not keys.keys() & set(ids):
            after.write(directory)
            return
        united = before.united(after)
        united.write(directory)
        for place, name in enumerate(("group", "person")):
            old = table[name].to_pylist()
            values = [keys[id][place] if id in keys else value for id, value in zip(ids, old, strict=True)]
            index = table.schema.get_field_index(name)
            table = table.set_column(index, table.schema.field(name), pa.array(values, pa.string()))
        self._storage.replace_table(table)
        if after != united:
            after.write(directory)


class _Edit:
    """The keys of all faces, and the decisions, while one change is made."""

    def __init__(self, keys: dict[str, PersonKey], decisions: FaceDecisions) -> None:
        self.keys = keys
        self.decisions = decisions
        self._before: dict[str, PersonKey] = {}
        numbers = [int(key.group[1:]) for key in keys.values() if key.group[1:].isdigit()]
        self._last_group = max([*numbers, *decisions.group_numbers()], default=0)

    def faces_of(self, key: PersonKey) -> list[str]:
        ids = [id for id, own in self.keys.items() if own == key]
        if not ids:
            what = f"group {key.group!r}" if key.group else f"person {key.person!r}"
            raise UnknownIdError(f"there is no {what} in the bank; `group` returns the groups there are")
        return ids

    def require(self, faces: Collection[str]) -> None:
        if not faces:
            raise InvalidParameterError("there is no face; name at least one by its id")
        for id in faces:
            if id not in self.keys:
                raise UnknownIdError(f"there is no face {id!r} in the bank")

    def set(self, faces: Collection[str], key: PersonKey) -> None:
        for id in faces:
            if self.keys[id] != key:
                self._before.setdefault(id, self.keys[id])
                self.keys[id] = key

    def assign(self, faces: Collection[str], person: str) -> None:
        """Give faces a name, against whatever was decided before."""
        key = PersonKey("", person)
        own = [id for id, other in self.keys.items() if other.person == person]
        self.decisions = self.decisions.reconciled(faces, [*own, *faces])
        self.set(faces, key)

    def hide(self, keys: Collection[PersonKey], hidden: bool) -> None:
        shown = self.decisions.shown(keys)
        self.decisions = shown if not hidden else self.decisions.with_hidden(keys)

    def carry_hidden(self, keys: Collection[PersonKey], new: PersonKey) -> None:
        """Let a person who gets another name stay hidden; whoever joins somebody shown is shown."""
        hidden = set(self.decisions.hidden)
        others = [key for key in keys if key != new]
        exists = any(id for id, key in self.keys.items() if key == new and id not in self._before)
        is_hidden = all(key in hidden for key in others) and (new in hidden or not exists)
        self.hide([*keys, new], False)
        if is_hidden:
            self.hide([new], True)

    def new_group(self) -> str:
        self._last_group += 1
        return f"g{self._last_group}"

    def changed(self) -> dict[str, PersonKey]:
        """Return the keys before of faces that have another now."""
        return {id: key for id, key in self._before.items() if self.keys[id] != key}


def _keys(table: pa.Table) -> dict[str, PersonKey]:
    columns = (table[name].to_pylist() for name in ("id", "group", "person"))
    return {
        id: PersonKey("" if person else group, person) for id, group, person in zip(*columns, strict=True)
    }


def _checked_name(name: str) -> str:
    if not name.strip():
        raise InvalidParameterError("a person's name is empty; give one with at least one letter")
    return nfc(name)
