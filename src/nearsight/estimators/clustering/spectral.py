"""Coordinates of vectors for density clustering: principal axes, and diffusion on the neighbor graph."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import LinearOperator, eigsh

from nearsight.estimators.neighbors import unit_length
from nearsight.progress import bar

Floats = NDArray[np.float32]

# Distances along so many axes find neighbors as well as all of them do, at a fraction of the cost.
_NEIGHBOR_DIM = 64
_BLOCK_ROWS = 4096
# Up to so many rows, all eigenvectors are computed; iterating for a few takes longer.
_DENSE_ROWS = 1200


def principal_coordinates(X: Floats, dim: int = _NEIGHBOR_DIM) -> Floats:
    """Return the coordinates of (n, d) rows along their `dim` principal axes (PCA), or X where d is smaller.

    The covariance is summed block by block, so that no second array of the size of `X` is needed.
    """
    if X.shape[1] <= dim:
        return X
    mean = X.mean(0, dtype=np.float64).astype(np.float32)
    scatter = np.zeros((X.shape[1], X.shape[1]), np.float64)
    for start in range(0, len(X), _BLOCK_ROWS):
        centered = X[start : start + _BLOCK_ROWS] - mean
        scatter += centered.T @ centered
    last = len(scatter) - 1
    axes = eigh(scatter, subset_by_index=[last + 1 - dim, last])[1][:, ::-1].astype(np.float32)
    coordinates: Floats = X @ axes - mean @ axes
    return coordinates


def diffusion_coordinates(
    distances: NDArray[np.float32],
    rows: NDArray[np.int32],
    dim: int,
    *,
    n_steps: int = 8,
    random_state: int,
    progress: bool | None = False,
) -> Floats:
    """Return (n, dim) coordinates of unit length that keep well-connected rows together.

    *Method*: weights with local scaling (Zelnik-Manor and Perona 2004) and eigenvectors of the normalized
    graph (Ng, Jordan and Weiss 2001, step 4: rows of unit length) times a power of their eigenvalues, the
    number of steps of diffusion (Coifman and Lafon 2006). So the number of coordinates that matter follows
    from the data: with eight steps, an eigenvalue of 0.75 counts a tenth of one of 1. The constant
    eigenvector is removed first, whatever the number of connected components.

    Parameters
    ----------
    distances, rows : ndarray of shape (n, k)
        Of the nearest others of each row, the nearest first; see `neighbors.euclidean_neighbors`.
    dim : int
        At least 1; less than n.
    n_steps : int, default 8
        At least 1. More steps blur small differences.
    """
    n, k = distances.shape
    scale = distances[:, k // 2].astype(np.float64)
    scale = np.maximum(scale, 0.1 * np.median(scale) + 1e-6)
    weights = np.exp(-(distances.astype(np.float64) ** 2) / (scale[:, None] * scale[rows]))
    graph = csr_matrix((weights.ravel(), (np.repeat(np.arange(n), k), rows.ravel())), shape=(n, n))
    graph = graph.maximum(graph.T)
    degree = np.asarray(graph.sum(1)).ravel()
    inverse_root = diags(1 / np.sqrt(degree))
    walk = (inverse_root @ graph @ inverse_root).tocsr()
    constant = np.sqrt(degree / degree.sum())
    dim = min(dim, n - 1)
    if n <= _DENSE_ROWS:
        values, vectors = np.linalg.eigh(walk.toarray() - np.outer(constant, constant))
        values, vectors = values[-dim:], vectors[:, -dim:]
    else:
        start = np.random.default_rng(random_state).normal(size=n)
        with bar("computing coordinates", unit="iterations", progress=progress) as shown:

            def multiply(v: NDArray[np.float64]) -> NDArray[np.float64]:
                shown.update()
                product: NDArray[np.float64] = walk @ v - constant * (constant @ v)
                return product

            operator = LinearOperator((n, n), matvec=multiply, dtype=np.float64)
            values, vectors = eigsh(operator, k=dim, which="LA", v0=start, tol=1e-3, ncv=max(2 * dim + 1, 40))
    coordinates = vectors * np.maximum(values, 0) ** n_steps / np.sqrt(degree)[:, None]
    return unit_length((coordinates * np.sqrt(n)).astype(np.float32))
