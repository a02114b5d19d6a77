"""Labels that people give: the classes, the label of each image in the metadata, and what can be undone."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearsight.analyses.labeled_images import labels_by_key
from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError, StorageError, UnknownIdError
from nearsight.services.change_files import ChangeFiles, write_durably
from nearsight.services.doubtful_labels import find_doubtful
from nearsight.text_format import csv_row, nfc

DIRECTORY = "labels"
#: The metadata key of labels if none is named.
DEFAULT_KEY = "label"
MAX_CLASSES = 1000
MAX_LABEL_LENGTH = 100
_ID_DIGITS = 32


@dataclass(frozen=True, slots=True)
class LabelChange:
    """A label that images get; None takes their label away.

    Attributes
    ----------
    ids : list of str
        Whole ids.
    label : str or None
    """

    ids: list[str]
    label: str | None


@dataclass(frozen=True, slots=True)
class UndoneChange:
    """What `LabelSet.undo` took back.

    Attributes
    ----------
    number : int
    label : str or None
        The label that the change had given.
    before : dict of str to str or None
        The label of each image now, which is the one before the change.
    """

    number: int
    label: str | None
    before: dict[str, str | None]


class LabelSet:
    """The labels of a collection under one metadata key.

    Labels are metadata, so that filters, exports and `classify` see them. The order of the classes, the
    labels that were confirmed, and the last changes are files in the collection's directory.

    Parameters
    ----------
    collection : Collection
    key : str
        The metadata key.

    Raises
    ------
    MetadataError
        The key is not valid, or holds numbers.
    """

    def __init__(self, collection: Collection, key: str = DEFAULT_KEY) -> None:
        collection.check_metadata({key: ""})
        self.collection = collection
        self.key = key
        self._changes = ChangeFiles(collection.directory / DIRECTORY / key)
        self._facts_file = self._changes.directory / "label_set.json"

    def labels(self) -> dict[str, str]:
        """Return the label of each labeled image, by id."""
        if self.key not in self.collection.metadata_types():
            return {}
        return labels_by_key(self.collection, self.key)

    def classes(self) -> dict[str, int]:
        """Return the classes in the order that was chosen, others by name, each with its number of images."""
        counts = Counter(self.labels().values())
        ordered = [*self._facts()["classes"], *sorted(counts)]
        return {label: counts[label] for label in dict.fromkeys(ordered)}

    def set_classes(self, classes: Sequence[str]) -> list[str]:
        """Choose the classes and their order; return them as they are saved.

        Raises
        ------
        InvalidParameterError
            A name is empty, too long, or nearly another one: `Shirt` and `shirt`.
        """
        names = [checked_label(label) for label in classes]
        if len(names) > MAX_CLASSES:
            raise InvalidParameterError(f"there are {len(names)} classes; at most {MAX_CLASSES} are possible")
        self._check_spelling(names)
        with self._changes.lock():
            self._write_facts({**self._facts(), "classes": list(dict.fromkeys(names))})
        return list(dict.fromkeys(names))

    def change(self, changes: Sequence[LabelChange]) -> list[int]:
        """Give or take labels, in one write; they are on disk when this returns.

        Returns
        -------
        list of int
            A number for each change, for `undo`.

        Raises
        ------
        UnknownIdError
            An image is not in the collection; then nothing is written.
        InvalidParameterError
            A label is empty, too long, or nearly one that there is.
        """
        settled = [LabelChange(c.ids, None if c.label is None else checked_label(c.label)) for c in changes]
        ids = list(dict.fromkeys(id for change in settled for id in change.ids))
        with self._changes.lock():
            known = set(self._facts()["classes"])
            if new := [c.label for c in settled if c.label is not None and c.label not in known]:
                self._check_spelling([*known, *new])
            current = self._current(ids)
            after = dict(current)
            numbers = []
            first = self._changes.next_number()
            for number, change in enumerate(settled, first):
                # Written first: if the process is killed before the labels are, there is nothing to undo.
                self._write_change(number, change, {id: after[id] for id in change.ids})
                after |= dict.fromkeys(change.ids, change.label)
                numbers.append(number)
            self._write_labels({id: after[id] for id in ids if after[id] != current[id]})
            self._changes.drop_old()
        return numbers

    def undo(self, number: int | None = None) -> UndoneChange | None:
        """Take a change back, by default the last one; return what it was, or None if there is none.

        An image that got another label since keeps it.
        """
        with self._changes.lock():
            numbers = self._changes.numbers()
            for each in numbers if number is None else [n for n in numbers if n == number]:
                change, before = self._read_change(each)
                current = self._current(list(before), missing_ok=True)
                undone = {id: before[id] for id in current if current[id] == change.label != before[id]}
                self._write_labels(undone)
                self._changes.delete(each)
                if undone:
                    return UndoneChange(each, change.label, undone)
        return None

    def confirm(self, ids: Sequence[str]) -> int:
        """Note that the labels of these images are right: checks name them no more; return how many."""
        with self._changes.lock():
            current = {id: label for id, label in self._current(ids).items() if label is not None}
            facts = self._facts()
            self._write_facts({**facts, "confirmed": {**facts["confirmed"], **current}})
        return len(current)

    def confirmed(self) -> dict[str, str]:
        """Return the confirmed labels by id; one that was changed since is not among those of `labels`."""
        confirmed: dict[str, str] = self._facts()["confirmed"]
        return confirmed

    def csv(self, shown: Callable[[str], str] = str) -> Iterator[bytes]:
        """Yield a table of all labeled images, row by row: id, path, label.

        Parameters
        ----------
        shown : callable
            Returns what to write for a path of the collection.
        """
        yield csv_row(["id", "path", "label"])
        if self.key not in self.collection.metadata_types():
            return
        for item in self.collection.items(f"metadata.{self.key} IS NOT NULL"):
            yield csv_row([item.id, shown(item.path), str(item.metadata[self.key])])

    def _check_spelling(self, names: Sequence[str]) -> None:
        doubts = [d for d in find_doubtful((name, name) for name in names) if d.kind == "spelling"]
        if doubts:
            first = " and ".join(repr(label) for label in doubts[0].labels[:2])
            raise InvalidParameterError(f"{first} are probably one class; choose one spelling")

    def _current(self, ids: Sequence[str], *, missing_ok: bool = False) -> dict[str, str | None]:
        items = {item.id: item.metadata.get(self.key) for item in self.collection.items(ids=list(ids))}
        if not missing_ok and (missing := [id for id in ids if id not in items]):
            raise UnknownIdError(f"no image has the id {missing[0]!r}; nearsight ls shows the ids")
        return {id: None if items[id] is None else str(items[id]) for id in ids if id in items}

    def _write_labels(self, labels: Mapping[str, str | None]) -> None:
        if labels:
            values = [{self.key: label} for label in labels.values()]
            self.collection.update_metadata(list(labels), values, missing_ok=True)

    def _facts(self) -> dict[str, Any]:
        try:
            facts = json.loads(self._facts_file.read_text(encoding="utf-8"))
            return {"classes": list(facts["classes"]), "confirmed": dict(facts["confirmed"])}
        except FileNotFoundError:
            return {"classes": [], "confirmed": {}}
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise StorageError(f"{self._facts_file} is damaged; restore it or delete it") from error

    def _write_facts(self, facts: Mapping[str, Any]) -> None:
        write_durably(self._facts_file, {"format": 1, **facts})

    def _write_change(self, number: int, change: LabelChange, before: Mapping[str, str | None]) -> None:
        self._changes.write(number, {"format": 1, "label": change.label, "before": before})

    def _read_change(self, number: int) -> tuple[LabelChange, dict[str, str | None]]:
        facts = self._changes.read(number)
        try:
            return LabelChange(list(facts["before"]), facts["label"]), dict(facts["before"])
        except (KeyError, TypeError, ValueError):
            # The labels themselves are in the metadata.
            return LabelChange([], None), {}


def checked_label(label: str) -> str:
    """Return a label as it is stored.

    Raises
    ------
    InvalidParameterError
        It is empty, has more than 100 characters, or holds control characters.
    """
    name = nfc(label.strip())
    if not name or len(name) > MAX_LABEL_LENGTH or not name.isprintable():
        raise InvalidParameterError(
            f"the label {label[:MAX_LABEL_LENGTH]!r} must have 1 to {MAX_LABEL_LENGTH} characters, and no"
            " control characters"
        )
    return name


def label_keys(collection: Collection) -> list[str]:
    """Return the metadata keys that hold text, and so may hold labels."""
    return [key for key, type_ in collection.metadata_types().items() if type_ == "string"]


def matching_ids(collection: Collection, where: str) -> list[str]:
    """Return the whole ids of the images that match."""
    return [id for batch in collection.iter_batches(["id"], where) for id in batch.column("id").to_pylist()]


def whole_ids(collection: Collection, ids: Sequence[str]) -> list[str]:
    """Return the whole ids of images that are named by unique starts of them."""
    return [id if len(id) == _ID_DIGITS else collection.get(id).id for id in ids]
