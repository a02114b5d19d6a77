"""Copies a collection from one place to another, whatever keeps the two."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat, takewhile
from pathlib import Path

import pyarrow as pa

from nearsight import progress as progress_bars
from nearsight.artifacts import exported
from nearsight.collection import manifest, upgrade_state
from nearsight.collection import schema as row_schema
from nearsight.collection.copy_comparison import compare, differences, surplus
from nearsight.errors import CollectionNotFoundError, CopyDifferenceError, NotACollectionError, StorageError
from nearsight.parallel import ordered_map
from nearsight.store import (
    Location,
    VectorStore,
    append_accepted,
    is_directory,
    is_store,
    locate,
    require_accepted,
)

# The rows of one write to the new place: enough that a write costs little each, and 64 MB with thumbnails.
_ROWS_PER_WRITE, _MAX_BYTES = 4096, 64 << 20
# What is not copied from a directory: it is made anew, or belongs to whoever works there.
_OWN = {
    manifest.FILENAME, manifest.LOCK, manifest.BUILD_LOCK, manifest.CACHE, manifest.FULL, manifest.COPY,
    manifest.PROJECTION, upgrade_state.STATE, upgrade_state.BRIDGE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What `copy_collection` did.

    Attributes
    ----------
    n_images : int
        Of the copy.
    n_copied : int
        By this call; the others were there from an earlier one.
    n_files : int
        Files of analyses: a map, clusters, classifiers, labels, the bank of faces.
    is_verified : bool
        Whether every row of the copy was compared with the original.
    """

    n_images: int
    n_copied: int
    n_files: int
    is_verified: bool


def copy_collection(
    source: str | Path,
    target: str | Path,
    *,
    storage: str | None = None,
    verify: bool = False,
    start_over: bool = False,
    progress: bool | None = None,
) -> CopyReport:
    """Copy a collection to another place: its rows, thumbnails, metadata, and what analyses saved.

    The copy is no collection until it is whole. After an interruption, the same call goes on: rows that are
    there are not written again. If the original was changed meanwhile, they are compared, and those that
    differ are written again.

    Parameters
    ----------
    source, target : path or URI
        See `Collection.create`; nothing may be at `target` but an unfinished copy of the same collection.
    storage : {"float32", "float16"}, optional
        The type of a stored number; by default as in the original, and in a database what it prefers.
    verify : bool, default False
        Whether to read both afterwards, and compare every row. It also verifies a copy that is there already.
    start_over : bool, default False
        Whether to delete an unfinished copy at `target` first, whatever it is a copy of.
    progress : bool, optional
        Whether to draw a bar; by default where stderr is a terminal.

    Returns
    -------
    CopyReport

    Raises
    ------
    CollectionNotFoundError
        There is no collection at `source`.
    NotACollectionError
        There is something else at `target`, or an unfinished copy of another collection.
    RowsRefusedError
        The engine of `target` cannot hold some images; all others are copied.
    CopyDifferenceError
        The copy differs from the original; the error has the numbers, and names the first images.
    StorageError
        A storage refuses, or the original was changed meanwhile.
    """
    old, new = locate(source), locate(target)
    facts = manifest.CollectionManifest.read(old)
    rows = old.open_store(facts.store)
    with progress_bars.steps(1 + verify):
        is_whole = new.read_document(manifest.FILENAME) is not None
        was_ended = is_whole and new.read_document(manifest.COPY) is not None
        if was_ended:
            # By a kill after the last step: the copy may have been used since, so nothing of it is touched.
            new.delete_document(manifest.COPY)
        if is_whole:
            if not verify and not was_ended:
                raise NotACollectionError(
                    f"{new.uri} is a collection already: choose another place, or compare the two with"
                    " --verify"
                )
            n_copied, n_files = 0, 0
        else:
            n_copied, n_files = _copy(rows, facts, old, new, storage, progress, start_over=start_over)
        copied = new.open_store(manifest.CollectionManifest.read(new).store)
        if verify:
            _verify(rows, copied, old, new, progress)
    return CopyReport(copied.count(), n_copied, n_files, verify)


def _copy(
    rows: VectorStore,
    facts: manifest.CollectionManifest,
    old: Location,
    new: Location,
    storage: str | None,
    shown: bool | None,
    *,
    start_over: bool,
) -> tuple[int, int]:
    storage = storage or (facts.storage if is_directory(new) else new.default_storage)
    schema = _schema(rows, facts, storage)
    _prepare(new)
    with new.lock():
        revision = rows.revision
        is_current = _begin(new, old, revision, storage, start_over=start_over)
        if (projection := old.read_document(manifest.PROJECTION)) is not None:
            new.write_document(manifest.PROJECTION, projection)
        copy = _store(new, schema)
        refused: dict[str, str] = {}
        n_there, n_copied = copy.count(), 0
        with progress_bars.bar("copying", rows.count(), progress=shown) as bar:
            bar.update(n_there if is_current else 0)
            for table in _read_ahead(_writes(rows, schema)):
                lost = _missing(copy, table, storage, is_current=is_current) if n_there else table
                not_held = append_accepted(copy, lost)
                refused |= not_held
                n_copied += lost.num_rows - len(not_held)
                bar.update(lost.num_rows if is_current else table.num_rows)
        if not is_current:
            for ids in list(surplus(copy, rows)):
                copy.delete(ids)
        require_accepted(
            new.uri,
            refused,
            f"All others are copied: mend these in {old.uri}, or remove them there, and run the same command"
            " again",
        )
        # An upgrade that ended meanwhile has changed the model, and what analyses saved.
        is_same = manifest.CollectionManifest.read(old) == facts and rows.revision == revision
        if not is_same or copy.count() != rows.count():
            raise StorageError(
                f"{old.uri} was changed while it was copied; stop what writes to it, and run the same command"
                " again"
            )
        n_files = _copy_files(old, new)
        # Last: before it, the copy is no collection.
        manifest.CollectionManifest(
            facts.spec, facts.fingerprint, facts.created, facts.written_by, storage
        ).write(new)
        new.delete_document(manifest.COPY)
    _maintain(copy)
    return n_copied, n_files


