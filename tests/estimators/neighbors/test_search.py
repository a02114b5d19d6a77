import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from nearsight.estimators.neighbors import (
    choose_search,
    euclidean_neighbors,
    highest,
    nearest_neighbors,
    partition,
    similarity_blocks,
    unit_length,
)
from nearsight.estimators.neighbors.sketches import Sketches


def vectors(n, d=8, *, seed=0, dtype=np.float32):
    return unit_length(np.random.default_rng(seed).normal(size=(n, d)).astype(dtype))


class TestUnitLength:
    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [("float32", "float32"), ("float64", "float64"), ("float16", "float32"), ("int8", "float32")],
    )
    def test_every_row_has_length_one_and_zeros_stay(self, dtype, expected):
        X = (10 * np.random.default_rng(0).normal(size=(20, 5))).astype(dtype)
        X[3] = 0
        scaled = unit_length(X)
        assert scaled.dtype == expected
        for row, original in zip(scaled, X.astype(float), strict=True):
            length = sum(x * x for x in original) ** 0.5
            np.testing.assert_allclose(row, original / length if length else 0 * original, rtol=1e-6)

    def test_the_input_is_not_changed(self):
        X = np.full((2, 2), 3.0)
        unit_length(X)
        assert (X == 3).all()

    def test_without_copy_unit_vectors_come_back_themselves(self):
        X = vectors(5)
        assert unit_length(X, copy=False) is X
        assert unit_length(X) is not X
        longer = 2 * X
        np.testing.assert_allclose(unit_length(longer, copy=False), X, rtol=1e-6)

    def test_no_rows(self):
        assert unit_length(np.empty((0, 4), np.float32)).shape == (0, 4)


class TestSimilarityBlocks:
    @pytest.mark.parametrize("block_rows", [None, 1, 3, 100])
    def test_blocks_make_up_the_whole_product(self, block_rows):
        queries, references = vectors(10), vectors(7, seed=1)
        whole = np.full((10, 7), np.nan)
        for rows, similarities in similarity_blocks(queries, references, block_rows=block_rows):
            whole[rows] = similarities
        np.testing.assert_allclose(whole, queries @ references.T, atol=1e-6)

    def test_a_block_of_very_many_references_has_few_queries(self):
        queries, references = np.ones((5, 1), np.float32), np.ones((6_000_000, 1), np.float32)
        assert [rows.stop - rows.start for rows, _ in similarity_blocks(queries, references)] == [2, 2, 1]

    def test_own_similarities_are_minus_infinity(self):
        queries = vectors(4)
        ((_, similarities),) = similarity_blocks(queries, queries[:3], own=np.array([2, -1, 0, -1]))
        expected = np.zeros((4, 3), bool)
        expected[0, 2] = expected[2, 0] = True
        np.testing.assert_array_equal(np.isneginf(similarities), expected)

    def test_progress_counts_the_rows_of_each_block(self):
        calls = []
        list(similarity_blocks(vectors(5), vectors(2), block_rows=2, progress=calls.append))
        assert calls == [2, 2, 1]


def naive_neighbors(queries, references, k, own):
    """The k most similar references of each query, by a loop."""
    neighbors = []
    for i, query in enumerate(queries):
        candidates = [
            (-float(query @ reference), j)
            for j, reference in enumerate(references)
            if own is None or own[i] != j
        ]
        neighbors.append([j for _, j in sorted(candidates)][:k])
    return neighbors


