"""Rules that say when maintenance is due, without any engine.

The numbers come from ``benchmarks/search.py``; see docs/storage.md.
"""

from collections.abc import Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

# With fewer rows, comparing with every vector takes tens of milliseconds and is exact: no index is used.
MIN_INDEXED_ROWS = 50_000
# Rows that an index may lack after `compact`: this share of the others, within these bounds.
_SHARE_TO_INDEX, _MIN_ROWS_TO_INDEX, _MAX_COMPARED_ROWS = 0.02, 2_048, 8_192
#: A process that has written this share of the rows leaves as few out of the index as `compact` does: to
#: embed them took many times as long, and to compare a fifth of a million takes each search 0.2 s.
SHARE_WRITTEN = 0.2
# The index of ids is built earlier, because that takes milliseconds.
MIN_KEYED_ROWS = 10_000
# A search opens every fragment that no index covers. Fragments are merged by fours: first those below the
# small size, then those below the large one. So at most seven small ones remain, and a row is rewritten about
# six times.
_FRAGMENTS_PER_MERGE = 4
_SMALL_FRAGMENT_ROWS = 16
LARGE_FRAGMENT_ROWS = 256
# Bytes of the binary columns that a write of few rows keeps in the rows: they are rewritten twice.
_MAX_BYTES_IN_ROWS = 2**20
# A look whether maintenance is due costs as much as a quarter of a write. Fewer writes change little.
WRITES_PER_LOOK, ROWS_PER_LOOK = 16, LARGE_FRAGMENT_ROWS
# Old versions of the table are deleted when they hold this much, and at least half of the current one.
# Looking for them takes milliseconds.
_MIN_OLD_BYTES = 64 * 2**20
MIN_VERSIONS = 100
# An indexed search reads candidates from the whole table, twice as fast from a few fragments as from many.
_MIN_FRAGMENTS_TO_COMPACT = 64
# Compaction has two levels: fragments that together reach the first become one; those that reach the second
# become fragments of exactly that many rows, which are never merged again. A row moves at most twice.
# Where rows are wide, a full fragment has fewer, since merging takes five times its size in memory.
_MIDDLE_FRAGMENT_ROWS = 4_096
FULL_FRAGMENT_ROWS = 65_536
_FULL_FRAGMENT_BYTES = 192 * 2**20
# A fragment of which this much is deleted is rewritten without it.
_SPARSE_SHARE = 0.25
# Thousands of versions slow down opening.
_MAX_VERSIONS = 2_000


def n_fragments_to_merge(sizes: Sequence[int]) -> int:
    """Return how many of the last fragments to merge into one; 0 for none.

    Parameters
    ----------
    sizes : sequence of int
        Rows of the fragments, oldest first.

    Examples
    --------
    >>> n_fragments_to_merge([5000, 1, 1, 1])
    0
    >>> n_fragments_to_merge([5000, 1, 1, 1, 1])
    4
    >>> n_fragments_to_merge([5000, 20, 17, 16, 13, 1, 1, 1])
    7
    """
    n_due = n_smaller = n_merged = 0
    for bound in (_SMALL_FRAGMENT_ROWS, LARGE_FRAGMENT_ROWS):
        n_trailing = next((n for n, size in enumerate(reversed(sizes)) if size >= bound), len(sizes))
        if n_trailing - n_smaller + n_merged >= _FRAGMENTS_PER_MERGE:
            n_due, n_merged = n_trailing, 1
        n_smaller = n_trailing
    return n_due


def is_binary_kept_in_rows(n_rows: int, n_bytes: int) -> bool:
    """Return whether a write keeps its binary columns in the rows until they are merged.

    A second transaction for another table doubles what a write of one row costs.
    """
    return n_rows < _SMALL_FRAGMENT_ROWS and n_bytes <= _MAX_BYTES_IN_ROWS


def full_fragment_rows(row_bytes: float) -> int:
    """Return the rows of a full fragment.

    Examples
    --------
    >>> full_fragment_rows(2_500), full_fragment_rows(5_500), full_fragment_rows(1_000_000)
    (65536, 32768, 4096)
    """
    n_rows = int(_FULL_FRAGMENT_BYTES / row_bytes) // _MIDDLE_FRAGMENT_ROWS * _MIDDLE_FRAGMENT_ROWS
    return min(FULL_FRAGMENT_ROWS, max(_MIDDLE_FRAGMENT_ROWS, n_rows))


