"""An index of the files of a collection, in about 100 bytes an image whatever the length of its path."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.collection import schema

if TYPE_CHECKING:
    from nearsight.collection.collection import Collection

# New values are merged into the sorted array once there are this many, or an eighth of the array: a set takes
# four times the memory, and each merge reads everything.
_MERGE_AT_LEAST = 4096

# An id is 32 hex digits, kept as ASCII: numpy would strip the NULs that raw bytes may end in.
_ID = "S32"
_ESTIMATED = schema.PREFIX + schema.ESTIMATED_KEY
_ENTRY = np.dtype([("key", "i8"), ("size", "i8"), ("stamp", "i8"), ("id", _ID), ("visited", "?")])


class FileEntry(NamedTuple):
    """A file of a row."""

    id: str
    size_bytes: int
    stamp: int


class _CompactSet:
    """A set that only grows, mostly in a sorted array: it takes little more memory than its values."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._sorted = np.sort(values)
        self._unmerged: set[Any] = set()

    def __contains__(self, value: Any) -> bool:
        # In this order: another thread puts values into the array before it takes them out of the set.
        if value in self._unmerged:
            return True
        position = int(np.searchsorted(self._sorted, value))
        return position < len(self._sorted) and bool(self._sorted[position] == value)

    def update(self, values: Iterable[Any]) -> None:
        """Add values."""
        self._unmerged.update(values)
        if len(self._unmerged) >= max(_MERGE_AT_LEAST, len(self._sorted) // 8):
            self._sorted = np.union1d(self._sorted, np.array(list(self._unmerged), self._sorted.dtype))
            # Replaced, not cleared: worker threads may be reading it.
            self._unmerged = set()


class FileIndex:
    """The files of a collection by key, and the ids that have a row.

    Keys are held as 64-bit hashes. Two of a million files share a hash with a probability of 3e-8, and are
    confused only if their sizes and time stamps agree too.

    Parameters
    ----------
    batches : iterable of pyarrow.RecordBatch
        `columns` of a store.
    """

    COLUMNS = ("id", "keys", "stamps", "size_bytes", "orientation")

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        entries, ids, outdated, estimated = [np.empty(0, _ENTRY)], *([np.empty(0, _ID)] for _ in range(3))
        for batch in batches:
            ids.append(np.array(batch.column("id").to_pylist(), _ID))
            outdated.append(ids[-1][batch.column("orientation").is_null().to_numpy(zero_copy_only=False)])
            entries.append(_entries_of(batch, ids[-1]))
            if _ESTIMATED in batch.schema.names:
                mark = batch.column(_ESTIMATED).fill_null(False)
                estimated.append(ids[-1][mark.to_numpy(zero_copy_only=False)])
        self._entries = np.sort(np.concatenate(entries), order="key")
        self._keys = np.ascontiguousarray(self._entries["key"])
        self._ids = _CompactSet(np.concatenate(ids))
        self._outdated = _CompactSet(np.concatenate(outdated))
        self._estimated = _CompactSet(np.concatenate(estimated))
        self._new_keys = _CompactSet(np.empty(0, np.int64))

    @classmethod
    def of(cls, collection: "Collection") -> "FileIndex":
        """Return the index of a collection's files as they are now."""
        return cls(collection._store.scan(cls.columns(collection._store.schema)))

    @classmethod
    def columns(cls, stored: pa.Schema) -> list[str]:
        """Return the columns of a store that the index reads."""
        return [*cls.COLUMNS, *([_ESTIMATED] if _ESTIMATED in stored.names else [])]

    def __len__(self) -> int:
        """Return how many files there are."""
        return len(self._entries)

    def has_unchanged(self, key: str, size_bytes: int, stamp: int) -> bool:
        """Return whether a row of this version has this file, with this size and time stamp."""
        for entry in self._find(key):
            if (entry["size"], entry["stamp"]) == (size_bytes, stamp):
                return entry["id"] not in self._outdated
        return False

    def visit(self, key: str) -> list[FileEntry] | None:
        """Mark a file as visited; return its entries, none if it is new, or None if it was visited before.

        A crash between two writes can leave more than one entry.
        """
        entries = self._find(key)
        if len(entries) == 0:
            hashed = hash(key)
            if hashed in self._new_keys:
                return None
            self._new_keys.update([hashed])
            return []
        if entries["visited"].any():
            return None
        entries["visited"] = True
        return [FileEntry(e["id"].decode(), int(e["size"]), int(e["stamp"])) for e in entries]

    def is_unvisited(self, key: str) -> bool:
        """Return whether this file is in the index and was not visited."""
        entries = self._find(key)
        return len(entries) > 0 and not entries["visited"].any()

    def any_unvisited(self) -> bool:
        """Return whether any file of the index was not visited."""
        return not bool(self._entries["visited"].all())

    def has_id(self, id: str) -> bool:
        """Return whether a row has this id."""
        return id.encode() in self._ids

    def is_outdated(self, id: str) -> bool:
        """Return whether an earlier version wrote this row: without EXIF, by the decoder's first rules."""
        return id.encode() in self._outdated

    def is_estimated(self, id: str) -> bool:
        """Return whether the vector of this row is an estimate, made while the file was gone."""
        return id.encode() in self._estimated

    def has_vector(self, id: str) -> bool:
        """Return whether a row has this id, and a vector that the model computed."""
        return self.has_id(id) and not self.is_estimated(id)

    def add_ids(self, ids: Iterable[str]) -> None:
        """Add rows that are in the store now."""
        self._ids.update(id.encode() for id in ids)

    def _find(self, key: str) -> NDArray[np.void]:
        hashed = hash(key)
        left = np.searchsorted(self._keys, hashed, "left")
        return self._entries[left : np.searchsorted(self._keys, hashed, "right")]


def _entries_of(batch: pa.RecordBatch, ids: NDArray[np.bytes_]) -> NDArray[np.void]:
    keys, stamps = batch.column("keys"), batch.column("stamps")
    rows = np.repeat(np.arange(len(batch)), keys.value_lengths().to_numpy(zero_copy_only=False))
    entries = np.zeros(len(rows), _ENTRY)
    entries["key"] = [hash(key) for key in keys.flatten().to_pylist()]
    entries["stamp"] = stamps.flatten().to_numpy(zero_copy_only=False)
    entries["size"] = batch.column("size_bytes").to_numpy(zero_copy_only=False)[rows]
    entries["id"] = ids[rows]
    return entries