class TestNearestNeighbors:
    @given(st.integers(1, 30), st.integers(1, 20), st.integers(1, 25), st.integers(0, 99), st.booleans())
    def test_like_a_naive_loop(self, n, m, k, seed, leave_out_own):
        queries, references = vectors(n, seed=seed), vectors(m, seed=seed + 1)
        own = np.arange(n) % (m + 1) - 1 if leave_out_own else None
        rows, similarities = nearest_neighbors(queries, references, k, own=own)
        assert rows.shape == similarities.shape == (n, min(k, m))
        for i, expected in enumerate(naive_neighbors(queries, references, k, own)):
            assert rows[i].tolist() == expected + [-1] * (min(k, m) - len(expected))
            np.testing.assert_allclose(
                similarities[i, : len(expected)], references[expected] @ queries[i], atol=1e-6
            )
            assert np.isneginf(similarities[i, len(expected) :]).all()

    def test_like_scikit_learn(self):
        queries, references = vectors(200, 16), vectors(500, 16, seed=1)
        index = NearestNeighbors(n_neighbors=9, metric="cosine", algorithm="brute").fit(references)
        distances, expected = index.kneighbors(queries)
        rows, similarities = nearest_neighbors(queries, references, 9)
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_allclose(1 - similarities, distances, atol=1e-6)

    def test_of_equal_references_the_lower_row_comes_first(self):
        references = vectors(3)[[0, 1, 0, 1, 0, 2]]
        rows, _ = nearest_neighbors(references[:1], references, 3)
        assert rows.tolist() == [[0, 2, 4]]

    def test_without_references_there_is_no_neighbor(self):
        rows, similarities = nearest_neighbors(vectors(3), vectors(3)[:0], 5)
        assert rows.shape == similarities.shape == (3, 0)

    def test_without_queries(self):
        assert nearest_neighbors(vectors(3)[:0], vectors(3), 2)[0].shape == (0, 2)


def test_highest_are_sorted():
    columns, values = highest(np.array([[1.0, 3.0, 2.0, 3.0]]), 3)
    assert columns.tolist() == [[1, 3, 2]]
    assert values.tolist() == [[3, 3, 2]]


class TestEuclideanNeighbors:
    def test_like_a_naive_loop(self):
        X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
        distances, rows = euclidean_neighbors(X, 4)
        for i, point in enumerate(X):
            gaps = np.linalg.norm(X - point, axis=1)
            gaps[i] = np.inf
            np.testing.assert_array_equal(rows[i], np.argsort(gaps)[:4])
            np.testing.assert_allclose(distances[i], np.sort(gaps)[:4], rtol=1e-5)

    def test_a_row_is_not_its_own_neighbor_even_among_duplicates(self):
        distances, rows = euclidean_neighbors(np.ones((9, 2), np.float32), 2)
        assert (rows != np.arange(9)[:, None]).all()
        assert (distances == 0).all()

    def test_progress_counts_the_rows_of_each_block(self):
        calls = []
        euclidean_neighbors(vectors(5000, 2), 3, progress=calls.append)
        assert calls == [4096, 904]


def clustered(n, d=16, *, n_clusters=12, seed=0):
    rng = np.random.default_rng(seed)
    return unit_length(
        (rng.normal(size=(n_clusters, d))[rng.integers(n_clusters, size=n)] + 0.4 * rng.normal(size=(n, d)))
        .astype(np.float32)
    )  # fmt: skip


def recall_of(similarities, truth):
    """The share of true neighbors found; equally similar ones are equally right."""
    return np.mean((similarities >= truth[:, -1:] - 1e-5).sum(axis=1)) / truth.shape[1]


