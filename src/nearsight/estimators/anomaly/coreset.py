"""A coreset: a bounded number of rows, out of an array or a stream, that are near every row."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from nearsight.parameters import require_whole

# A block of rows has 4 MB of distances to 2,000 centers: a processor's cache.
_BLOCK_ROWS = 512
# Rows among which the next centers are sought.
_CANDIDATES = 256


def k_center(
    X: NDArray[np.float32], n: int, *, projected_dim: int | None = 64, random_state: Any = 0
) -> tuple[NDArray[np.int64], float]:
    """Choose rows so that the largest distance of a row to its nearest chosen row is small.

    *Method*: the greedy rule of Gonzalez 1985 (https://doi.org/10.1016/0304-3975(85)90224-5), whose radius
    is at most twice the optimum: start with a random row, then always take the row farthest from those taken.
    As in Roth et al. 2022 (arXiv 2106.08265, section 3.2), distances are computed after a random projection
    (Johnson and Lindenstrauss 1984) if `projected_dim` is less than d.

    Parameters
    ----------
    X : ndarray of shape (m, d), float32
    n : int
        Rows to choose, at least 1. Fewer are returned if `X` has fewer different rows.
    projected_dim : int, optional
        Dimension of the projection; None for no projection.
    random_state : int, RandomState or None
        Draws the first row and the projection.

    Returns
    -------
    indices : ndarray of shape (<= n,), int64
        In the order of choice: every prefix is a k-center choice of its own.
    radius : float
        The largest distance in `X`, unprojected, of a row to its nearest chosen row; 0 if all are chosen.

    Notes
    -----
    Costs n × m × min(d, projected_dim) multiplications, and memory for one distance a row.

    Examples
    --------
    >>> import numpy as np
    >>> chosen, radius = k_center(np.array([[0.0], [1.0], [9.0], [10.0]], np.float32), 2)
    >>> sorted((chosen // 2).tolist()), radius
    ([0, 1], 1.0)
    """
    require_whole("n", n)
    X = np.ascontiguousarray(X, np.float32)
    if not len(X):
        return np.empty(0, np.int64), 0.0
    rng = check_random_state(random_state)
    projected = _projected(X, projected_dim, rng)
    lengths = np.einsum("md,md->m", projected, projected)
    # Below this, a squared distance is the rounding of equal rows.
    equal = 1e-6 * max(float(lengths.max()), 1e-30)
    squared = np.full(len(X), np.inf, np.float32)
    batch = [int(rng.randint(len(X)))]
    chosen: list[int] = []
    while batch:
        chosen += batch
        _lower(squared, projected, lengths, batch)
        batch = _farthest(squared, projected, min(n, len(X)) - len(chosen), equal)
    indices = np.array(chosen, np.int64)
    radius = float(nearest_center(X, X[indices])[0].max()) if len(indices) < len(X) else 0.0
    return indices, radius


def _lower(
    squared: NDArray[np.float32], X: NDArray[np.float32], lengths: NDArray[np.float32], batch: list[int]
) -> None:
    """Lower the squared distance of each row to its nearest center by those to new centers."""
    centers = X[batch].T
    for start in range(0, len(X), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        nearest = lengths[rows] + (lengths[batch] - 2 * (X[rows] @ centers)).min(1)
        np.minimum(squared[rows], nearest, out=squared[rows])
    squared[batch] = 0


def _farthest(squared: NDArray[np.float32], X: NDArray[np.float32], n: int, equal: float) -> list[int]:
    """Return the next rows of the greedy rule, at least one and at most n, or none if all are chosen.

    Distances only fall. So the rule can be followed among the farthest rows alone, as long as the farthest of
    them is farther than every other row was: the choice is the same, and the distances of all rows are
    computed for many new centers at once.
    """
    first = int(squared.argmax())
    if n < 1 or squared[first] <= equal:
        return []
    n_candidates = min(_CANDIDATES, len(X))
    order = np.argpartition(squared, len(X) - n_candidates)
    candidates = np.sort(order[len(X) - n_candidates :])
    others = float(squared[order[len(X) - n_candidates - 1]]) if n_candidates < len(X) else equal
    batch, left = [first], squared[candidates].copy()
    while len(batch) < n:
        np.minimum(left, ((X[candidates] - X[batch[-1]]) ** 2).sum(1), out=left)
        best = int(left.argmax())
        if left[best] <= max(others, equal):
            break
        batch.append(int(candidates[best]))
    return batch


def nearest_center(
    X: NDArray[np.float32], centers: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the Euclidean distance of each row to its nearest center, and that center.

    Parameters
    ----------
    X : ndarray of shape (m, d), float32
    centers : ndarray of shape (k, d), float32
        At least one.

    Returns
    -------
    distances : ndarray of shape (m,), float32
    indices : ndarray of shape (m,), int64
    """
    # One product gives half the squared distance up to a constant of the row: another dimension holds the
    # length of the center.
    half = np.einsum("kd,kd->k", centers, centers) / 2
    extended = np.concatenate([centers.T, -half[None]])
    distances, indices = np.empty(len(X), np.float32), np.empty(len(X), np.int64)
    for start in range(0, len(X), _BLOCK_ROWS):
        block = X[start : start + _BLOCK_ROWS]
        nearest = np.argmax(np.c_[block, np.ones(len(block), np.float32)] @ extended, axis=1)
        indices[start : start + _BLOCK_ROWS] = nearest
        # From the differences: a small distance as the difference of two large products would be noise.
        distances[start : start + _BLOCK_ROWS] = np.linalg.norm(block - centers[nearest], axis=1)
    return distances, indices


class Coreset:
    """A coreset of a stream of any length.

    *Method*: merge and reduce, after the streaming k-center of Charikar et al. 1997
    (https://doi.org/10.1145/258533.258657). Rows within the current radius of the coreset are dropped; others
    are buffered. When `n_waiting` rows are buffered, `k_center` chooses among coreset and buffer. Each choice
    adds its radius to `cover`, so that every row seen lies within `cover` of the coreset.

    Parameters
    ----------
    n_rows : int
        Size of the coreset, at least 1.
    n_waiting : int, optional
        Size of the buffer; by default three times `n_rows`.
    random_state : int
        Seeds each choice.

    Attributes
    ----------
    rows : ndarray of shape (k, d), float32
        The coreset of all rows seen, at most `n_rows`.
    radius, cover : float
    n_seen : int
    """

    def __init__(self, n_rows: int, *, n_waiting: int | None = None, random_state: int = 0) -> None:
        require_whole("n_rows", n_rows)
        self.n_rows = n_rows
        self.n_waiting = 3 * n_rows if n_waiting is None else n_waiting
        self.random_state = random_state
        self.radius = self.cover = 0.0
        self.n_seen = 0
        self._rows: NDArray[np.float32] | None = None
        self._buffer: list[NDArray[np.float32]] = []

    def add(self, X: NDArray[np.float32]) -> None:
        """Add (m, d) float32 rows."""
        self.n_seen += len(X)
        # In pieces, so that one large array needs no more memory than many small ones.
        for start in range(0, len(X), self.n_rows + self.n_waiting):
            self._add(X[start : start + self.n_rows + self.n_waiting])

    def _add(self, X: NDArray[np.float32]) -> None:
        if self._rows is not None and self.radius > 0:
            X = X[nearest_center(X, self._rows)[0] > self.radius]
        if len(X):
            self._buffer.append(np.array(X, np.float32))
        if sum(map(len, self._buffer)) >= self.n_waiting:
            self._reduce()

    @property
    def rows(self) -> NDArray[np.float32]:
        """The coreset of all rows seen."""
        if self._buffer:
            self._reduce()
        return np.empty((0, 0), np.float32) if self._rows is None else self._rows

    def state(self) -> dict[str, Any]:
        """Return everything but the rows as plain data; see `from_state`."""
        return {
            "n_rows": self.n_rows,
            "n_waiting": self.n_waiting,
            "random_state": self.random_state,
            "radius": self.radius,
            "cover": self.cover,
            "n_seen": self.n_seen,
        }

    @classmethod
    def from_state(cls, rows: NDArray[np.float32], state: Mapping[str, Any]) -> "Coreset":
        """Return the coreset whose `rows` and `state` these are."""
        coreset = cls(state["n_rows"], n_waiting=state["n_waiting"], random_state=state["random_state"])
        coreset.radius, coreset.cover = float(state["radius"]), float(state["cover"])
        coreset.n_seen = int(state["n_seen"])
        coreset._rows = rows if len(rows) else None
        return coreset

    def _reduce(self) -> None:
        rows = np.concatenate([*([] if self._rows is None else [self._rows]), *self._buffer])
        self._buffer = []
        if len(rows) > self.n_rows:
            chosen, radius = k_center(rows, self.n_rows, random_state=self.random_state)
            rows = rows[chosen]
            self.cover += radius
            self.radius = max(self.radius, radius)
        self._rows = rows


def _projected(X: NDArray[np.float32], dim: int | None, rng: np.random.RandomState) -> NDArray[np.float32]:
    if dim is None or dim >= X.shape[1]:
        return X
    directions = rng.standard_normal((X.shape[1], dim)).astype(np.float32) / np.float32(np.sqrt(dim))
    projected: NDArray[np.float32] = np.ascontiguousarray(X @ directions)
    return projected
