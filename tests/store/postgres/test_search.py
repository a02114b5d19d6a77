import pytest

from nearsight.store.postgres.indexes import VectorIndex
from nearsight.store.postgres.search import search_settings


@pytest.mark.parametrize(
    ("n_rows", "k", "ef"),
    [(-1, 10, 400), (100_000, 10, 400), (1_000_000, 10, 800), (30_000_000, 10, 1000), (100_000, 100, 800)],
)
def test_a_walk_keeps_twice_as_many_candidates_of_ten_times_the_rows(n_rows, k, ef):
    settings = search_settings(VectorIndex("hnsw", 512, False, n_rows=n_rows), k)
    assert settings["hnsw.ef_search"] == str(ef)
