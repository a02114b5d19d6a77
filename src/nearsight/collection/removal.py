"""Takes files of images out of a collection, and puts rows back."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from nearsight.errors import FingerprintMismatchError
from nearsight.store import VectorStore

_FILE_COLUMNS = ("path", "paths", "keys", "stamps")
_FINGERPRINT = b"fingerprint"


def whole_rows(store: VectorStore, ids: Sequence[str], fingerprint: str) -> pa.Table:
    """Return all that is stored of some images, for `restore_rows`; ids without a row are left out."""
    batches = store.scan(store.schema.names, ids=sorted(ids))
    return marked_rows(pa.Table.from_batches(list(batches), store.schema), fingerprint)


def marked_rows(rows: pa.Table, fingerprint: str) -> pa.Table:
    """Return rows with a note of whose vectors they hold, which `restore_rows` asks for."""
    return rows.replace_schema_metadata({_FINGERPRINT: fingerprint.encode()})


def remove_files(
    store: VectorStore, lock: AbstractContextManager[object], keys: Mapping[str, Sequence[str]]
) -> int:
    """Take files, named by their keys, from rows; a row without files is removed. Return how many were."""
    with lock:
        rows = _files_by_id(store, list(keys))
        for id, row in rows.items():
            gone = set(keys[id])
            _set_files(row, [file for file in _files_of(row) if file[1] not in gone])
        _update(store, [row for row in rows.values() if row["keys"]])
        return store.delete(sorted(id for id, row in rows.items() if not row["keys"]))


def restore_rows(
    store: VectorStore, lock: AbstractContextManager[object], rows: pa.Table, fingerprint: str
) -> int:
    """Put rows back; of an image that has a row, only its files. Return how many rows are new.

    Raises
    ------
    FingerprintMismatchError
        The vectors are of another model.
    """
    if (rows.schema.metadata or {}).get(_FINGERPRINT) != fingerprint.encode():
        raise FingerprintMismatchError(
            "the rows hold vectors of another model; index the folder of the files again instead"
        )
    with lock:
        names = store.schema.names
        store.add_columns([column for column in rows.schema if column.name not in names])
        present = _files_by_id(store, rows["id"].to_pylist())
        new = rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(list(present), pa.string()))))
        if new.num_rows:
            store.append(new)
        old = [row for row in rows.select(["id", *_FILE_COLUMNS]).to_pylist() if row["id"] in present]
        for row in old:
            files = _files_of(row)
            known = {key for _, key, _ in files}
            added = [file for file in _files_of(present[row["id"]]) if file[1] not in known]
            _set_files(row, [*files, *added])
        _update(store, [row for row in old if _files_of(row) != _files_of(present[row["id"]])])
    return int(new.num_rows)


def _files_by_id(store: VectorStore, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    batches = store.scan(["id", *_FILE_COLUMNS], ids=sorted(ids))
    return {row["id"]: row for batch in batches for row in batch.to_pylist()}


def _files_of(row: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    return list(zip(row["paths"], row["keys"], row["stamps"], strict=True))


def _set_files(row: dict[str, Any], files: Sequence[tuple[str, str, int]]) -> None:
    row["paths"], row["keys"], row["stamps"] = ([file[i] for file in files] for i in range(3))
    row["path"] = row["paths"][0] if files else ""


def _update(store: VectorStore, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        columns = pa.schema([store.schema.field(name) for name in ("id", *_FILE_COLUMNS)])
        store.update(pa.Table.from_pylist(list(rows), columns))