def _maintain(copy: VectorStore) -> None:
    """Make the indexes, of all rows at once; measured apart from the rows."""
    copy.maintain()


def _name(place: Location) -> str:
    return str(place.files.resolve()) if is_directory(place) else place.uri


def _begin(new: Location, old: Location, revision: str, storage: str, *, start_over: bool) -> bool:
    """Say in a document what the copy is a copy of; return whether the rows that are there are current.

    They may not be if the original was changed since they were copied.
    """
    begun = {"source": _name(old), "revision": revision, "storage": storage}
    content = new.read_document(manifest.COPY)
    before = {} if content is None else json.loads(content)
    if before.get("source", begun["source"]) != begun["source"] and not start_over:
        raise NotACollectionError(
            f"{new.uri} holds an unfinished copy of {before['source']}: finish that by the command that began"
            " it, choose another place, or delete it and copy here by --start-over"
        )
    if start_over or before.get("storage") != storage:
        new.delete_store(manifest.STORE)
    elif before["revision"] == revision:
        return True
    else:
        # Known of no revision, until it is whole: this call may be interrupted, too.
        begun["revision"] = ""
    new.write_document(manifest.COPY, json.dumps(begun).encode())
    return bool(begun["revision"])


def _store(new: Location, schema: pa.Schema) -> VectorStore:
    """Return the store of the copy, with the columns of the original."""
    try:
        copy = new.open_store(manifest.STORE)
    except CollectionNotFoundError:
        return new.create_store(manifest.STORE, schema)
    copy.add_columns([field for field in schema if field.name not in copy.schema.names])
    try:
        return new.create_store(manifest.STORE, schema)
    except StorageError:
        # Of another length or type than the original has now.
        new.delete_store(manifest.STORE)
        return new.create_store(manifest.STORE, schema)


def _prepare(new: Location) -> None:
    """Make the directory of the copy; refuse one that holds anything else."""
    if is_directory(new) and new.read_document(manifest.COPY) is None:
        manifest.require_free(new.files)
        if (new.files / manifest.FULL).is_dir():
            raise manifest.interrupted(new)
        new.files.mkdir(parents=True, exist_ok=True)


def _schema(rows: VectorStore, facts: manifest.CollectionManifest, storage: str) -> pa.Schema:
    """Return the columns of the original, with numbers of the copy's type."""
    vector = row_schema.schema(facts.spec.dim, storage).field("vector")
    return rows.schema.set(rows.schema.get_field_index("vector"), vector)


def _writes(rows: VectorStore, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield all rows, in parts of a size to write at once."""
    batches: list[pa.RecordBatch] = []
    for batch in rows.scan(schema.names):
        batches.append(batch)
        is_full = sum(map(len, batches)) >= _ROWS_PER_WRITE
        if is_full or sum(own.nbytes for own in batches) >= _MAX_BYTES:
            yield pa.Table.from_batches(batches)
            batches = []
    if batches:
        yield pa.Table.from_batches(batches)


def _read_ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Read the next part in a thread while one is written."""
    read: Iterator[pa.Table | None] = ordered_map(
        lambda _: next(tables, None), repeat(None), n_threads=1, look_ahead=1
    )
    return takewhile(lambda table: table is not None, read)


def _missing(copy: VectorStore, table: pa.Table, storage: str, *, is_current: bool) -> pa.Table:
    """Return the rows that an earlier call has not copied; those that have changed since are deleted."""
    if is_current:
        ids = table["id"].to_pylist()
        there = {id for batch in copy.scan(["id"], ids=ids) for id in batch.column(0).to_pylist()}
        return table.filter(pa.array([id not in there for id in ids], pa.bool_()))
    absent, different = compare(table, copy, storage)
    copy.delete([table["id"][row].as_py() for row in different])
    return table.take(pa.array([*absent, *different], pa.int64()))


def _copy_files(old: Location, new: Location) -> int:
    """Copy what analyses saved; return how many files."""
    if not old.files.is_dir():
        return 0
    n_files = 0
    for entry in sorted(old.files.iterdir()):
        if entry.name in _OWN or entry.name.startswith(".") or is_store(entry):
            continue
        files = [entry] if entry.is_file() else [file for file in entry.rglob("*") if file.is_file()]
        for file in files:
            place = new.files / file.relative_to(old.files)
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "rb") as content, exported(place) as copy:
                shutil.copyfileobj(content, copy)
        n_files += len(files)
    return n_files


def _verify(rows: VectorStore, copied: VectorStore, old: Location, new: Location, shown: bool | None) -> None:
    """Compare every row; vectors may differ by the rounding of what the copy stores."""
    storage = manifest.CollectionManifest.read(new).storage
    with progress_bars.bar("verifying", rows.count(), progress=shown) as bar:

        def tables() -> Iterator[pa.Table]:
            for table in _read_ahead(_writes(rows, rows.schema)):
                yield table
                bar.update(table.num_rows)

        found = differences(tables(), rows, copied, storage)
    if found:
        raise CopyDifferenceError(
            f"{new.uri} is not as {old.uri}: {found}. Delete the copy, and copy again; if something writes to"
            " the original, stop that first",
            found.to_dict(),
        )
