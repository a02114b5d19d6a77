"""HDBSCAN on a neighbor graph: scikit-learn's, for graphs of several components, too."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import HDBSCAN

# A sparse graph drops edges of length 0, so duplicates get this distance.
_LEAST_DISTANCE = 1e-12
# Components are this much farther apart than any two neighbors.
_GAP = 1e3


@dataclass(frozen=True, slots=True)
class HdbscanClusters:
    """The clusters that HDBSCAN selects.

    Attributes
    ----------
    labels : ndarray of shape (n,), int
        -1 is noise.
    strengths : ndarray of shape (n,), float
        Strength of membership in 0..1: 0 is noise, 1 the densest row of a cluster.
    """

    labels: NDArray[np.int64]
    strengths: NDArray[np.float64]


def hdbscan(graph: csr_matrix, *, min_cluster_size: int, min_samples: int) -> HdbscanClusters:
    """Return the clusters of greatest excess of mass (Campello, Moulavi and Sander 2013).

    Parameters
    ----------
    graph : csr_matrix of shape (n, n)
        From `neighbor_graph`.
    min_cluster_size : int
        At least 2.
    min_samples : int
        In 1..k: the neighbor whose distance defines density.
    """
    clusterer = HDBSCAN(
        min_cluster_size=min_cluster_size, min_samples=min_samples, metric="precomputed", copy=True
    ).fit(graph)
    labels = clusterer.labels_.astype(np.int64)
    # A row that leaves its cluster at a joining edge has a strength of almost 0, but is no noise.
    strengths = np.where(labels < 0, 0.0, np.maximum(clusterer.probabilities_, _LEAST_DISTANCE))
    return HdbscanClusters(labels, strengths)


def neighbor_graph(distances: NDArray[np.floating], rows: NDArray[np.integer]) -> csr_matrix:
    """Return the symmetric, connected graph of nearest neighbors, as scikit-learn's HDBSCAN needs it.

    Its components are joined by edges that are 1,000 times as long as any other, so that no cluster spans
    two of them unless it spans all.

    Parameters
    ----------
    distances, rows : ndarray of shape (n, k)
        Of the nearest others of each row, the nearest first.
    """
    n, k = rows.shape
    lengths = np.maximum(distances.astype(np.float64), _LEAST_DISTANCE).ravel()
    graph = csr_matrix((lengths, (np.repeat(np.arange(n), k), rows.ravel())), shape=(n, n))
    graph = graph.maximum(graph.T)
    n_components, component = connected_components(graph, directed=False)
    if n_components == 1:
        return graph
    heads = np.unique(component, return_index=True)[1]
    left, right = heads[:-1], heads[1:]
    ends = np.concatenate([left, right]), np.concatenate([right, left])
    gaps = csr_matrix((np.full(len(ends[0]), _GAP * lengths.max()), ends), shape=(n, n))
    return graph.maximum(gaps)
