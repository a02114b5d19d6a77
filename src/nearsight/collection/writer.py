"""How found and embedded images become rows, so that a crash at any moment loses none."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import BaseFileLock
from numpy.typing import NDArray

from nearsight.collection import schema as row_schema
from nearsight.embedder import Embedded
from nearsight.errors import ImageFailure, UnknownIdError
from nearsight.images import ImageSource, Stat, decode_path, encode_path
from nearsight.images import exists as source_exists
from nearsight.store import VectorStore

# A batch is written once it has this many images or this many seconds: what a kill can cost.
_ROWS = 512
_SECONDS = 5.0
# Rows whose metadata is in memory at once: each update rewrites whole columns, so few large ones are best.
_ROWS_PER_UPDATE = 65_536

# A row that never was a file.
_BARE = {"path": "", "paths": [], "keys": [], "stamps": [], "size_bytes": 0, "width": 0, "height": 0}

_FILE_COLUMNS = ("path", "paths", "keys", "stamps", "modified")


@dataclass(slots=True)
class Counts:
    """What became of the images so far."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    embedded: int = 0
    failed: list[ImageFailure] = field(default_factory=list)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class File:
    """A file that holds some row's content."""

    path: str
    key: str
    stat: Stat

    @classmethod
    def of(cls, source: ImageSource, stat: Stat) -> "File":
        """Return the file as rows name it: valid text whatever bytes the name has."""
        return cls(encode_path(source.path), encode_path(source.key), stat)


@dataclass(frozen=True, slots=True)
class Note:
    """Metadata given for an image that has a row already."""

    id: str
    metadata: Mapping[str, Any]
    was_unchanged: bool


