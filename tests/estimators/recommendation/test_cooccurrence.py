"""Normalized co-occurrence against naive loops, and against the library `implicit`."""

import math

import numpy as np
import pytest
from scipy import sparse

from nearsight.errors import InvalidParameterError
from nearsight.estimators.recommendation.cooccurrence import as_baskets, association, regression


def baskets(n_baskets=40, n_items=15, share=0.25, seed=0):
    return (np.random.default_rng(seed).random((n_baskets, n_items)) < share).astype(np.float32)


def naive(held, normalization):
    n_baskets, n = held.shape
    bought, sizes = held.sum(axis=0), held.sum(axis=1)
    strength = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            for b in range(n_baskets):
                if i == j or not (held[b, i] and held[b, j]):
                    continue
                if normalization == "cosine":
                    strength[i, j] += 1 / math.sqrt(bought[i] * bought[j])
                elif normalization == "lift":
                    strength[i, j] += n_baskets / (bought[i] * bought[j])
                else:
                    idf = math.log(1 + (n - sizes[b] + 0.5) / (sizes[b] + 0.5))
                    one, other = (
                        idf * 2.2 / (1.2 * (0.25 + 0.75 * bought[x] / bought.mean()) + 1) for x in (i, j)
                    )
                    strength[i, j] += one * other
    return strength


@pytest.mark.parametrize("normalization", ["bm25", "cosine", "lift"])
def test_the_same_as_naive_loops(normalization):
    held = baskets()
    found = association(as_baskets(held, 15), normalization)
    np.testing.assert_allclose(found.toarray(), naive(held, normalization), rtol=1e-5, atol=1e-7)


def test_only_the_strongest_are_kept():
    held = as_baskets(baskets(), 15)
    whole, cut = association(held).toarray(), association(held, n_related=4).toarray()
    for row, kept in zip(whole, cut, strict=True):
        assert (kept > 0).sum() <= 4
        assert set(kept[kept > 0]) == set(np.sort(row[row > 0])[::-1][:4])


def test_blocks_change_nothing(monkeypatch):
    held = as_baskets(baskets(), 15)
    whole = association(held).toarray()
    monkeypatch.setattr("nearsight.estimators.recommendation.cooccurrence._BLOCK", 30)
    np.testing.assert_array_equal(association(held).toarray(), whole)


@pytest.mark.filterwarnings("ignore")
def test_as_implicit_has_it():
    implicit = pytest.importorskip("implicit.nearest_neighbours")
    held = baskets(200, 30, 0.15, seed=5)
    theirs = implicit.CosineRecommender(K=30, num_threads=1)
    theirs.fit(sparse.csr_matrix(held), show_progress=False)
    similarity = theirs.similarity.toarray()
    np.fill_diagonal(similarity, 0)
    np.testing.assert_allclose(
        association(as_baskets(held, 30), "cosine").toarray(), similarity, rtol=1e-5, atol=1e-6
    )
    theirs = implicit.BM25Recommender(K=30, num_threads=1)
    theirs.fit(sparse.csr_matrix(held), show_progress=False)
    similarity = theirs.similarity.toarray()
    np.fill_diagonal(similarity, 0)
    ours = association(as_baskets(held, 30)).toarray()
    # They take another logarithm of the baskets' sizes: the numbers differ, the order hardly.
    for mine, other in zip(ours, similarity, strict=True):
        assert len(set(np.argsort(-mine)[:5]) & set(np.argsort(-other)[:5])) >= 4


def test_regression_is_ridge_regression_on_the_other_items():
    held = baskets()
    found = regression(as_baskets(held, 15), 100)
    penalty = held.sum(axis=0).mean()
    for j in range(15):
        others = [i for i in range(15) if i != j]
        design = held[:, others].astype(np.float64)
        expected = np.linalg.solve(design.T @ design + penalty * np.eye(14), design.T @ held[:, j])
        np.testing.assert_allclose(found[others, j], expected, rtol=1e-4, atol=1e-6)
    assert not found.diagonal().any()


def test_what_competes_gets_a_negative_weight():
    # Tea or coffee with milk, never both.
    held = np.zeros((60, 3))
    held[:, 2] = 1
    held[:30, 0], held[30:, 1] = 1, 1
    weights = regression(as_baskets(held, 3), 10)
    assert weights[0, 1] < 0 < weights[0, 2]


def test_regression_leaves_out_what_nobody_bought():
    held = baskets()
    wide = np.zeros((40, 100_000), np.float32)
    wide[:, 5000:5015] = held
    found = regression(as_baskets(wide, 100_000), 100)
    np.testing.assert_array_equal(found, regression(as_baskets(held, 15), 100))


def test_a_large_catalog_is_not_regressed():
    assert regression(as_baskets(baskets(), 15), 5) is None


def test_no_baskets():
    empty = as_baskets(np.zeros((0, 3)), 3)
    assert association(empty).shape == (3, 3)
    assert association(empty).nnz == 0
    assert regression(empty, 10) is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((2, 4)), "a column for each of the 3 items"),
        (-np.ones((2, 3)), "negative"),
        (np.full((2, 3), np.nan), "NaN"),
    ],
)
def test_bad_baskets(bad, message):
    with pytest.raises(InvalidParameterError, match=message):
        as_baskets(bad, 3)


def test_an_unknown_normalization():
    with pytest.raises(InvalidParameterError, match="bm25, cosine, lift"):
        association(as_baskets(baskets(), 15), "tfidf")
