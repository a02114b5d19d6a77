"""The graph of nearest neighbors, and the few coordinates that it gives each vector."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.neighbors import NearestNeighbors
from tqdm import tqdm

Floats = NDArray[np.float32]

# Distances in so many dimensions tell neighbors as well as all of them do, at a fraction of the cost.
_DIM_OF_NEIGHBORS = 64
# Rows that are looked up at once.
_ROWS = 4096
# Below it, all eigenvectors are computed; iterating for a few would take longer.
_DENSE = 400


def unit(X: NDArray[np.floating]) -> Floats:
    """Return rows of unit length; rows of zeros stay."""
    X = np.asarray(X, np.float32)
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    result: Floats = np.divide(X, lengths, out=np.zeros_like(X), where=lengths > 0)
    return result


def shortened(X: Floats, dim: int = _DIM_OF_NEIGHBORS) -> Floats:
    """Return the coordinates along the `dim` directions in which the rows differ most (PCA).

    The covariance is summed up block by block, so that nothing of the size of `X` is made beside it.
    """
    if X.shape[1] <= dim:
        return X
    mean = X.mean(0, dtype=np.float64).astype(np.float32)
    scatter = np.zeros((X.shape[1], X.shape[1]), np.float64)
    for at in range(0, len(X), _ROWS):
        part = X[at : at + _ROWS] - mean
        scatter += part.T @ part
    last = len(scatter) - 1
    directions = eigh(scatter, subset_by_index=[last + 1 - dim, last])[1][:, ::-1].astype(np.float32)
    result: Floats = X @ directions - mean @ directions
    return result


def neighbors(X: Floats, k: int, *, progress: bool = False) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return distances and rows of the `k` nearest others of each row, the nearest first.

    Exact, in n² comparisons; a few bytes a neighbor are kept.
    """
    n = len(X)
    search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(X)
    distances, rows = np.empty((n, k), np.float32), np.empty((n, k), np.int32)
    for at in tqdm(range(0, n, _ROWS), desc="neighbors", unit="block", disable=not progress, leave=False):
        found_d, found = search.kneighbors(X[at : at + _ROWS])
        # A row is not its own neighbor; among duplicates it may not even be the first that is found.
        own = found == np.arange(at, at + len(found))[:, None]
        own[~own.any(1), -1] = True
        distances[at : at + _ROWS] = found_d[~own].reshape(len(found), k)
        rows[at : at + _ROWS] = found[~own].reshape(len(found), k)
    return distances, rows


def diffusion(
    distances: NDArray[np.float32],
    rows: NDArray[np.int32],
    dim: int,
    *,
    random_state: int,
    progress: bool = False,
) -> Floats:
    """Return (n, dim) coordinates of unit length that keep well-connected rows together.

    *Method*: weights with local scaling (Zelnik-Manor and Perona 2004), eigenvectors of the normalized graph
    (Ng, Jordan and Weiss 2001, step 4: rows of unit length) times their eigenvalues, that is diffusion for
    one step (Coifman and Lafon 2006). The constant eigenvector is taken out beforehand, whatever the number
    of pieces that the graph falls into.
    """
    n, k = distances.shape
    scale = distances[:, k // 2].astype(np.float64)
    scale = np.maximum(scale, 0.1 * np.median(scale) + 1e-6)
    weights = np.exp(-(distances.astype(np.float64) ** 2) / (scale[:, None] * scale[rows]))
    graph = csr_matrix((weights.ravel(), (np.repeat(np.arange(n), k), rows.ravel())), shape=(n, n))
    graph = graph.maximum(graph.T)
    degree = np.asarray(graph.sum(1)).ravel()
    half = diags(1 / np.sqrt(degree))
    walk = (half @ graph @ half).tocsr()
    constant = np.sqrt(degree / degree.sum())
    dim = min(dim, n - 1)
    if n <= _DENSE:
        values, vectors = np.linalg.eigh(walk.toarray() - np.outer(constant, constant))
        values, vectors = values[-dim:], vectors[:, -dim:]
    else:
        start = np.random.default_rng(random_state).normal(size=n)
        # How many steps it takes, nobody knows beforehand.
        with tqdm(desc="coordinates", unit="step", disable=not progress, leave=False) as bar:

            def stepped(v: NDArray[np.float64]) -> NDArray[np.float64]:
                bar.update()
                taken: NDArray[np.float64] = walk @ v - constant * (constant @ v)
                return taken

            operator = LinearOperator((n, n), matvec=stepped, dtype=np.float64)
            values, vectors = eigsh(operator, k=dim, which="LA", v0=start, tol=1e-3, ncv=max(2 * dim + 1, 40))
    coordinates = vectors * np.maximum(values, 0) / np.sqrt(degree)[:, None]
    return unit(coordinates * np.sqrt(n))
