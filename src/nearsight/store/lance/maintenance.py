"""When housekeeping is due: pure rules, without any engine.

The figures behind them are measured by ``benchmarks/search.py`` and told in docs/architecture.md.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Below this, scanning every vector takes tens of milliseconds and is exact: no index is used.
MIN_INDEXED_ROWS = 50_000
# Looking up ids gets an index earlier, because building that one takes milliseconds.
MIN_KEYED_ROWS = 10_000
# A search opens every fragment that no index covers. One of this many rows is worth that; smaller
# ones are merged by fours, first up to the lower bound, then up to the upper one. So at most seven
# small ones remain, and a row is rewritten about six times in its life.
_FANOUT = 4
_SMALL_FRAGMENT_ROWS = 16
LARGE_FRAGMENT_ROWS = 256
# Old versions of the table are dropped when they hold this much, and at least half of what is live,
# so that the bytes rewritten stay in proportion to the bytes written.
_MIN_GARBAGE_BYTES = 64 * 2**20
MIN_VERSIONS = 100
# An indexed search reads its candidates from all over the table: twice as fast from a few fragments
# as from hundreds. Rewriting a larger table than this takes too long to do it unasked.
_MANY_FRAGMENTS = 64
_MAX_REWRITTEN_BYTES = 4 * 2**30
# Very many versions slow down opening; a small collection then is rewritten whatever it gains.
_MANY_VERSIONS = 2_000
_SMALL_COLLECTION_BYTES = 2**30


def n_fragments_to_merge(sizes: Sequence[int]) -> int:
    """Return how many of the last fragments are to become one; 0 for none.

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
    due = before = carried = 0
    for bound in (_SMALL_FRAGMENT_ROWS, LARGE_FRAGMENT_ROWS):
        trailing = next((n for n, size in enumerate(reversed(sizes)) if size >= bound), len(sizes))
        if trailing - before + carried >= _FANOUT:
            due, carried = trailing, 1
        before = trailing
    return due


def fragment_sizes(fragments: NDArray[np.integer], *, is_cut: bool) -> list[int]:
    """Return the sizes of the last fragments, oldest first.

    Parameters
    ----------
    fragments : ndarray of int, shape (n,)
        The fragment of each of the last rows.
    is_cut : bool
        Whether there are rows before these. The first fragment then counts as a large one, for
        what is seen of it may be its end only.
    """
    if not len(fragments):
        return []
    ends = np.flatnonzero(np.diff(fragments)) + 1
    sizes: list[int] = np.diff([0, *ends, len(fragments)]).tolist()
    return [LARGE_FRAGMENT_ROWS, *sizes[1:]] if is_cut else sizes


def is_vector_index_due(n_rows: int, n_unindexed: int, *, growth: float) -> bool:
    """Tell whether to build the index anew: it pays, and lacks the share `growth` of what it holds.

    With a growth of 0 it is due as soon as it lacks a row.
    """
    least = max(10_000, growth * (n_rows - n_unindexed)) if growth else 1
    return n_rows >= MIN_INDEXED_ROWS and n_unindexed >= least


def is_key_index_due(n_rows: int, n_unindexed: int, *, growth: float) -> bool:
    """Tell whether to build the index of ids anew; it is built so quickly that little growth is enough."""
    least = max(1000, 0.02 * (n_rows - n_unindexed)) if growth else 1
    return n_rows >= MIN_KEYED_ROWS and n_unindexed >= least


def is_key_index_useful(n_rows: int, n_unindexed: int) -> bool:
    """Tell whether to look up the ids of a merge in the index.

    The engine then reads the rows that the index lacks in full, thumbnails and all; without the
    index it reads the ids of all rows. Measured, the former is 150 times as much per row.
    """
    return n_unindexed <= n_rows / 200


def is_compaction_due(*, n_rows: int, n_fragments: int, live_bytes: int) -> bool:
    """Tell whether to rewrite the fragments as few large ones."""
    return (
        n_rows >= MIN_INDEXED_ROWS and n_fragments >= _MANY_FRAGMENTS and live_bytes <= _MAX_REWRITTEN_BYTES
    )


def is_cleanup_due(*, n_versions: int, live_bytes: int, disk_bytes: int) -> bool:
    """Tell whether rewriting the table to drop old versions frees enough."""
    if n_versions >= _MANY_VERSIONS and live_bytes <= _SMALL_COLLECTION_BYTES:
        return True
    return n_versions >= MIN_VERSIONS and disk_bytes - live_bytes >= max(_MIN_GARBAGE_BYTES, live_bytes // 2)


def is_update_in_place_cheaper(
    *, n_rows: int, n_updated: int, row_bytes: float, updated_bytes: float
) -> bool:
    """Tell how to overwrite some columns of some rows.

    In place, the engine rewrites those columns of every fragment touched, at worst of all rows;
    otherwise it moves whole rows to a new fragment, which needs them read first.

    Parameters
    ----------
    n_rows, n_updated : int
        Rows of the table, and rows to be overwritten.
    row_bytes, updated_bytes : float
        Bytes of a whole row, and of the overwritten columns of a row.
    """
    if n_updated > 4 * LARGE_FRAGMENT_ROWS:  # more whole rows than should be in memory at once
        return True
    return updated_bytes * n_rows <= 3 * row_bytes * n_updated
