"""The rule of how a search is answered."""

import pytest

from nearsight.store.memory.plan import choose, n_candidates


@pytest.mark.parametrize(
    ("sizes", "options", "path"),
    [
        # All rows of a small store, and few rows of a large one, are compared.
        ((1_000, 1_000, 512, 10), {}, "exact"),
        ((100_000, 11_700, 512, 10), {}, "exact"),
        ((10**6, 11_700, 512, 10), {"has_graph": False}, "exact"),
        # More are left to the graph, as long as it need not return too many.
        ((100_000, 100_000, 512, 10), {}, "graph"),
        ((100_000, 12_000, 512, 10), {}, "graph"),
        ((10**7, 12_000, 512, 10), {}, "exact"),
        ((10**7, 200_000, 512, 1000), {}, "store"),
        # Without a graph, a large store is faster.
        ((10**6, 10**6, 512, 10), {"has_graph": False}, "store"),
        ((50_000, 50_000, 1280, 10), {"has_graph": False}, "exact"),
        # Among as few rows as are wanted, there is nothing to choose.
        ((10**7, 10, 4096, 10), {}, "exact"),
        # A thousand queries at once compare with fewer rows each.
        ((100_000, 10_000, 512, 10, 1000), {}, "graph"),
    ],
)
def test_paths(sizes, options, path):
    assert choose(*sizes, **options) == path


def test_candidates_grow_with_what_a_filter_leaves_out():
    assert n_candidates(1000, 1000, 10) == 30
    assert n_candidates(1000, 10, 10) == 3000
    assert n_candidates(1000, 0, 10) == 30_000