class TestByParts:
    """Searches that are not exact, with brute force as the oracle."""

    @pytest.mark.parametrize("seed", range(2))
    @pytest.mark.parametrize("data", [clustered, lambda n, seed: vectors(n, 24, seed=seed)])
    def test_finds_what_an_exact_search_finds(self, data, seed):
        X = data(1500, seed=seed)
        own = np.arange(len(X))
        _, truth = nearest_neighbors(X, X, 10, own=own, exact_rows=10**6)
        rows, similarities = nearest_neighbors(X, X, 10, own=own, exact_rows=100)
        assert recall_of(similarities, truth) >= 0.985
        assert (rows != own[:, None]).all()
        np.testing.assert_allclose(
            similarities, np.einsum("nd,nkd->nk", X, X[rows]), atol=1e-5
        )  # fmt: skip
        assert all(len(set(row)) == 10 for row in rows.tolist())

    def test_other_queries_than_references(self):
        X = clustered(5000)
        queries, references = X[:2000], X[1000:]
        own = np.where(np.arange(2000) >= 1000, np.arange(2000) - 1000, -1)
        _, truth = nearest_neighbors(queries, references, 7, own=own, exact_rows=10**6)
        rows, similarities = nearest_neighbors(queries, references, 7, own=own, exact_rows=100)
        assert recall_of(similarities, truth) >= 0.985
        assert (rows != own[:, None]).all()

    @settings(max_examples=12)
    @given(
        st.integers(2, 120), st.integers(1, 60), st.integers(1, 6), st.integers(0, 99), st.floats(0, 1),
        st.integers(0, 5),
    )  # fmt: skip
    def test_ties_duplicates_and_zeros(self, n, k, n_different, seed, duplicated, n_zeros):
        # So few queries all measure the recall; so it is 0.99 of all.
        rng = np.random.default_rng(seed)
        X = vectors(n, 4, seed=seed)
        is_copy = rng.random(n) < duplicated
        X[is_copy] = X[rng.integers(n_different, size=n) % n][is_copy]
        X[:n_zeros] = 0
        own = np.arange(n)
        expected = X @ X.T
        expected[own, own] = -np.inf
        truth = -np.sort(-expected, axis=1)[:, :k]
        for exact_rows in (10**6, 1):
            rows, similarities = nearest_neighbors(X, X, k, own=own, exact_rows=exact_rows)
            assert rows.shape == similarities.shape == (n, min(k, n))
            # A missed neighbor moves those after it up.
            last = np.where(np.isneginf(truth), np.inf, truth).min(axis=1, keepdims=True)
            n_true = (truth > -np.inf).sum()
            n_found = (similarities >= last - 1e-5).sum()
            assert n_true >= n_found >= (n_true if exact_rows > n else 0.985 * n_true)
            assert (rows != own[:, None]).all()
            np.testing.assert_array_equal(rows < 0, np.isneginf(similarities))
            for line in rows.tolist():
                found = [row for row in line if row >= 0]
                assert len(set(found)) == len(found)

    @pytest.mark.parametrize("exact_rows", [10**6, 100])
    def test_nothing_below_the_lowest_similarity(self, exact_rows):
        X = clustered(1000)
        own = np.arange(len(X))
        rows, similarities = nearest_neighbors(
            X, X, 10, own=own, min_similarity=0.95, exact_rows=exact_rows
        )  # fmt: skip
        products = X @ X.T
        products[own, own] = -np.inf
        n_expected = np.minimum((products >= 0.95).sum(axis=1), 10)
        assert (similarities[rows >= 0] >= 0.95).all()
        assert np.isneginf(similarities[rows < 0]).all()
        assert (rows >= 0).sum() >= 0.98 * n_expected.sum() > 100

    @pytest.mark.parametrize("noise", [0.2, 1.2])
    def test_long_vectors_are_compared_by_sketches_and_nothing_similar_is_lost(self, noise):
        # With little noise nearly all pairs are similar, and sketches are given up; with much, few are.
        rng = np.random.default_rng(0)
        centers = rng.normal(size=(100, 400))
        X = unit_length((centers[rng.integers(100, size=2000)] + noise * rng.normal(size=(2000, 400)))
                        .astype(np.float32))  # fmt: skip
        own = np.arange(len(X))
        _, truth = nearest_neighbors(X, X, 10, own=own, min_similarity=0.4, exact_rows=10**6)
        rows, similarities = nearest_neighbors(X, X, 10, own=own, min_similarity=0.4, exact_rows=100)
        assert np.count_nonzero(rows >= 0) >= 0.985 * np.count_nonzero(truth > -1) > 10_000
        products = np.where(rows < 0, -np.inf, np.einsum("nd,nkd->nk", X, X[rows]))
        np.testing.assert_allclose(similarities, products, atol=1e-5)

    def test_sketches_overestimate_similarities_by_little(self):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(3000, 90)) @ rng.normal(size=(90, 400)) + 3 * rng.normal(size=(3000, 400))
        X = unit_length(X.astype(np.float32))
        short = Sketches.of(X, 0).sketch(X)
        surplus = (short @ short.T - X @ X.T)[np.triu_indices(len(X), 1)]
        assert np.mean(surplus < 0) < 0.003
        assert 0.02 < surplus.mean() < 0.2

    def test_where_sketches_rule_out_too_many_pairs_all_are_compared(self, monkeypatch):
        X = clustered(600, 400)
        _, truth = nearest_neighbors(X, X, 5, own=np.arange(600), min_similarity=0.8, exact_rows=10**6)
        monkeypatch.setattr(Sketches, "sketch", lambda self, X: np.zeros((len(X), 192), np.float32))
        _, similarities = nearest_neighbors(X, X, 5, own=np.arange(600), min_similarity=0.8, exact_rows=100)
        np.testing.assert_allclose(similarities, truth, atol=1e-5)
        assert (truth > 0.8).any()

    def test_short_and_few_vectors_have_no_sketches(self):
        assert Sketches.of(vectors(100, 300), 0) is None
        assert Sketches.of(vectors(50, 400), 0) is None

    def test_the_number_of_threads_makes_no_difference(self):
        X = np.concatenate([clustered(1500), np.repeat(clustered(3), 400, axis=0)])
        own = np.arange(len(X))
        one, three = (
            nearest_neighbors(X, X, 10, own=own, exact_rows=100, n_threads=n_threads) for n_threads in (1, 3)
        )
        np.testing.assert_array_equal(one[0], three[0])
        np.testing.assert_array_equal(one[1], three[1])

    def test_rows_that_are_all_the_same_are_compared_in_small_blocks(self, monkeypatch):
        # Without splitting, one part would hold all rows, and the costs would be quadratic.
        sizes = []
        original = partition.Parts.__init__

        def recorded(self, *arguments):
            original(self, *arguments)
            sizes.extend(map(len, self.rows))

        monkeypatch.setattr(partition.Parts, "__init__", recorded)
        X = np.ones((3000, 4), np.float32) / 2
        _, similarities = nearest_neighbors(X, X, 5, own=np.arange(3000), exact_rows=100)
        assert (similarities == 1).all()
        assert sum(sizes) == 3000
        assert max(sizes) <= 4 * 3000 / (2 * 3000**0.5) + 1

    @pytest.mark.parametrize("data", [clustered, vectors, lambda n: np.eye(n, dtype=np.float32)])
    def test_progress_comes_in_steps_to_the_number_of_queries(self, data):
        calls = []
        nearest_neighbors(
            data(1000), data(1000), 5, own=np.arange(1000), exact_rows=100, progress=calls.append
        )
        assert sum(calls) == 1000
        assert min(calls) > 0

    def test_euclidean_neighbors(self):
        X = clustered(3000) * np.random.default_rng(0).uniform(0.5, 2, (3000, 1)).astype(np.float32) + 5
        X[100:120] = X[100]
        distances, rows = euclidean_neighbors(X, 8, exact_rows=100)
        expected, _ = euclidean_neighbors(X, 8)
        assert np.mean(distances <= expected + 1e-4) >= 0.985
        np.testing.assert_allclose(distances, np.linalg.norm(X[:, None] - X[rows], axis=2), atol=1e-4)
        assert (rows != np.arange(3000)[:, None]).all()
        assert (np.diff(distances) >= 0).all()
        assert (distances[100:120] == 0).all()


def test_few_products_are_computed_exactly():
    assert choose_search(20_000, 20_000) == choose_search(0, 10) == choose_search(100, 4_000_000) == "exact"
    assert choose_search(20_001, 20_000) == choose_search(10_000_000, 10_000_000) == "parts"
    assert choose_search(60, 60, exact_rows=50) == "parts"


def test_of_equal_numbers_at_the_end_the_lowest_columns_are_returned():
    columns, values = highest(np.array([[0.0, 1, 0, 2, 0, 0], [5, 5, 5, 5, 5, 5], [1, 2, 3, 4, 5, 6.0]]), 4)
    assert columns.tolist() == [[3, 1, 0, 2], [0, 1, 2, 3], [5, 4, 3, 2]]
    assert values.tolist() == [[2, 1, 0, 0], [5, 5, 5, 5], [6, 5, 4, 3]]


def test_lengths_are_measured_without_squares_of_all_numbers():
    X = unit_length(np.random.default_rng(0).standard_normal((30_000, 512), np.float32))
    tracemalloc.start()
    try:
        assert unit_length(X, copy=False) is X
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes / 2
