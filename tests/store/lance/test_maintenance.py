"""The rules of maintenance, simulated over long lives of collections."""

from functools import partial

import numpy as np
import pytest

from nearsight.store.lance import maintenance


@pytest.mark.parametrize("batch", [1, 2, 7, 64, 100, 255, 256, 1000])
def test_fragments_stay_few_and_rows_are_seldom_rewritten(batch):
    sizes, n_rewritten, n_appends = [100_000], 0, 3000
    for _ in range(n_appends):
        sizes.append(batch)
        n_due = maintenance.n_fragments_to_merge(sizes)
        if n_due:
            n_rewritten += sum(sizes[-n_due:])
            sizes[-n_due:] = [sum(sizes[-n_due:])]
        small = [size for size in sizes if size < maintenance.LARGE_FRAGMENT_ROWS]
        assert len(small) <= 7
        assert sum(small) <= 4 * maintenance.LARGE_FRAGMENT_ROWS
    assert sum(sizes) == 100_000 + batch * n_appends
    assert n_rewritten <= 7 * batch * n_appends
    assert batch < maintenance.LARGE_FRAGMENT_ROWS or n_rewritten == 0


def test_mixed_batches_lose_no_rows():
    sizes = []
    for number in range(2000):
        sizes.append(1 + (number * 37) % 300)
        n_due = maintenance.n_fragments_to_merge(sizes)
        if n_due:
            sizes[-n_due:] = [sum(sizes[-n_due:])]
        trailing = 0
        while trailing < len(sizes) and sizes[-1 - trailing] < maintenance.LARGE_FRAGMENT_ROWS:
            trailing += 1
        assert trailing <= 7
    assert sum(sizes) == sum(1 + (number * 37) % 300 for number in range(2000))


def test_nothing_to_merge():
    assert maintenance.n_fragments_to_merge([]) == 0
    assert maintenance.n_fragments_to_merge([1]) == 0
    assert maintenance.n_fragments_to_merge([256, 256, 256, 256, 256]) == 0


def test_indexes_are_rebuilt_in_proportion_to_growth():
    n_indexed = n_built = 0
    for n_rows in range(0, 1_000_000, 1000):
        if maintenance.is_vector_index_due(n_rows, n_rows - n_indexed, growth=0.25):
            n_built += n_rows
            n_indexed = n_rows
        assert n_rows < maintenance.MIN_INDEXED_ROWS or n_rows - n_indexed <= 10_000 + 0.25 * n_rows
    assert n_built <= 6 * 1_000_000
    assert not maintenance.is_vector_index_due(
        maintenance.MIN_INDEXED_ROWS - 1, maintenance.MIN_INDEXED_ROWS - 1, growth=0.25
    )


def test_cleanup_is_worth_its_cost():
    mb = 2**20
    assert not maintenance.is_cleanup_due(n_versions=99, live_bytes=mb, disk_bytes=500 * mb)
    assert not maintenance.is_cleanup_due(n_versions=150, live_bytes=mb, disk_bytes=60 * mb)
    assert maintenance.is_cleanup_due(n_versions=150, live_bytes=mb, disk_bytes=70 * mb)
    assert not maintenance.is_cleanup_due(n_versions=150, live_bytes=1000 * mb, disk_bytes=1400 * mb)
    assert maintenance.is_cleanup_due(n_versions=150, live_bytes=1000 * mb, disk_bytes=1600 * mb)
    assert maintenance.is_cleanup_due(n_versions=5000, live_bytes=mb, disk_bytes=2 * mb)
    assert maintenance.is_cleanup_due(n_versions=5000, live_bytes=5000 * mb, disk_bytes=5001 * mb)


def test_few_rows_move_and_many_are_overwritten_in_place():
    wide = {"row_bytes": 13_000, "updated_bytes": 50}
    assert not maintenance.is_update_in_place_cheaper(n_rows=100_000, n_updated=1, **wide)
    assert maintenance.is_update_in_place_cheaper(n_rows=100_000, n_updated=1000, **wide)
    assert maintenance.is_update_in_place_cheaper(n_rows=10**9, n_updated=100_000, **wide)


def test_sizes_of_the_last_fragments():
    assert maintenance.fragment_sizes(np.array([], np.uint64), is_cut=False) == []
    assert maintenance.fragment_sizes(np.array([7, 7, 3, 9, 9, 9], np.uint64), is_cut=False) == [2, 1, 3]
    assert maintenance.fragment_sizes(np.array([7, 7, 3], np.uint64), is_cut=True) == [
        maintenance.LARGE_FRAGMENT_ROWS,
        1,
    ]


def test_compact_builds_indexes_for_a_few_thousand_rows():
    is_due = partial(maintenance.is_vector_index_due, growth=0)
    assert is_due(60_000, 60_000)
    for n_indexed, least in ((60_000, 2_048), (200_000, 4_000), (10_000_000, 8_192)):
        assert not is_due(n_indexed + least - 1, least - 1)
        assert is_due(n_indexed + least, least)
    assert maintenance.is_key_index_due(60_000, 60, growth=0)
    assert not maintenance.is_key_index_due(60_000, 59, growth=0)


def test_compaction_is_for_large_tables_of_many_small_fragments():
    due = {"n_rows": 100_000, "n_fragments": 100, "full_rows": 65_536}
    assert maintenance.is_compaction_due(**due)
    for other in ({"n_rows": 20_000}, {"n_fragments": 20}, {"n_rows": 65_536 * 90}):
        assert not maintenance.is_compaction_due(**due | other)


@pytest.mark.parametrize("n_added", [1, 100, 512, 5_000, 70_000])
@pytest.mark.parametrize("full_rows", [8_192, 65_536])
def test_compaction_again_and_again_rewrites_a_row_twice_and_leaves_few_fragments(n_added, full_rows):
    sizes, n_rewritten, n_total = [], 0, 0
    for _ in range(300):
        sizes += [512] * (n_added // 512) + [n_added % 512] * (n_added % 512 > 0)
        n_total += n_added
        before = list(sizes)
        groups = maintenance.rows_to_compact(sizes, full_rows)
        if groups:
            start = groups[0][0]
            ends = np.cumsum(sizes)
            assert start in [0, *ends.tolist()], "a fragment is cut in two"
            assert [a for a, _ in groups[1:]] == [b for _, b in groups[:-1]]
            assert groups[-1][1] == n_total
            sizes = [size for size, end in zip(sizes, ends, strict=True) if end <= start]
            sizes += [b - a for a, b in groups]
            n_rewritten += n_total - start
        assert sum(sizes) == n_total
        assert [size for size in sizes if size >= full_rows] == [full_rows] * (sizes.count(full_rows))
        assert sizes[: before.count(full_rows)] == [full_rows] * before.count(full_rows), "a full one moved"
        assert len(sizes) <= n_total // full_rows + 15 + 15 + 7
        assert maintenance.rows_to_compact(sizes, full_rows) == [], "a second call has nothing to do"
    # A level twice at most, and single rows are merged by fours before that.
    assert n_rewritten <= (2 if n_added >= 256 else 9) * n_total


def test_all_that_is_new_is_rewritten_once():
    sizes = [512] * 2000
    groups = maintenance.rows_to_compact(sizes, 65_536)
    assert sum(b - a for a, b in groups) == 512 * 2000
    assert len(groups) == 16


def test_fragments_of_deleted_rows():
    assert not maintenance.is_sparse(1000, 0)
    assert not maintenance.is_sparse(1000, 249)
    assert maintenance.is_sparse(1000, 250)
    assert maintenance.is_sparse(3, 1)
