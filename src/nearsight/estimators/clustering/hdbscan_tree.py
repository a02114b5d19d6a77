"""HDBSCAN on a graph: from nearest neighbors to a tree of clusters, and from the tree to labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

# A graph holds no edge of length 0, so duplicates are this far apart.
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Flat:
    """Labels, and how firmly each row belongs.

    Attributes
    ----------
    labels : ndarray of shape (n,), int
        -1 is noise.
    strengths : ndarray of shape (n,), float
        In 0..1; 0 is noise, 1 the densest of its cluster.
    """

    labels: NDArray[np.int64]
    strengths: NDArray[np.float64]


def cluster(
    distances: NDArray[np.floating],
    rows: NDArray[np.integer],
    *,
    min_cluster_size: int,
    min_samples: int,
) -> Flat:
    """Return the clusters of greatest excess of mass (HDBSCAN).

    *Method*: Campello, Moulavi and Sander 2013 (PAKDD, sections 3 and 4), on the graph of nearest neighbors
    instead of all pairs; pieces that no edge connects are infinitely far apart. Where every row is a
    neighbor of every other, it is the original.

    Parameters
    ----------
    distances, rows : arrays of shape (n, k)
        Of the nearest others, the nearest first.
    min_cluster_size : int
        At least 2.
    min_samples : int
        The row itself and its ``min_samples - 1`` nearest make a dense place.
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
    reach = np.maximum(reach.ravel(), _TINY)
    low, high = np.minimum(source, rows.ravel()), np.maximum(source, rows.ravel())
    # Both ends may name the edge; one of them is enough, and lengths must not be added up.
    order = np.lexsort((reach, high, low))
    low, high, reach = low[order], high[order], reach[order]
    first = np.ones(len(low), bool)
    first[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    graph = csr_matrix((reach[first], (low[first], high[first])), shape=(n, n))
    tree = minimum_spanning_tree(graph).tocoo()
    n_pieces, piece = connected_components(tree, directed=False)
    heads = np.unique(piece, return_index=True)[1]
    a = np.concatenate([tree.row, heads[:-1]]).astype(np.int64)
    b = np.concatenate([tree.col, heads[1:]]).astype(np.int64)
    lengths = np.concatenate([tree.data, np.full(n_pieces - 1, np.inf)])
    order = np.argsort(lengths, kind="stable")
    return a[order], b[order], lengths[order]


def _single_linkage(
    edges: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]], n: int
) -> list[tuple[int, int, float, int]]:
    """Return the merges: the two nodes, their distance, and how many rows are in both; leaves are 0..n-1."""
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
    merges: list[tuple[int, int, float, int]], n: int, least: int
) -> tuple[list[int], list[float], list[tuple[int, float]], list[float]]:
    """Return the clusters that are large enough at every split, from the root down.

    That is: each cluster's parent, the density (1 / distance) at which it appears, where each row falls out
    of which cluster at which density, and each cluster's stability.
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
        is_split = min(sizes) >= least
        for side, size in zip((left, right), sizes, strict=True):
            if is_split:
                parents.append(cluster)
                births.append(density)
                stability.append(0.0)
                stability[cluster] += size * _gain(density, births[cluster])
                stack.append((side, len(parents) - 1))
            elif size >= least:
                stack.append((side, cluster))
            else:
                stability[cluster] += size * _gain(density, births[cluster])
                for row in _leaves(side, merges, n):
                    exits[row] = (cluster, density)
    return parents, births, exits, stability


def _gain(density: float, birth: float) -> float:
    return 0.0 if density == birth else density - birth


def _leaves(node: int, merges: list[tuple[int, int, float, int]], n: int) -> list[int]:
    found, stack = [], [node]
    while stack:
        at = stack.pop()
        if at < n:
            found.append(at)
        else:
            stack += merges[at - n][:2]
    return found


def _select(
    parents: list[int],
    births: list[float],
    exits: list[tuple[int, float]],
    stability: list[float],
    n: int,
) -> Flat:
    """Choose, from the leaves up, each cluster or all that is chosen below it; never the root."""
    m = len(parents)
    below = [0.0] * m
    chosen = [True] * m
    has_children = [False] * m
    # Children come after their parents, so that backwards is upwards.
    for c in range(m - 1, 0, -1):
        if has_children[c] and below[c] > stability[c]:
            chosen[c] = False
        else:
            below[c] = stability[c]
        below[parents[c]] += below[c]
        has_children[parents[c]] = True
    owner = [-1] * m
    names: dict[int, int] = {}
    for c in range(1, m):
        up = owner[parents[c]]
        owner[c] = up if up >= 0 else names.setdefault(c, len(names)) if chosen[c] else -1
    labels = np.array([owner[c] for c, _ in exits], np.int64)
    densities = np.array([d for _, d in exits], np.float64)
    strengths = np.zeros(n)
    for label in range(len(names)):
        inside = labels == label
        finite = densities[inside][np.isfinite(densities[inside])]
        most = finite.max() if len(finite) else 1.0
        strengths[inside] = np.minimum(densities[inside], most) / most
    return Flat(labels, strengths)