@dataclass(slots=True)
class Batch:
    """What the next write holds.

    Attributes
    ----------
    new : dict of id to row
        Contents that were embedded.
    links : list of (id, File)
        Files whose content has a row already: copies, moves, and edits back to a known state.
    unlinks : list of (id, key)
        Files that no longer hold that row's content.
    notes : list of Note
        Metadata for images that have a row.
    heirs : dict of new id to old id
        The same file before it was changed, whose metadata goes on.
    """

    new: dict[str, dict[str, Any]] = field(default_factory=dict)
    links: list[tuple[str, File]] = field(default_factory=list)
    unlinks: list[tuple[str, str]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    heirs: dict[str, str] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def __len__(self) -> int:
        return len(self.new) + len(self.links) + len(self.unlinks) + len(self.notes)

    def is_due(self) -> bool:
        """Whether it should be written now."""
        return len(self) >= _ROWS or (len(self) > 0 and time.monotonic() - self.since >= _SECONDS)

    def put(self, result: Embedded, metadata: Mapping[str, Any]) -> None:
        """Add an image that was embedded."""
        file = File.of(result.source, result.stat)
        files = [file] if file.key else []
        self.new[result.id] = {
            "id": result.id,
            # What lives in memory has a name for this run only.
            "path": file.path if file.key else "",
            **_files(files),
            "size_bytes": result.stat.size_bytes,
            "modified": row_schema.utc(result.stat.modified_s),
            "width": result.width,
            "height": result.height,
            "added": datetime.now(timezone.utc),
            "vector": result.vector,
            "thumbnail": result.thumbnail,
            **{row_schema.PREFIX + key: value for key, value in metadata.items()},
        }

    def put_copy(self, id: str, file: File) -> None:
        """Add a second file with the content of an image of this batch."""
        row = self.new[id]
        if file.key and file.key not in row["keys"]:
            row["paths"].append(file.path)
            row["keys"].append(file.key)
            row["stamps"].append(file.stat.stamp)


class Writer:
    """Writes batches under the collection's lock.

    New rows go in before the files of old ones are changed, and rows are deleted last: whatever the
    moment of a crash, a content that was acknowledged has a row, and at worst a file is named by two,
    which the next run sees and mends.

    Parameters
    ----------
    store : VectorStore
    lock : BaseFileLock
        Held for the length of one write; other processes write in between.

    Attributes
    ----------
    counts : Counts
        What became of the images written so far.
    """

    def __init__(self, store: VectorStore, lock: BaseFileLock) -> None:
        self.counts = Counts()
        self._store = store
        self._lock = lock
        # The writer must be made before the ledger is read: what others write from here on is looked up.
        self._version = store.version
        self._has_company = False

    def write(self, batch: Batch) -> None:
        """Make a batch durable; it is acknowledged when this returns."""
        with self._lock:
            # Once others have written, any later batch may hold what the ledger could not know.
            self._has_company |= self._store.version != self._version
            if self._has_company:
                self._yield_to_others(batch)
            self._add_columns(batch)
            if batch.new:
                self._inherit(batch)
                new = list(batch.new.values())
                self._store.append(row_schema.table(new, self._store.schema))
                self._count(batch)
            self._relink(batch)
            self._annotate(batch.notes)
            self._version = self._store.version

    def write_vectors(
        self,
        X: NDArray[np.float32],
        ids: Sequence[str],
        metadata: Sequence[Mapping[str, Any]],
    ) -> int:
        """Append rows that have a vector and no file, those excepted whose id is there; return how many."""
        now = datetime.now(timezone.utc)
        n_new = 0
        for at in range(0, len(ids), _ROWS):
            chunk = {
                id: {**_BARE, "id": id, "added": now, "vector": vector}
                | {row_schema.PREFIX + key: value for key, value in given.items()}
                for id, vector, given in zip(
                    ids[at : at + _ROWS], X[at : at + _ROWS], metadata[at : at + _ROWS], strict=True
                )
            }
            with self._lock:
                for found in self._store.scan(["id"], ids=list(chunk)):
                    for id in found.column("id").to_pylist():
                        del chunk[id]
                self._add_columns(Batch(new=chunk))
                if chunk:
                    self._store.append(row_schema.table(chunk.values(), self._store.schema))
            n_new += len(chunk)
        return n_new

    def update_metadata(self, metadata: Mapping[str, Mapping[str, Any]], *, missing_ok: bool) -> int:
        """Set metadata by id, under one lock; return in how many rows that changed anything.

        Raises
        ------
        UnknownIdError
            A row is missing and `missing_ok` is false; then nothing is written.
        """
        notes = [Note(id, values, was_unchanged=False) for id, values in metadata.items()]
        n_changed = 0
        with self._lock:
            if not missing_ok:
                self._require_rows(list(metadata))
            self._add_columns(Batch(notes=notes))
            for start in range(0, len(notes), _ROWS_PER_UPDATE):
                n_changed += self._annotate(notes[start : start + _ROWS_PER_UPDATE])
        return n_changed

    def _require_rows(self, ids: Sequence[str]) -> None:
        known = {id for batch in self._store.scan(["id"], ids=ids) for id in batch.column("id").to_pylist()}
        if missing := [id for id in ids if id not in known]:
            raise UnknownIdError(f"no image has the id {missing[0]!r}; nearsight ls shows the ids")

    def _count(self, batch: Batch) -> None:
        n_files = sum(max(1, len(row["keys"])) for row in batch.new.values())
        self.counts.embedded += len(batch.new)
        self.counts.updated += len(batch.heirs)
        self.counts.added += n_files - len(batch.heirs)

    def _yield_to_others(self, batch: Batch) -> None:
        """Turn rows that another process has written meanwhile into links to them."""
        if not batch.new:
            return
        for found in self._store.scan(["id"], ids=list(batch.new)):
            for id in found.column("id").to_pylist():
                row = batch.new.pop(id)
                batch.heirs.pop(id, None)
                batch.links += [
                    (id, File(path, key, Stat(row["size_bytes"], stamp, row["modified"].timestamp())))
                    for path, key, stamp in zip(row["paths"], row["keys"], row["stamps"], strict=True)
                ]

    def _add_columns(self, batch: Batch) -> None:
        known = {f.name: f.type for f in self._store.schema}
        needed: dict[str, pa.DataType] = {}
        given = [row_schema.metadata_of(row) for row in batch.new.values()]
        for metadata in [*given, *(note.metadata for note in batch.notes)]:
            needed |= row_schema.metadata_types(metadata, {**known, **needed})
        self._store.add_columns(
            [pa.field(name, type_) for name, type_ in needed.items() if name not in known]
        )

    def _inherit(self, batch: Batch) -> None:
        columns = row_schema.metadata_columns(self._store.schema)
        heirs = {old: new for new, old in batch.heirs.items() if new in batch.new}
        if not columns or not heirs:
            return
        for found in self._store.scan(["id", *columns], ids=list(heirs)):
            for old in found.to_pylist():
                new = batch.new[heirs[old["id"]]]
                new.update({c: old[c] for c in columns if new.get(c) is None})

    def _relink(self, batch: Batch) -> None:
        touched = {id for id, _ in batch.links} | {id for id, _ in batch.unlinks}
        if not touched:
            return
        current = {
            row["id"]: row
            for found in self._store.scan(["id", *_FILE_COLUMNS], ids=sorted(touched))
            for row in found.to_pylist()
        }
        for id, file in batch.links:
            if id in current:
                self._link(current[id], file)
            else:
                self.counts.failed.append(
                    ImageFailure(
                        file.path, "its row was removed by another process meanwhile; index it again"
                    )
                )
        emptied = set()
        for id, key in batch.unlinks:
            if id in current and _unlink(current[id], key):
                emptied.add(id)
        kept = [row for id, row in current.items() if id not in emptied]
        if kept:
            schema = self._store.schema
            self._store.update(
                row_schema.table(kept, pa.schema([schema.field(c) for c in ("id", *_FILE_COLUMNS)]))
            )
        if emptied:
            self._store.delete(sorted(emptied))

    def _link(self, row: dict[str, Any], file: File) -> None:
        """Note that a file holds this row's content: a touch, a move (another file is gone), or a copy."""
        gone = next((key for key in row["keys"] if key != file.key and not exists(key)), None)
        if file.key in row["keys"]:
            at = row["keys"].index(file.key)
            row["stamps"][at] = file.stat.stamp
            self.counts.unchanged += 1
        elif gone is not None:
            at = row["keys"].index(gone)
            row["paths"][at], row["keys"][at], row["stamps"][at] = file.path, file.key, file.stat.stamp
            self.counts.updated += 1
        else:
            at = len(row["keys"])
            row["paths"].append(file.path)
            row["keys"].append(file.key)
            row["stamps"].append(file.stat.stamp)
            self.counts.added += 1
        if at == 0:
            row["path"], row["modified"] = file.path, row_schema.utc(file.stat.modified_s)

    def _annotate(self, notes: Sequence[Note]) -> int:
        """Write metadata into rows that exist; return how many rows changed."""
        if not notes:
            return 0
        columns = row_schema.metadata_columns(self._store.schema)
        current = {
            row["id"]: row
            for found in self._store.scan(["id", *columns], ids=sorted({note.id for note in notes}))
            for row in found.to_pylist()
        }
        changed: dict[str, dict[str, Any]] = {}
        for note in notes:
            old = current.get(note.id)
            given = {row_schema.PREFIX + key: value for key, value in note.metadata.items()}
            if old is not None and any(old.get(column) != value for column, value in given.items()):
                old.update(given)
                changed[note.id] = old
                self.counts.updated += note.was_unchanged
                self.counts.unchanged -= note.was_unchanged
        if changed:
            fields = [self._store.schema.field(c) for c in ("id", *columns)]
            self._store.update(row_schema.table(changed.values(), pa.schema(fields)))
        return len(changed)


def exists(key: str) -> bool:
    """Whether the file that a row names is still there."""
    return source_exists(decode_path(key))


def _files(files: Iterable[File]) -> dict[str, list[Any]]:
    return {
        "paths": [f.path for f in files],
        "keys": [f.key for f in files],
        "stamps": [f.stat.stamp for f in files],
    }


def _unlink(row: dict[str, Any], key: str) -> bool:
    """Take a file from a row; say whether it was the last."""
    if key not in row["keys"]:
        return False
    at = row["keys"].index(key)
    for column in ("paths", "keys", "stamps"):
        del row[column][at]
    if row["paths"]:
        row["path"] = row["paths"][0]
    return not row["paths"]
