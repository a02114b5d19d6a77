"""Neighbors by PyTorch are those of all products; here on its processor."""

import numpy as np
import pytest

from nearsight.estimators.neighbors import (
    euclidean_neighbors,
    nearest_neighbors,
    search,
    torch_products,
    unit_length,
)


@pytest.fixture
def on_torch(monkeypatch):
    """Let searches beyond `exact_rows` go to PyTorch's processor, in several blocks and shards."""
    pytest.importorskip("torch")
    monkeypatch.setattr(search, "accelerator", lambda: "cpu")
    monkeypatch.setattr(torch_products, "_QUERY_ROWS", 64)
    monkeypatch.setattr(torch_products, "_REFERENCE_ROWS", 100)
    monkeypatch.setattr(torch_products, "_rows_on", lambda device, references: 300)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("least", [-np.inf, 0.35])
@pytest.mark.parametrize("k", [1, 7, 150])
def test_all_nearest_are_found(on_torch, dtype, least, k):
    rng = np.random.default_rng(0)
    X = unit_length(rng.standard_normal((730, 12)).astype(dtype))
    # Some queries are references themselves, some are not.
    queries, own = X[::3], np.where(np.arange(244) % 2, np.arange(0, 730, 3), -1)
    counted = []
    rows, similarities = nearest_neighbors(
        queries, X, k, own=own, min_similarity=least, exact_rows=10, progress=counted.append
    )
    expected = nearest_neighbors(queries, X, k, own=own, min_similarity=least, exact_rows=1000)
    np.testing.assert_allclose(similarities, expected[1], atol=2e-6)
    # Random vectors have no ties, but rounding may exchange neighbors that are nearly equal.
    same = rows == expected[0]
    assert same.mean() > 0.999
    assert sum(counted) == len(queries)
    assert rows.dtype == np.int64
    assert similarities.dtype == dtype


def test_distances(on_torch):
    X = np.random.default_rng(1).standard_normal((500, 6)).astype(np.float32) * 3 + 10
    distances, rows = euclidean_neighbors(X, 5, exact_rows=10)
    expected = euclidean_neighbors(X, 5, exact_rows=1000)
    np.testing.assert_allclose(distances, expected[0], rtol=1e-3)
    assert (rows == expected[1]).mean() > 0.99


def test_without_a_driver_pytorch_is_not_imported(monkeypatch):
    monkeypatch.setattr(torch_products.Path, "exists", lambda path: False)
    monkeypatch.setattr(torch_products, "find_spec", lambda name: pytest.fail("it was looked for"))
    torch_products.accelerator.cache_clear()
    assert torch_products.accelerator() is None
    torch_products.accelerator.cache_clear()
