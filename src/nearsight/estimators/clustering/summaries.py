"""What clusters are like: who stands for them, what tells them apart, how they belong together."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import InvalidParameterError
from nearsight.estimators.clustering.spectral import unit

# Members of a large cluster that are looked at; candidates for standing for it are among them.
_MOST = 1000
_TINY = 1e-6


def representatives(X: ArrayLike, n: int, *, random_state: int = 0) -> NDArray[np.int64]:
    """Return rows that stand for all of `X`, the most typical first.

    *Method*: the medoid by cosine, then greedily the row that adds most to how similar every row is to the
    nearest of those chosen (facility location; Nemhauser, Wolsey and Fisher 1978: at least 63 % of the
    best). Of more than 1,000 rows, a random 1,000 are looked at besides the medoid.

    Parameters
    ----------
    X : array of shape (m, d), float
        Members of one cluster; their lengths do not matter.
    n : int
        At least 0; fewer are returned where there are fewer rows.

    Examples
    --------
    >>> representatives([[1, 0], [1, 0.1], [1, 0.2], [0, 1]], 2).tolist()
    [2, 3]
    """
    if n < 0:
        raise InvalidParameterError(f"n is {n}; it must be at least 0")
    vectors = np.asarray(X, np.float32)
    if len(vectors) == 0 or n == 0:
        return np.empty(0, np.int64)
    vectors = unit(vectors)
    medoid = int(np.argmax(vectors @ vectors.mean(0)))
    rows = np.arange(len(vectors))
    if len(vectors) > _MOST:
        chosen = np.random.default_rng(random_state).choice(len(vectors), _MOST, replace=False)
        rows = np.union1d(chosen, [medoid])
    similarities = vectors[rows] @ vectors[rows].T
    chosen_rows = [int(np.flatnonzero(rows == medoid)[0])]
    nearest = similarities[chosen_rows[0]].copy()
    while len(chosen_rows) < min(n, len(rows)):
        gain = np.maximum(similarities - nearest, 0).sum(1)
        gain[chosen_rows] = -1
        chosen_rows.append(int(gain.argmax()))
        nearest = np.maximum(nearest, similarities[chosen_rows[-1]])
    return rows[chosen_rows]


def distinctive(shares: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return how much each word tells of each cluster, (k, m); higher tells more, 0 nothing.

    *Method*: the word's part of the Kullback-Leibler divergence (1951) between the words of the cluster and
    those of all else, noise among it: p log(p / q). So a word must both be frequent there and set it apart;
    the difference alone praises words that fit nothing else either. A single cluster with nothing else is
    compared with words that are all alike.

    Parameters
    ----------
    shares : array of shape (n, m), float
        How probable each of m words is for each of n rows; rows add up to 1.
    labels : array of shape (n,), int
        Clusters 0..k-1; -1 is noise.

    Examples
    --------
    >>> distinctive([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8]], [0, 0, 1]).argmax(1).tolist()
    [0, 1]
    """
    values, groups = np.asarray(shares, np.float64), np.asarray(labels)
    n, m = values.shape
    k = int(groups.max(initial=-1)) + 1
    result = np.zeros((k, m))
    total = values.sum(0)
    for label in range(k):
        inside = groups == label
        n_own = int(inside.sum())
        if n_own == 0:
            continue
        own = values[inside].sum(0)
        p = own / n_own
        q = (total - own) / (n - n_own) if n_own < n else np.full(m, 1 / m)
        # A word that nothing else has must not count infinitely.
        result[label] = p * np.log(np.maximum(p, _TINY) / np.maximum(q, _TINY))
    return result


def merge_order(means: ArrayLike, sizes: ArrayLike) -> NDArray[np.float64]:
    """Return how clusters join into ever fewer, from all to one.

    *Method*: average linkage over the members themselves: the similarity of two clusters is the mean cosine
    of all pairs, which is the product of their mean vectors, so that no pair is looked at. k³ operations.

    Parameters
    ----------
    means : array of shape (k, d), float
        Mean of each cluster's unit vectors; not made of unit length again.
    sizes : array of shape (k,), int
        Members of each.

    Returns
    -------
    ndarray of shape (k - 1, 4), float64
        As `scipy.cluster.hierarchy` has it: two nodes, their distance (1 - similarity), members; clusters
        are nodes 0..k-1, and row i makes node k + i.

    Examples
    --------
    >>> merge_order([[1, 0], [0.9, 0.1], [0, 1]], [5, 5, 9])[:, :2].astype(int).tolist()
    [[0, 1], [2, 3]]
    """
    middle, counts = np.asarray(means, np.float64), np.asarray(sizes, np.float64).copy()
    k = len(middle)
    similarity = middle @ middle.T
    np.fill_diagonal(similarity, -np.inf)
    nodes = list(range(k))
    merges = []
    for new in range(k, 2 * k - 1):
        i, j = sorted(divmod(int(similarity.argmax()), k))
        merges.append((*sorted((nodes[i], nodes[j])), 1 - similarity[i, j], counts[i] + counts[j]))
        joined = (counts[i] * similarity[i] + counts[j] * similarity[j]) / (counts[i] + counts[j])
        joined[[i, j]] = -np.inf
        similarity[i], similarity[:, i] = joined, joined
        similarity[j], similarity[:, j] = -np.inf, -np.inf
        nodes[i], counts[i] = new, counts[i] + counts[j]
    return np.array(merges, np.float64).reshape(-1, 4)
