"""Changes of the metadata of many images that can be undone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearsight.collection import Collection
from nearsight.collection.results import Metadata
from nearsight.errors import UnknownIdError
from nearsight.services.change_files import ChangeFiles

DIRECTORY = "metadata"


@dataclass(frozen=True, slots=True)
class MetadataChange:
    """What `MetadataChanges.change` or `undo` did.

    Attributes
    ----------
    number : int or None
        For `undo`; None if nothing changed.
    n_changed : int
        Images whose metadata changed.
    n_kept : int
        Images that an undo left alone, because they have other metadata since or are gone.
    """

    number: int | None
    n_changed: int
    n_kept: int = 0


class MetadataChanges:
    """The last changes of a collection's metadata, with what the values were before.

    Parameters
    ----------
    collection : Collection
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._files = ChangeFiles(collection.directory / DIRECTORY)

    def change(self, ids: Sequence[str], metadata: Metadata) -> MetadataChange:
        """Set metadata of images; None removes a key. It is on disk when this returns.

        Parameters
        ----------
        ids : sequence of str
            Whole ids.
        metadata : mapping

        Raises
        ------
        UnknownIdError
            An image is not in the collection; then nothing is written.
        MetadataError
            A bad key, or a value of another type than the collection holds under that key.
        """
        self.collection.check_metadata(metadata)
        with self._files.lock():
            current = self._current(ids, list(metadata))
            if missing := [id for id in ids if id not in current]:
                raise UnknownIdError(f"no image has the id {missing[0]!r}; nearsight ls shows the ids")
            before = {id: values for id, values in current.items() if values != metadata}
            if not before:
                return MetadataChange(None, 0)
            number = self._files.next_number()
            # Written first: if the process is killed before the metadata are, there is nothing to undo.
            self._files.write(number, {"format": 1, "after": dict(metadata), "before": before})
            n_changed = self.collection.update_metadata(list(before), metadata)
            self._files.drop_old()
        return MetadataChange(number, n_changed)

    def undo(self, number: int | None = None) -> MetadataChange | None:
        """Take a change back, by default the last one; return what was done, or None if there is none.

        A value that was changed since is kept.
        """
        with self._files.lock():
            for each in self._files.numbers():
                if number not in (None, each):
                    continue
                after, before = _read(self._files.read(each))
                current = self._current(list(before), list(after))
                undone = {
                    id: values for id, now in current.items() if (values := _restored(now, before[id], after))
                }
                if undone:
                    self.collection.update_metadata(list(undone), list(undone.values()), missing_ok=True)
                self._files.delete(each)
                if undone or number is not None:
                    return MetadataChange(each, len(undone), len(before) - len(undone))
        return None

    def _current(self, ids: Sequence[str], keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {
            item.id: {key: item.metadata.get(key) for key in keys}
            for item in self.collection.items(ids=list(ids))
        }


def _restored(now: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {key: old for key, old in before.items() if now[key] == after[key] != old}


def _read(facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    try:
        after = dict(facts["after"])
        return after, {id: {key: values[key] for key in after} for id, values in facts["before"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}, {}
