import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree
from sklearn.cluster import HDBSCAN
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score, pairwise_distances

from nearsight.estimators.clustering import hdbscan_tree
from nearsight.estimators.neighbors import euclidean_neighbors


def everybody(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every row is a neighbor of every other."""
    distance = pairwise_distances(X)
    np.fill_diagonal(distance, -1)
    rows = np.argsort(distance, axis=1, kind="stable")[:, 1:]
    return np.take_along_axis(distance, rows, 1), rows


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(adjusted_rand_score(a, b) == 1.0 and ((a < 0) == (b < 0)).all())


def blobs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(rng.uniform(-6, 6, 2), rng.uniform(0.2, 2), (20, 2)) for _ in range(4)])


@given(seed=st.integers(0, 2**32 - 1), least=st.integers(2, 12), samples=st.integers(1, 2))
@settings(max_examples=60, deadline=None)
def test_on_the_whole_graph_it_is_scikit_learns_hdbscan(seed: int, least: int, samples: int) -> None:
    mine = hdbscan_tree.hdbscan(*everybody(blobs(seed)), min_cluster_size=least, min_samples=samples)
    theirs = HDBSCAN(min_cluster_size=least, min_samples=samples, copy=True).fit(blobs(seed))
    assert same_partition(mine.labels, theirs.labels_)


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_the_tree_spans_mutual_reachability_at_least_cost(seed: int, samples: int) -> None:
    # Many distances are equal there, so that only the lengths of the tree's edges are unique.
    distance = pairwise_distances(blobs(seed))
    core = np.sort(distance, axis=1)[:, samples - 1]
    reach = np.maximum(distance, np.maximum(core[:, None], core))
    np.fill_diagonal(reach, 0)
    lengths = hdbscan_tree._spanning_tree(*everybody(blobs(seed)), samples)[2]
    np.testing.assert_allclose(lengths, np.sort(minimum_spanning_tree(reach).data), rtol=1e-9)


def test_strengths_are_those_of_scikit_learn() -> None:
    X, _ = make_blobs(150, centers=[[0, 0], [9, 0], [0, 9]], random_state=2)
    mine = hdbscan_tree.hdbscan(*everybody(X), min_cluster_size=25, min_samples=2)
    theirs = HDBSCAN(min_cluster_size=25, min_samples=2, copy=True).fit(X)
    assert mine.labels.max() == 2
    np.testing.assert_allclose(mine.strengths, theirs.probabilities_, atol=1e-9)


@pytest.mark.parametrize("k", [10, 20])
def test_a_few_neighbors_are_as_good_as_all(k: int) -> None:
    X, _ = make_moons(400, noise=0.05, random_state=0)
    few = hdbscan_tree.hdbscan(
        *euclidean_neighbors(X.astype(np.float32), k), min_cluster_size=15, min_samples=5
    )
    theirs = HDBSCAN(min_cluster_size=15, min_samples=5, copy=True).fit(X)
    assert adjusted_rand_score(few.labels, theirs.labels_) > 0.95


def test_pieces_without_an_edge_between_them_are_clusters() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(c, 0.1, (30, 2)) for c in (0, 50, 100, 150)]).astype(np.float32)
    found = hdbscan_tree.hdbscan(*euclidean_neighbors(X, 8), min_cluster_size=20, min_samples=3)
    assert same_partition(found.labels, np.repeat(range(4), 30))


def test_neighbors_are_the_nearest_others_even_among_duplicates() -> None:
    rng = np.random.default_rng(1)
    X = np.repeat(rng.normal(size=(20, 4)), 6, axis=0).astype(np.float32)
    found, rows = euclidean_neighbors(X, 7)
    assert (rows != np.arange(len(X))[:, None]).all()
    distance = pairwise_distances(X)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_allclose(found, np.sort(distance, axis=1)[:, :7], atol=1e-3)
