"""Writes images as rows, so that a crash at any moment loses none that was acknowledged."""

import copy
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.collection import schema as row_schema
from nearsight.embedder import Embedded
from nearsight.errors import ImageFailure, RowsRefusedError, UnknownIdError
from nearsight.images import Exif, ImageSource, Stat, decode_path, encode_path
from nearsight.images import exists as source_exists
from nearsight.store import VectorStore, append_accepted, require_accepted
from nearsight.text_format import count

# A batch is written once it has this many images or is this old: what a killed process can lose.
_ROWS_PER_WRITE = 512
_SECONDS_PER_WRITE = 5.0
# Rows whose metadata is in memory at once: each update rewrites whole columns, so few large ones are best.
_ROWS_PER_UPDATE = 65_536

# The columns of a row that never was a file.
_NO_FILE: dict[str, Any] = {
    "path": "",
    "paths": [],
    "keys": [],
    "stamps": [],
    "size_bytes": 0,
    "width": 0,
    "height": 0,
}

_FILE_COLUMNS = ("path", "paths", "keys", "stamps", "modified")


@dataclass(slots=True)
class AddCounts:
    """Images by what became of them."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    embedded: int = 0
    same_content: int = 0
    failed: list[ImageFailure] = field(default_factory=list)

    def __add__(self, other: "AddCounts") -> "AddCounts":
        return AddCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file with the content of a row."""

    path: str
    key: str
    stat: Stat

    @classmethod
    def of(cls, source: ImageSource, stat: Stat) -> "IndexedFile":
        """Return the file with its names as rows hold them: valid text whatever bytes a name has."""
        return cls(encode_path(source.path), encode_path(source.key), stat)


@dataclass(frozen=True, slots=True)
class MetadataUpdate:
    """New metadata of an image that has a row."""

    id: str
    metadata: Mapping[str, Any]
    was_unchanged: bool


@dataclass(slots=True)
class WriteBatch:
    """Changes that are written together.

    Attributes
    ----------
    rows : dict of id to row
        Images that were embedded.
    links : list of (id, IndexedFile)
        Files whose content has a row: duplicates, moves, and edits back to an earlier state.
    unlinks : list of (id, key)
        Files that no longer have the content of that row.
    metadata : list of MetadataUpdate
        New metadata of images that have a row.
    refreshed : dict of id to Embedded
        Images whose row an earlier version wrote: their EXIF, and their vector if the decoder shows more now.
        And images whose vector was an estimate.
    replaced : dict of new id to old id
        Changed files: the new row takes over the metadata of the old one.
    """

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    links: list[tuple[str, IndexedFile]] = field(default_factory=list)
    unlinks: list[tuple[str, str]] = field(default_factory=list)
    metadata: list[MetadataUpdate] = field(default_factory=list)
    refreshed: dict[str, Embedded] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def __len__(self) -> int:
        parts = (self.rows, self.links, self.unlinks, self.metadata, self.refreshed)
        return sum(map(len, parts))

    def is_due(self) -> bool:
        """Return whether it should be written now."""
        return len(self) >= _ROWS_PER_WRITE or (
            len(self) > 0 and time.monotonic() - self.since >= _SECONDS_PER_WRITE
        )

    def add_row(self, result: Embedded, metadata: Mapping[str, Any]) -> None:
        """Add the row of an image that was embedded."""
        file = IndexedFile.of(result.source, result.stat)
        self.rows[result.id] = {
            "id": result.id,
            # An image in memory has a name in this run only.
            "path": file.path if file.key else "",
            "paths": [],
            "keys": [],
            "stamps": [],
            "size_bytes": result.stat.size_bytes,
            "modified": row_schema.utc(result.stat.modified_s),
            "width": result.width,
            "height": result.height,
            "added": datetime.now(timezone.utc),
            "vector": result.vector,
            "thumbnail": result.thumbnail,
            **row_schema.exif_row(result.exif or Exif()),
            **_metadata_row(metadata),
        }
        self.add_file(result.id, file)

    def add_file(self, id: str, file: IndexedFile) -> None:
        """Add a file with the content of a row of this batch."""
        row = self.rows[id]
        if file.key and file.key not in row["keys"]:
            _append_file(row, file)


