"""Which files a collection knows: some 100 bytes an image, whatever the length of its path."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# What a run adds is merged into a sorted array once there is this much of it, or an eighth of the array:
# a set takes four times the memory, and each merge reads everything.
_MERGE_AT_LEAST = 4096

# An id is 32 hex digits, kept as ASCII: numpy would strip the NULs that raw bytes may end in.
_ID = "S32"
_FILE = np.dtype([("key", "i8"), ("size", "i8"), ("stamp", "i8"), ("id", _ID), ("seen", "?")])


class Entry(NamedTuple):
    """One file of one row."""

    id: str
    size_bytes: int
    stamp: int


class _Growing:
    """Values that are only added to, in sorted arrays: a set that takes little more than its values."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._sorted = np.sort(values)
        self._fresh: set[Any] = set()

    def __contains__(self, value: Any) -> bool:
        # In this order: what another thread merges meanwhile is in the array before it leaves the set.
        if value in self._fresh:
            return True
        at = int(np.searchsorted(self._sorted, value))
        return at < len(self._sorted) and bool(self._sorted[at] == value)

    def update(self, values: Iterable[Any]) -> None:
        """Add values."""
        self._fresh.update(values)
        if len(self._fresh) >= max(_MERGE_AT_LEAST, len(self._sorted) // 8):
            self._sorted = np.union1d(self._sorted, np.array(list(self._fresh), self._sorted.dtype))
            # Replaced, not cleared: worker threads may be looking into it.
            self._fresh = set()


class Ledger:
    """Files by key, and the ids that have a row.

    Keys are held as 64-bit hashes. Two of a million files share one with a chance of 3e-8, and would
    have to agree in size and time stamp as well to be taken for one another.

    Parameters
    ----------
    batches : iterable of pyarrow.RecordBatch
        The columns ``id, keys, stamps, size_bytes`` of a store.
    """

    COLUMNS = ("id", "keys", "stamps", "size_bytes")

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        files, ids = [np.empty(0, _FILE)], [np.empty(0, _ID)]
        for batch in batches:
            ids.append(np.array(batch.column("id").to_pylist(), _ID))
            files.append(_files_of(batch, ids[-1]))
        self._files = np.sort(np.concatenate(files), order="key")
        self._keys = np.ascontiguousarray(self._files["key"])
        self._ids = _Growing(np.concatenate(ids))
        self._new_keys = _Growing(np.empty(0, np.int64))

    def visit(self, key: str) -> list[Entry] | None:
        """Return what is known of a file: nothing if it is new, None if this run met it before.

        More than one entry is what a crash between two writes can leave behind.
        """
        found = self._find(key)
        if len(found) == 0:
            hashed = hash(key)
            if hashed in self._new_keys:
                return None
            self._new_keys.update([hashed])
            return []
        if found["seen"].any():
            return None
        found["seen"] = True
        return [Entry(f["id"].decode(), int(f["size"]), int(f["stamp"])) for f in found]

    def is_unseen(self, key: str) -> bool:
        """Whether this file is known, and this run has not met it."""
        found = self._find(key)
        return len(found) > 0 and not found["seen"].any()

    def any_unseen(self) -> bool:
        """Whether there is a known file that this run has not met."""
        return not bool(self._files["seen"].all())

    def has_id(self, id: str) -> bool:
        """Whether a row holds this content."""
        return id.encode() in self._ids

    def add_ids(self, ids: Iterable[str]) -> None:
        """Note rows that are in the store now."""
        self._ids.update(id.encode() for id in ids)

    def _find(self, key: str) -> NDArray[np.void]:
        hashed = hash(key)
        left = np.searchsorted(self._keys, hashed, "left")
        return self._files[left : np.searchsorted(self._keys, hashed, "right")]


def _files_of(batch: pa.RecordBatch, ids: NDArray[np.bytes_]) -> NDArray[np.void]:
    keys, stamps = batch.column("keys"), batch.column("stamps")
    rows = np.repeat(np.arange(len(batch)), keys.value_lengths().to_numpy(zero_copy_only=False))
    files = np.zeros(len(rows), _FILE)
    files["key"] = [hash(key) for key in keys.flatten().to_pylist()]
    files["stamp"] = stamps.flatten().to_numpy(zero_copy_only=False)
    files["size"] = batch.column("size_bytes").to_numpy(zero_copy_only=False)[rows]
    files["id"] = ids[rows]
    return files
