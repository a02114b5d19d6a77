"""HDBSCAN on a neighbor graph: from nearest neighbors to a tree of clusters, and from the tree to labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

# A sparse graph drops edges of length 0, so duplicates get this distance.
_LEAST_DISTANCE = 1e-12


@dataclass(frozen=True, slots=True)
class HdbscanClusters:
    """The clusters that were selected from the tree.

    Attributes
    ----------
    labels : ndarray of shape (n,), int
        -1 is noise.
    strengths : ndarray of shape (n,), float
        Strength of membership in 0..1: 0 is noise, 1 the densest row of a cluster.
    """

    labels: NDArray[np.int64]
    strengths: NDArray[np.float64]


def hdbscan(
    distances: NDArray[np.floating],
    rows: NDArray[np.integer],
    *,
    min_cluster_size: int,
    min_samples: int,
) -> HdbscanClusters:
    """Return the clusters of greatest excess of mass (HDBSCAN).

    *Method*: Campello, Moulavi and Sander 2013 (PAKDD, sections 3 and 4). Deviation: on the graph of nearest
    neighbors instead of all pairs, where unconnected components are infinitely far apart; if every row is a
    neighbor of every other, the result is the same. scikit-learn's HDBSCAN refuses graphs of several
    components, and takes twice the time and more memory where these are joined.

    Parameters
    ----------
    distances, rows : ndarray of shape (n, k)
        Of the nearest others of each row, the nearest first.
    min_cluster_size : int
        At least 2.
    min_samples : int
        The core distance of a row is that to its ``min_samples - 1``-th nearest other.
    """
    n = len(distances)
    merges = _single_linkage(_spanning_tree(distances, rows, min_samples), n)
    return _select(*_condense(merges, n, min_cluster_size), n)


def _spanning_tree(
    distances: NDArray[np.floating], rows: NDArray[np.integer], min_samples: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the edges of the minimum spanning tree of mutual reachability, the shortest first."""
    n, k = distances.shape
    core = distances[:, min(min_samples - 1, k) - 1] if min_samples > 1 else np.zeros(n)
    reach = np.maximum(np.maximum(distances, core[:, None]), core[rows]).astype(np.float64)
    source = np.repeat(np.arange(n), k)
    reach = np.maximum(reach.ravel(), _LEAST_DISTANCE)
    low, high = np.minimum(source, rows.ravel()), np.maximum(source, rows.ravel())
    # Both ends may list an edge; it must enter once, since the sparse matrix would add the lengths.
    order = np.lexsort((reach, high, low))
    low, high, reach = low[order], high[order], reach[order]
    first = np.ones(len(low), bool)
    first[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    graph = csr_matrix((reach[first], (low[first], high[first])), shape=(n, n))
    tree = minimum_spanning_tree(graph).tocoo()
    n_components, component = connected_components(tree, directed=False)
    heads = np.unique(component, return_index=True)[1]
    a = np.concatenate([tree.row, heads[:-1]]).astype(np.int64)
    b = np.concatenate([tree.col, heads[1:]]).astype(np.int64)
    lengths = np.concatenate([tree.data, np.full(n_components - 1, np.inf)])
    order = np.argsort(lengths, kind="stable")
    return a[order], b[order], lengths[order]


def _single_linkage(
    edges: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]], n: int
) -> list[tuple[int, int, float, int]]:
    """Return the merges: two nodes, their distance, and the rows in both; leaves are 0..n-1."""
    parent = list(range(2 * n - 1))
    size = [1] * n + [0] * (n - 1)
    merges: list[tuple[int, int, float, int]] = []

    def root(node: int) -> int:
        top = node
        while parent[top] != top:
            top = parent[top]
        while parent[node] != top:
            parent[node], node = top, parent[node]
        return top

    for new, (a, b, length) in enumerate(zip(*(e.tolist() for e in edges), strict=True), n):
        left, right = root(a), root(b)
        parent[left] = parent[right] = new
        size[new] = size[left] + size[right]
        merges.append((left, right, length, size[new]))
    return merges


def _condense(
    merges: list[tuple[int, int, float, int]], n: int, min_size: int
) -> tuple[list[int], list[float], list[tuple[int, float]], list[float]]:
    """Return the condensed tree: clusters that are large enough at every split, from the root down.

    These are each cluster's parent, its birth density (1 / distance), the cluster and density at which each
    row leaves the tree, and each cluster's stability.
    """
    parents, births, stability = [-1], [0.0], [0.0]
    exits: list[tuple[int, float]] = [(0, 0.0)] * n
    stack = [(2 * n - 2, 0)]
    while stack:
        node, cluster = stack.pop()
        if node < n:
            exits[node] = (cluster, np.inf)
            continue
        left, right, length, _ = merges[node - n]
        density = 1 / length if length > 0 else np.inf
        sizes = [1 if side < n else merges[side - n][3] for side in (left, right)]
        is_split = min(sizes) >= min_size
        for side, size in zip((left, right), sizes, strict=True):
            if is_split:
                parents.append(cluster)
                births.append(density)
                stability.append(0.0)
                stability[cluster] += size * _density_gain(density, births[cluster])
                stack.append((side, len(parents) - 1))
            elif size >= min_size:
                stack.append((side, cluster))
            else:
                stability[cluster] += size * _density_gain(density, births[cluster])
                for row in _leaves(side, merges, n):
                    exits[row] = (cluster, density)
    return parents, births, exits, stability


def _density_gain(density: float, birth: float) -> float:
    return 0.0 if density == birth else density - birth


def _leaves(node: int, merges: list[tuple[int, int, float, int]], n: int) -> list[int]:
    leaves, stack = [], [node]
    while stack:
        top = stack.pop()
        if top < n:
            leaves.append(top)
        else:
            stack += merges[top - n][:2]
    return leaves


def _select(
    parents: list[int],
    births: list[float],
    exits: list[tuple[int, float]],
    stability: list[float],
    n: int,
) -> HdbscanClusters:
    """Select, from the leaves up, each cluster or the clusters selected below it; never the root."""
    m = len(parents)
    below = [0.0] * m
    selected = [True] * m
    has_children = [False] * m
    # Children have higher numbers than their parents.
    for c in range(m - 1, 0, -1):
        if has_children[c] and below[c] > stability[c]:
            selected[c] = False
        else:
            below[c] = stability[c]
        below[parents[c]] += below[c]
        has_children[parents[c]] = True
    owner = [-1] * m
    numbers: dict[int, int] = {}
    for c in range(1, m):
        above = owner[parents[c]]
        owner[c] = above if above >= 0 else numbers.setdefault(c, len(numbers)) if selected[c] else -1
    labels = np.array([owner[c] for c, _ in exits], np.int64)
    densities = np.array([d for _, d in exits], np.float64)
    strengths = np.zeros(n)
    for label in range(len(numbers)):
        inside = labels == label
        finite = densities[inside][np.isfinite(densities[inside])]
        highest = finite.max() if len(finite) else 1.0
        strengths[inside] = np.minimum(densities[inside], highest) / highest
    return HdbscanClusters(labels, strengths)
