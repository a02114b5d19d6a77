import numpy as np
import pytest
from sklearn.cluster import HDBSCAN
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score, pairwise_distances

from nearsight.estimators.clustering.hdbscan import HdbscanClusters, hdbscan, neighbor_graph
from nearsight.estimators.neighbors import euclidean_neighbors


def clusters(X: np.ndarray, k: int, min_cluster_size: int, min_samples: int) -> HdbscanClusters:
    graph = neighbor_graph(*euclidean_neighbors(X.astype(np.float32), k))
    return hdbscan(graph, min_cluster_size=min_cluster_size, min_samples=min_samples)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(adjusted_rand_score(a, b) == 1.0 and ((a < 0) == (b < 0)).all())


def blobs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(rng.uniform(-6, 6, 2), rng.uniform(0.2, 2), (20, 2)) for _ in range(4)])


@pytest.mark.parametrize("size", [5, 10])
@pytest.mark.parametrize("seed", range(5))
def test_on_the_complete_graph_it_is_hdbscan_on_the_rows(seed: int, size: int) -> None:
    X = blobs(seed)
    on_graph = clusters(X, len(X) - 1, size, 4)
    # There, a row is its own first neighbor. Distances are in single precision here.
    on_rows = HDBSCAN(min_cluster_size=size, min_samples=5, copy=True).fit(X)
    assert adjusted_rand_score(on_graph.labels, on_rows.labels_) > 0.9


def test_strengths_are_those_of_scikit_learn() -> None:
    X, _ = make_blobs(150, centers=[[0, 0], [9, 0], [0, 9]], random_state=2)
    on_graph = clusters(X, 149, 25, 2)
    on_rows = HDBSCAN(min_cluster_size=25, min_samples=3, copy=True).fit(X)
    assert on_graph.labels.max() == 2
    np.testing.assert_allclose(on_graph.strengths, on_rows.probabilities_, atol=1e-3)
    assert ((on_graph.strengths == 0) == (on_graph.labels < 0)).all()


@pytest.mark.parametrize("k", [10, 20])
def test_a_few_neighbors_are_as_good_as_all(k: int) -> None:
    X, _ = make_moons(400, noise=0.05, random_state=0)
    on_rows = HDBSCAN(min_cluster_size=15, min_samples=5, copy=True).fit(X)
    assert adjusted_rand_score(clusters(X, k, 15, 5).labels, on_rows.labels_) > 0.95


def test_components_of_the_graph_are_clusters() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(c, 0.1, (30, 2)) for c in (0, 50, 100, 150)])
    assert same_partition(clusters(X, 8, 20, 3).labels, np.repeat(range(4), 30))


def test_copies_of_two_rows_are_two_clusters() -> None:
    labels = clusters(np.repeat(np.eye(2), 40, axis=0), 15, 10, 5).labels
    assert same_partition(labels, np.repeat([0, 1], 40))


def test_neighbors_are_the_nearest_others_even_among_duplicates() -> None:
    rng = np.random.default_rng(1)
    X = np.repeat(rng.normal(size=(20, 4)), 6, axis=0).astype(np.float32)
    distances, rows = euclidean_neighbors(X, 7)
    assert (rows != np.arange(len(X))[:, None]).all()
    expected = pairwise_distances(X)
    np.fill_diagonal(expected, np.inf)
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :7], atol=1e-3)