class Writer:
    """Writes batches under the collection's lock.

    New rows are written before the files of old rows are changed, and rows are deleted last. So a crash loses
    no acknowledged image; at worst it leaves a file in two rows, which the next run mends.

    Parameters
    ----------
    store : VectorStore
    lock : context manager
        Held during each write; other processes write in between.

    Attributes
    ----------
    counts : AddCounts
        Images written so far.
    """

    def __init__(self, store: VectorStore, lock: AbstractContextManager[object]) -> None:
        self.counts = AddCounts()
        self._store = store
        self._lock = lock
        # Create the writer before the file index is read: what others write from here on is looked up.
        self._version = store.version
        self._others_write = False
        # Rows that the engine cannot hold, by id, and why.
        self._refused: dict[str, str] = {}

    def write(self, batch: WriteBatch) -> None:
        """Write a batch; it is on disk when this returns."""
        with self._lock:
            # Once others have written, any batch may hold images that the file index does not know.
            self._others_write |= self._store.version != self._version
            if self._others_write:
                self._link_rows_of_others(batch)
            self._add_columns(batch)
            if batch.rows:
                self._copy_metadata(batch)
                self._append(batch)
                self._count(batch)
            self._update_files(batch)
            self._write_metadata_of_files(batch.metadata)
            self._refresh(batch.refreshed)
            self._version = self._store.version

    def write_vectors(
        self,
        X: NDArray[np.float32],
        ids: Sequence[str],
        metadata: Sequence[Mapping[str, Any]],
    ) -> int:
        """Append rows of vectors without files, except ids that have a row; return how many were new."""
        now = datetime.now(timezone.utc)
        n_new = 0
        refused: dict[str, str] = {}
        for start in range(0, len(ids), _ROWS_PER_WRITE):
            chunk = slice(start, start + _ROWS_PER_WRITE)
            rows = {
                id: {**_NO_FILE, "id": id, "added": now, "vector": vector, **_metadata_row(values)}
                for id, vector, values in zip(ids[chunk], X[chunk], metadata[chunk], strict=True)
            }
            with self._lock:
                for id in self._known_ids(list(rows)):
                    del rows[id]
                self._add_columns(WriteBatch(rows=rows))
                table = row_schema.table(rows.values(), self._store.schema)
                not_held = append_accepted(self._store, table)
            n_new += len(rows) - len(not_held)
            refused |= not_held
        require_accepted("the collection", refused, f"All others are saved, {count(n_new, 'new one')}")
        return n_new

    def update_metadata(self, metadata: Mapping[str, Mapping[str, Any]], *, missing_ok: bool) -> int:
        """Set metadata by id, under one lock; return in how many rows that changed anything.

        Raises
        ------
        UnknownIdError
            A row is missing and `missing_ok` is false; then nothing is written.
        """
        updates = [MetadataUpdate(id, values, was_unchanged=False) for id, values in metadata.items()]
        n_changed = 0
        with self._lock:
            if not missing_ok:
                self._require_rows(list(metadata))
            self._add_columns(WriteBatch(metadata=updates))
            for start in range(0, len(updates), _ROWS_PER_UPDATE):
                n_changed += self._write_metadata(updates[start : start + _ROWS_PER_UPDATE])
        return n_changed

    def _require_rows(self, ids: Sequence[str]) -> None:
        known = self._known_ids(ids)
        if missing := [id for id in ids if id not in known]:
            raise UnknownIdError(f"no image has the id {missing[0]!r}; nearsight ls shows the ids")

    def _known_ids(self, ids: Sequence[str]) -> set[str]:
        return set(self._rows_by_id([], ids))

    def _rows_by_id(self, columns: Sequence[str], ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        batches = self._store.scan(["id", *columns], ids=sorted(ids))
        return {row["id"]: row for batch in batches for row in batch.to_pylist()}

    def _append(self, batch: WriteBatch) -> None:
        """Append new rows; images that the engine cannot hold are failures, as those that cannot be read."""
        refused = append_accepted(self._store, row_schema.table(batch.rows.values(), self._store.schema))
        self._refused |= refused
        for id, reason in refused.items():
            row = batch.rows.pop(id)
            batch.replaced.pop(id, None)
            self._fail(batch, zip(row["paths"] or [id], row["keys"] or [""], strict=True), reason)

    def _fail(self, batch: WriteBatch, files: Iterable[tuple[str, str]], reason: str) -> None:
        """Record files, by path and key, as failures; the rows that they were in before keep them."""
        keys = set()
        for path, key in files:
            self.counts.failed.append(ImageFailure(decode_path(path), reason))
            keys.add(key)
        batch.unlinks = [unlink for unlink in batch.unlinks if unlink[1] not in keys]

    def _count(self, batch: WriteBatch) -> None:
        n_files = sum(max(1, len(row["keys"])) for row in batch.rows.values())
        self.counts.embedded += len(batch.rows)
        self.counts.updated += len(batch.replaced)
        self.counts.added += n_files - len(batch.replaced)
        self.counts.same_content += n_files - len(batch.rows)

    def _link_rows_of_others(self, batch: WriteBatch) -> None:
        """Replace rows that another process has written meanwhile by links to those."""
        if not batch.rows:
            return
        for id in self._known_ids(list(batch.rows)):
            row = batch.rows.pop(id)
            batch.replaced.pop(id, None)
            modified_s = row["modified"].timestamp() if row["modified"] else float("nan")
            batch.links += [
                (id, IndexedFile(path, key, Stat(row["size_bytes"], stamp, modified_s)))
                for path, key, stamp in zip(row["paths"], row["keys"], row["stamps"], strict=True)
            ]

    def _add_columns(self, batch: WriteBatch) -> None:
        known = {f.name: f.type for f in self._store.schema}
        needed: dict[str, pa.DataType] = {}
        in_rows = (row_schema.metadata_of(row) for row in batch.rows.values())
        for metadata in [*in_rows, *(update.metadata for update in batch.metadata)]:
            needed |= row_schema.metadata_types(metadata, {**known, **needed})
        self._store.add_columns(
            [pa.field(name, type_) for name, type_ in needed.items() if name not in known]
        )

    def _copy_metadata(self, batch: WriteBatch) -> None:
        """Copy the metadata of replaced rows where the new row has none."""
        columns = row_schema.metadata_columns(self._store.schema)
        new_ids = {old: new for new, old in batch.replaced.items() if new in batch.rows}
        if not columns or not new_ids:
            return
        for old_id, old_row in self._rows_by_id(columns, new_ids).items():
            row = batch.rows[new_ids[old_id]]
            row.update({column: old_row[column] for column in columns if row.get(column) is None})

    def _update_files(self, batch: WriteBatch) -> None:
        ids = {id for id, _ in batch.links} | {id for id, _ in batch.unlinks}
        if not ids:
            return
        rows = self._rows_by_id(_FILE_COLUMNS, ids)
        removed = "its row was removed by another process meanwhile; index it again"
        lacking = {id for id, _ in batch.links} - rows.keys()
        self._fail_links(batch, {id: self._refused.get(id, removed) for id in lacking})
        schema = self._store.schema
        columns = pa.schema([schema.field(column) for column in ("id", *_FILE_COLUMNS)])
        while True:
            counts, changed = AddCounts(), copy.deepcopy(rows)
            for id, file in batch.links:
                _link(changed[id], file, counts)
            emptied = {id for id, key in batch.unlinks if id in changed and _unlink(changed[id], key)}
            remaining = [row for id, row in changed.items() if id not in emptied]
            try:
                if remaining:
                    self._store.update(row_schema.table(remaining, columns))
                break
            except RowsRefusedError as error:
                if not self._fail_links(batch, error.reasons):
                    raise
        self.counts += counts
        if emptied:
            self._store.delete(sorted(emptied))

    def _fail_links(self, batch: WriteBatch, reasons: Mapping[str, str]) -> int:
        """Record files that cannot be added to rows as failures; return how many."""
        failed = [(id, file) for id, file in batch.links if id in reasons]
        batch.links = [link for link in batch.links if link[0] not in reasons]
        for id, file in failed:
            self._fail(batch, [(file.path, file.key)], reasons[id])
        return len(failed)

    def add_exif_columns(self) -> None:
        """Add the columns that a collection of an earlier version lacks."""
        if row_schema.lacks_exif(self._store.schema):
            with self._lock:
                self._store.add_columns(row_schema.EXIF_COLUMNS)

    def _refresh(self, refreshed: Mapping[str, Embedded]) -> None:
        exif = [field.name for field in row_schema.EXIF_COLUMNS]
        mark = row_schema.PREFIX + row_schema.ESTIMATED_KEY
        marks = [mark] if mark in self._store.schema.names else []
        rows = [
            {
                "id": id,
                "vector": image.vector,
                "thumbnail": image.thumbnail,
                **row_schema.exif_row(image.exif or Exif()),
                mark: None,
            }
            for id, image in refreshed.items()
        ]
        anew = [row for row in rows if row["vector"] is not None]
        read = [row for row in rows if row["vector"] is None]
        for part, names in ((read, ["id", *exif]), (anew, ["id", "vector", "thumbnail", *exif, *marks])):
            if part:
                columns = pa.schema([self._store.schema.field(name) for name in names])
                self._store.update(row_schema.table(part, columns))
        self.counts.embedded += len(anew)

    def _write_metadata_of_files(self, updates: Sequence[MetadataUpdate]) -> None:
        """Write metadata into rows; an image whose metadata the engine cannot hold is a failure."""
        while updates:
            try:
                self._write_metadata(updates)
                return
            except RowsRefusedError as error:  # noqa: PERF203 - twice at most
                reasons = error.reasons
                left = [update for update in updates if update.id not in reasons]
                if len(left) == len(updates):
                    raise
                refused = [update for update in updates if update.id in reasons]
                self.counts.unchanged -= sum(update.was_unchanged for update in refused)
                for id, row in self._rows_by_id(["path"], reasons).items():
                    reason = f"its metadata was not written: {reasons[id]}"
                    self.counts.failed.append(ImageFailure(decode_path(row["path"]), reason))
                updates = left

    def _write_metadata(self, updates: Sequence[MetadataUpdate]) -> int:
        """Write metadata into rows that exist; return how many rows changed."""
        if not updates:
            return 0
        columns = row_schema.metadata_columns(self._store.schema)
        rows = self._rows_by_id(columns, {update.id for update in updates})
        changed: dict[str, dict[str, Any]] = {}
        n_updated = 0
        for update in updates:
            row, values = rows.get(update.id), _metadata_row(update.metadata)
            if row is not None and any(row.get(column) != value for column, value in values.items()):
                row.update(values)
                changed[update.id] = row
                n_updated += update.was_unchanged
        if changed:
            fields = [self._store.schema.field(column) for column in ("id", *columns)]
            self._store.update(row_schema.table(changed.values(), pa.schema(fields)))
        self.counts.updated += n_updated
        self.counts.unchanged -= n_updated
        return len(changed)


def exists(key: str) -> bool:
    """Return whether a file that a row names is still there."""
    return source_exists(decode_path(key))


def _metadata_row(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {row_schema.PREFIX + key: value for key, value in metadata.items()}


def _append_file(row: dict[str, Any], file: IndexedFile) -> None:
    row["paths"].append(file.path)
    row["keys"].append(file.key)
    row["stamps"].append(file.stat.stamp)


def _link(row: dict[str, Any], file: IndexedFile, counts: AddCounts) -> None:
    """Add a file to a row: the same file touched, moved (an old one is gone), or a duplicate; count it."""
    gone = next((key for key in row["keys"] if key != file.key and not exists(key)), None)
    if file.key in row["keys"]:
        position = row["keys"].index(file.key)
        row["stamps"][position] = file.stat.stamp
        counts.unchanged += 1
    elif gone is not None:
        position = row["keys"].index(gone)
        row["paths"][position], row["keys"][position] = file.path, file.key
        row["stamps"][position] = file.stat.stamp
        counts.updated += 1
    else:
        position = len(row["keys"])
        _append_file(row, file)
        counts.added += 1
        counts.same_content += 1
    if position == 0:
        row["path"], row["modified"] = file.path, row_schema.utc(file.stat.modified_s)


def _unlink(row: dict[str, Any], key: str) -> bool:
    """Remove a file from a row; return whether it was the last."""
    if key not in row["keys"]:
        return False
    position = row["keys"].index(key)
    for column in ("paths", "keys", "stamps"):
        del row[column][position]
    if row["paths"]:
        row["path"] = row["paths"][0]
    return not row["paths"]
