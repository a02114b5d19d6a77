import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from nearsight.estimators.neighbors import (
    euclidean_neighbors,
    highest,
    nearest_neighbors,
    similarity_blocks,
    unit_length,
)


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
        rows, similarities = nearest_neighbors(queries, references, k, own=own, block_rows=7)
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
