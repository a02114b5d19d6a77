"""When housekeeping is due: pure rules, without any engine.

The figures behind them are measured by ``benchmarks/search.py`` and told in docs/architecture.md.
"""

from collections.abc import Sequence

# Below this, scanning every vector takes tens of milliseconds and is exact: no index is used.
MIN_INDEXED_ROWS = 50_000
# Looking up ids gets an index earlier, because building that one takes milliseconds.
MIN_KEYED_ROWS = 10_000
# A fragment of this many rows costs a search nothing worth saving; smaller ones are merged by fours,
# so every row is rewritten at most once per power of four and at most three of each size remain.
_FANOUT = 4
LARGE_FRAGMENT_ROWS = _FANOUT**4
# Old versions of the table are dropped when they hold this much, and at least half of what is live,
# so that the bytes rewritten stay in proportion to the bytes written.
_MIN_GARBAGE_BYTES = 64 * 2**20
MIN_VERSIONS = 100
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
    >>> n_fragments_to_merge([5000, 16, 4, 4, 4, 1, 1, 1, 1])
    7
    """
    due = before = carried = 0
    bound = _FANOUT
    while bound <= LARGE_FRAGMENT_ROWS:
        trailing = 0
        for size in reversed(sizes):
            if size >= bound:
                break
            trailing += 1
        if trailing - before + carried >= _FANOUT:
            due, carried = trailing, 1
        else:
            carried = 0
        before, bound = trailing, bound * _FANOUT
    return due


def is_vector_index_due(n_rows: int, n_unindexed: int, *, growth: float) -> bool:
    """Tell whether to build the index anew: it is large enough, and has grown by the share `growth`."""
    return n_rows >= MIN_INDEXED_ROWS and n_unindexed >= max(10_000, growth * (n_rows - n_unindexed))


def is_key_index_due(n_rows: int, n_unindexed: int) -> bool:
    """Tell whether to build the index of ids anew."""
    return n_rows >= MIN_KEYED_ROWS and n_unindexed >= max(MIN_KEYED_ROWS // 2, 0.25 * (n_rows - n_unindexed))


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
