from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from sklearn.datasets import load_digits

from nearsight.errors import InvalidParameterError
from nearsight.estimators.clustering import merge_tree, representatives, word_distinctiveness
from nearsight.estimators.neighbors import unit_length as unit


def served(X: np.ndarray, rows: tuple[int, ...]) -> float:
    return float((unit(X) @ unit(X)[list(rows)].T).max(1).sum())


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_representatives_serve_all_nearly_as_well_as_any_could(seed: int, n: int) -> None:
    X = np.abs(np.random.default_rng(seed).normal(size=(9, 4)))
    chosen = tuple(representatives(X, n).tolist())
    best = max(served(X, rows) for rows in combinations(range(9), n))
    assert len(set(chosen)) == n
    assert served(X, chosen) >= 0.63 * best


def test_the_first_is_the_medoid_and_the_others_differ() -> None:
    X = unit(load_digits().data[:300])
    rows = representatives(X, 5)
    assert rows[0] == (X @ X.T).mean(1).argmax()
    typical = np.sort(X @ X.T, axis=1)[:, -50:].mean()
    assert (X[rows] @ X[rows].T)[np.triu_indices(5, 1)].mean() < typical
    # The most typical ones alone would serve the others less well.
    assert served(X, tuple(rows)) > served(X, tuple(np.argsort(-(X @ X.mean(0)))[:5]))


def test_representatives_of_a_large_cluster_of_few_and_of_none() -> None:
    X = np.random.default_rng(0).normal(size=(5000, 8)) + 2
    rows = representatives(X, 4)
    assert len(set(rows.tolist())) == 4
    assert rows[0] == (unit(X) @ unit(X).mean(0)).argmax()
    assert representatives(X[:2], 5).tolist() in ([0, 1], [1, 0])
    assert representatives(np.empty((0, 3)), 2).tolist() == []
    with pytest.raises(InvalidParameterError, match="-1"):
        representatives(X, -1)


def test_a_word_must_be_frequent_in_the_cluster_and_rare_elsewhere() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, -1], 40)
    scores = rng.uniform(size=(120, 6))
    scores[labels == 0, 2] += 5
    scores[labels == 1, 4] += 5
    scores[:, 5] += 20  # what fits everything tells nothing
    scores[labels == 0, 0] += 0.5  # neither does what is rare everywhere
    found = word_distinctiveness(scores / scores.sum(1, keepdims=True), labels)
    assert found.shape == (2, 6)
    assert found.argmax(1).tolist() == [2, 4]


def test_one_cluster_with_nothing_elsewhere_and_no_rows_at_all() -> None:
    assert word_distinctiveness([[0.2, 0.8], [0.3, 0.7]], [0, 0]).argmax(1).tolist() == [1]
    assert np.isfinite(word_distinctiveness([[1.0, 0.0], [0.0, 1.0]], [0, 1])).all()
    assert word_distinctiveness(np.empty((0, 3)), []).shape == (0, 3)


@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_clusters_join_by_the_mean_cosine_of_all_pairs(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    X, labels = unit(rng.normal(size=(40, 6))), np.concatenate([np.arange(k), rng.integers(k, size=40 - k)])
    means = np.array([X[labels == c].mean(0) for c in range(k)])
    found = merge_tree(means, np.bincount(labels, minlength=k))
    groups = {c: [c] for c in range(k)}
    for new, (a, b, distance, size) in enumerate(found, k):
        pairs = {
            (i, j): 1 - (X[np.isin(labels, groups[i])] @ X[np.isin(labels, groups[j])].T).mean()
            for i, j in combinations(sorted(groups), 2)
        }
        assert distance == pytest.approx(min(pairs.values()), abs=1e-5)
        assert pairs[(int(a), int(b))] == pytest.approx(distance, abs=1e-5)
        groups[new] = groups.pop(int(a)) + groups.pop(int(b))
        assert size == np.isin(labels, groups[new]).sum()
    assert len(found) == k - 1


def test_with_one_row_each_it_is_scipys_average_linkage() -> None:
    X = unit(np.random.default_rng(0).normal(size=(30, 5)))
    rows, columns = np.triu_indices(30, 1)
    theirs = linkage(1 - (X @ X.T)[rows, columns], "average")
    mine = merge_tree(X, np.ones(30))
    np.testing.assert_allclose(mine[:, 2:], theirs[:, 2:], atol=1e-5)
