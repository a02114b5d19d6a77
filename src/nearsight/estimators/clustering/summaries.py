"""Descriptions of clusters: representative rows, distinctive words, and the order in which they merge."""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from nearsight.estimators.neighbors import unit_length
from nearsight.parameters import require_whole

# Rows of a large cluster among which representatives are searched.
_MOST_CANDIDATES = 1000
_MIN_SHARE = 1e-6


def representatives(X: ArrayLike, n: int, *, random_state: int = 0) -> NDArray[np.int64]:
    """Return rows that represent all rows of `X`, the most typical first.

    *Method*: the medoid by cosine, then greedily the row that most raises the similarity of every row to its
    nearest chosen one (facility location; Nemhauser, Wolsey and Fisher 1978: at least 63 % of the optimum).
    Deviation: of more than 1,000 rows, 1,000 random ones and the medoid are considered.

    Parameters
    ----------
    X : array of shape (m, d), float
        Rows of one cluster; their lengths do not matter.
    n : int
        At least 0. At most m rows are returned.

    Examples
    --------
    >>> representatives([[1, 0], [1, 0.1], [1, 0.2], [0, 1]], 2).tolist()
    [2, 3]
    """
    require_whole("n", n, least=0)
    vectors = np.asarray(X, np.float32)
    if len(vectors) == 0 or n == 0:
        return np.empty(0, np.int64)
    vectors = unit_length(vectors)
    medoid = int(np.argmax(vectors @ vectors.mean(0)))
    rows = np.arange(len(vectors))
    if len(vectors) > _MOST_CANDIDATES:
        sample = np.random.default_rng(random_state).choice(len(vectors), _MOST_CANDIDATES, replace=False)
        rows = np.union1d(sample, [medoid])
    similarities = vectors[rows] @ vectors[rows].T
    chosen = [int(np.flatnonzero(rows == medoid)[0])]
    nearest = similarities[chosen[0]].copy()
    while len(chosen) < min(n, len(rows)):
        gain = np.maximum(similarities - nearest, 0).sum(1)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        nearest = np.maximum(nearest, similarities[chosen[-1]])
    return rows[chosen]


def word_distinctiveness(shares: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return how distinctive each of m words is of each of k clusters, (k, m); higher is more, 0 is not.

    *Method*: the word's term p log(p / q) of the Kullback-Leibler divergence (1951) between the words of the
    cluster (p) and those of all other rows, noise included (q). A distinctive word is frequent in the cluster
    and rare outside; the difference p - q alone prefers words that fit nothing else either. A cluster that
    holds all rows is compared with equal shares.

    Parameters
    ----------
    shares : array of shape (n, m), float
        The probability of each word for each row; rows sum to 1.
    labels : array of shape (n,), int
        Clusters 0..k-1; -1 is noise.

    Examples
    --------
    >>> word_distinctiveness([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8]], [0, 0, 1]).argmax(1).tolist()
    [0, 1]
    """
    values, clusters = np.asarray(shares, np.float64), np.asarray(labels)
    n, m = values.shape
    k = int(clusters.max(initial=-1)) + 1
    result = np.zeros((k, m))
    total = values.sum(0)
    for label in range(k):
        inside = clusters == label
        n_inside = int(inside.sum())
        if n_inside == 0:
            continue
        own = values[inside].sum(0)
        p = own / n_inside
        q = (total - own) / (n - n_inside) if n_inside < n else np.full(m, 1 / m)
        # A word that occurs nowhere else must not count infinitely.
        result[label] = p * np.log(np.maximum(p, _MIN_SHARE) / np.maximum(q, _MIN_SHARE))
    return result


def k_means_parts(X: NDArray[np.floating], n_parts: int, *, random_state: int) -> NDArray[np.int64]:
    """Return the part, 0..n_parts-1, of each of the (n, d) rows of one cluster, by k-means on the vectors.

    Fewer different rows than parts leave parts empty.

    Examples
    --------
    >>> parts = k_means_parts(np.eye(3)[[0, 0, 1, 2]], 3, random_state=0)
    >>> bool(parts[0] == parts[1]), len(set(parts.tolist()))
    (True, 3)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        parts: NDArray[np.int64] = KMeans(n_parts, n_init=1, random_state=random_state).fit_predict(X)
    return parts


def merge_tree(means: ArrayLike, sizes: ArrayLike) -> NDArray[np.float64]:
    """Return the order in which clusters merge into one.

    *Method*: average linkage over the rows: the similarity of two clusters is the mean cosine of all their
    pairs, which is the dot product of their means, so that no pair is compared. k³ operations.

    Parameters
    ----------
    means : array of shape (k, d), float
        The mean of each cluster's unit vectors, not scaled to unit length.
    sizes : array of shape (k,), int
        The rows of each cluster.

    Returns
    -------
    ndarray of shape (k - 1, 4), float64
        As in `scipy.cluster.hierarchy`: two nodes, their distance (1 - similarity), rows; clusters are nodes
        0..k-1, and row i makes node k + i.

    Examples
    --------
    >>> merge_tree([[1, 0], [0.9, 0.1], [0, 1]], [5, 5, 9])[:, :2].astype(int).tolist()
    [[0, 1], [2, 3]]
    """
    centers, counts = np.asarray(means, np.float64), np.asarray(sizes, np.float64).copy()
    k = len(centers)
    similarity = centers @ centers.T
    np.fill_diagonal(similarity, -np.inf)
    nodes = list(range(k))
    merges = []
    for new in range(k, 2 * k - 1):
        i, j = sorted(divmod(int(similarity.argmax()), k))
        merges.append((*sorted((nodes[i], nodes[j])), 1 - similarity[i, j], counts[i] + counts[j]))
        merged = (counts[i] * similarity[i] + counts[j] * similarity[j]) / (counts[i] + counts[j])
        merged[[i, j]] = -np.inf
        similarity[i], similarity[:, i] = merged, merged
        similarity[j], similarity[:, j] = -np.inf, -np.inf
        nodes[i], counts[i] = new, counts[i] + counts[j]
    return np.array(merges, np.float64).reshape(-1, 4)