def rows_to_compact(sizes: Sequence[int], full_rows: int) -> list[tuple[int, int]]:
    """Return which rows to rewrite as one fragment each: the first row, and the row after the last.

    Parameters
    ----------
    sizes : sequence of int
        Rows of all fragments, in the order of a scan.
    full_rows : int
        Rows of a full fragment.

    Examples
    --------
    >>> rows_to_compact([65536, 512, 512], 65536)
    []
    >>> rows_to_compact([65536, 4096, *[512] * 10], 65536)
    [(69632, 74752)]
    >>> rows_to_compact([65536, *[512] * 200], 65536)
    [(65536, 131072), (131072, 167936)]
    """
    n_rows = sum(sizes)
    for bound in (full_rows, _MIDDLE_FRAGMENT_ROWS):
        trailing = list(takewhile(bound.__gt__, reversed(sizes)))
        if len(trailing) > 1 and sum(trailing) >= bound:
            starts = range(n_rows - sum(trailing), n_rows, full_rows)
            return [(start, min(start + full_rows, n_rows)) for start in starts]
    n_due = n_fragments_to_merge(sizes)
    return [(n_rows - sum(sizes[-n_due:]), n_rows)] if n_due else []


def is_sparse(n_rows: int, n_deleted: int) -> bool:
    """Return whether so much of a fragment is deleted that it is rewritten."""
    return n_deleted >= max(1, _SPARSE_SHARE * n_rows)


def fragment_sizes(fragments: NDArray[np.integer], *, is_cut: bool) -> list[int]:
    """Return the sizes of the last fragments, oldest first.

    Parameters
    ----------
    fragments : ndarray of int, shape (n,)
        The fragment of each of the last rows.
    is_cut : bool
        Whether there are rows before these. The first fragment then counts as large, because only its end
        may be among the rows.
    """
    if not len(fragments):
        return []
    ends = np.flatnonzero(np.diff(fragments)) + 1
    sizes: list[int] = np.diff([0, *ends, len(fragments)]).tolist()
    return [LARGE_FRAGMENT_ROWS, *sizes[1:]] if is_cut else sizes


def is_vector_index_due(n_rows: int, n_unindexed: int, *, growth: float) -> bool:
    """Return whether to build the vector index: there are enough rows, and those without it are many.

    `growth` is the share of unindexed to indexed rows from which on it is built. With 0, as `compact` asks
    for, it is built for a few thousand: building takes 0.2 ms for each row of the table, and LanceDB adds
    rows to an index only together with its compaction without bound. Fewer rows are compared one by one,
    exactly, in 1 ms for a thousand.
    """
    n_indexed = n_rows - n_unindexed
    if growth:
        least = max(10_000, growth * n_indexed)
    else:
        least = min(_MAX_COMPARED_ROWS, max(_MIN_ROWS_TO_INDEX, _SHARE_TO_INDEX * n_indexed))
    return n_rows >= MIN_INDEXED_ROWS and n_unindexed >= least


def is_key_index_due(n_rows: int, n_unindexed: int, *, growth: float) -> bool:
    """Return whether to build the index of ids; it is built so fast that a few unindexed rows are enough."""
    least = max(1000, 0.02 * (n_rows - n_unindexed)) if growth else max(1, n_rows // 1000)
    return n_rows >= MIN_KEYED_ROWS and n_unindexed >= least


def is_key_index_useful(n_rows: int, n_unindexed: int) -> bool:
    """Return whether to look up the ids of a merge in the index.

    With the index, the engine reads unindexed rows in full, thumbnails included; without it, the ids of all
    rows. A full row takes 150 times as long (measured).
    """
    return n_unindexed <= n_rows / 200


def is_compaction_due(*, n_rows: int, n_fragments: int, full_rows: int) -> bool:
    """Return whether to merge fragments: there are many besides the full ones."""
    return n_rows >= MIN_INDEXED_ROWS and n_fragments - n_rows // full_rows >= _MIN_FRAGMENTS_TO_COMPACT


def is_cleanup_due(*, n_versions: int, live_bytes: int, disk_bytes: int) -> bool:
    """Return whether deleting old versions frees enough."""
    if n_versions >= _MAX_VERSIONS:
        return True
    return n_versions >= MIN_VERSIONS and disk_bytes - live_bytes >= max(_MIN_OLD_BYTES, live_bytes // 2)


def is_update_in_place_cheaper(
    *, n_rows: int, n_updated: int, row_bytes: float, updated_bytes: float
) -> bool:
    """Return whether to overwrite columns in place instead of moving whole rows to a new fragment.

    In place, the engine rewrites those columns in every fragment that has such a row, at worst for all rows.
    Moving rows needs them read first.

    Parameters
    ----------
    n_rows, n_updated : int
        Rows of the table, and rows to overwrite.
    row_bytes, updated_bytes : float
        Bytes of a whole row, and of the overwritten columns of a row.
    """
    if n_updated > 4 * LARGE_FRAGMENT_ROWS:  # more whole rows than should be in memory at once
        return True
    return updated_bytes * n_rows <= 3 * row_bytes * n_updated
