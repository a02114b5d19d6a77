"""A bounded choice of rows that lies close to every row there was, out of an array or a stream."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from nearsight.errors import InvalidParameterError

# Distances of a block of rows to the centers: 32 MB at 2,000 centers.
_BLOCK = 4096


def k_center(
    X: NDArray[np.float32], n: int, *, projected_dim: int | None = 64, random_state: Any = 0
) -> tuple[NDArray[np.int64], float]:
    """Choose rows so that the row farthest from all of them is as near as can be.

    *Method*: the greedy rule of Gonzalez 1985 (https://doi.org/10.1016/0304-3975(85)90224-5), which keeps
    within twice the best possible radius: start with a row drawn at random, then always take the row farthest
    from those taken. As in Roth et al. 2022 (arXiv 2106.08265, section 3.2) distances are measured after a
    random projection (Johnson and Lindenstrauss 1984), where `projected_dim` is given and less than d.

    Parameters
    ----------
    X : ndarray of shape (m, d), float32
    n : int
        Rows to choose, at least 1. Fewer come back where `X` has fewer that differ.
    projected_dim : int, optional
        Numbers a row is projected to; None measures distances as they are.
    random_state : int, RandomState or None
        Draws the first row and the projection.

    Returns
    -------
    indices : ndarray of shape (<= n,), int64
        In the order of choice: each start of it is a choice of its own.
    radius : float
        Distance in `X` itself of the farthest row from its nearest chosen one; 0 where all were chosen.

    Notes
    -----
    Costs n x m x min(d, projected_dim) multiplications, and memory for one distance a row.

    Examples
    --------
    >>> import numpy as np
    >>> chosen, radius = k_center(np.array([[0.0], [1.0], [9.0], [10.0]], np.float32), 2)
    >>> sorted((chosen // 2).tolist()), radius
    ([0, 1], 1.0)
    """
    if n < 1:
        raise InvalidParameterError(f"n is {n}; at least 1 row must be chosen")
    X = np.ascontiguousarray(X, np.float32)
    if not len(X):
        return np.empty(0, np.int64), 0.0
    rng = check_random_state(random_state)
    projected = _projected(X, projected_dim, rng)
    lengths = np.einsum("md,md->m", projected, projected)
    chosen = np.empty(min(n, len(X)), np.int64)
    chosen[0] = rng.randint(len(X))
    # Squares that come out negative are rounding.
    away = np.full(len(X), np.inf, np.float32)
    for i in range(len(chosen)):
        at = chosen[i]
        np.minimum(away, lengths - 2 * (projected @ projected[at]) + lengths[at], out=away)
        away[at] = 0
        if i + 1 < len(chosen):
            chosen[i + 1] = away.argmax()
            if away[chosen[i + 1]] <= 1e-6 * max(float(lengths.max()), 1e-30):
                chosen = chosen[: i + 1]
                break
    radius = float(nearest(X, X[chosen])[0].max()) if len(chosen) < len(X) else 0.0
    return chosen, radius


def nearest(
    X: NDArray[np.float32], centers: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return each row's Euclidean distance to the nearest center, and which one that is.

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
    half = np.einsum("kd,kd->k", centers, centers) / 2
    distances, indices = np.empty(len(X), np.float32), np.empty(len(X), np.int64)
    for start in range(0, len(X), _BLOCK):
        block = X[start : start + _BLOCK]
        found = np.argmin(half - block @ centers.T, axis=1)
        indices[start : start + _BLOCK] = found
        # From the difference itself: a small distance out of two large products would be noise.
        distances[start : start + _BLOCK] = np.linalg.norm(block - centers[found], axis=1)
    return distances, indices


class Coreset:
    """At most so many rows out of a stream of any length, near to every row that was seen.

    *Method*: rows that lie within the present radius of the memory are covered and dropped; others wait, and
    when `n_waiting` have gathered, `k_center` chooses among memory and waiting rows (merge and reduce, after
    the streaming k-center of Charikar et al. 1997, https://doi.org/10.1145/258533.258657). Each choice adds
    its radius to `cover`, so that every row seen lies within `cover` of the memory.

    Parameters
    ----------
    n_rows : int
        The most rows that are kept.
    n_waiting : int, optional
        Rows gathered before a choice; by default three times as many as are kept.
    random_state : int
        Seeds each choice.

    Attributes
    ----------
    rows : ndarray of shape (k, d), float32
        What is kept so far, waiting rows included where they still fit.
    radius, cover : float
    n_seen : int
    """

    def __init__(self, n_rows: int, *, n_waiting: int | None = None, random_state: int = 0) -> None:
        if n_rows < 1:
            raise InvalidParameterError(f"n_rows is {n_rows}; at least 1 row must be kept")
        self.n_rows = n_rows
        self.n_waiting = 3 * n_rows if n_waiting is None else n_waiting
        self.random_state = random_state
        self.radius = self.cover = 0.0
        self.n_seen = 0
        self._kept: NDArray[np.float32] | None = None
        self._waiting: list[NDArray[np.float32]] = []

    def add(self, X: NDArray[np.float32]) -> None:
        """Take in rows, (m, d) float32."""
        self.n_seen += len(X)
        # In pieces, so that one large array needs no more room than many small ones.
        for start in range(0, len(X), self.n_rows + self.n_waiting):
            self._add(X[start : start + self.n_rows + self.n_waiting])

    def _add(self, X: NDArray[np.float32]) -> None:
        if self._kept is not None and self.radius > 0:
            X = X[nearest(X, self._kept)[0] > self.radius]
        if len(X):
            self._waiting.append(np.array(X, np.float32))
        if sum(map(len, self._waiting)) >= self.n_waiting:
            self._reduce()

    @property
    def rows(self) -> NDArray[np.float32]:
        """The memory: at most `n_rows` rows."""
        if self._waiting:
            self._reduce()
        return np.empty((0, 0), np.float32) if self._kept is None else self._kept

    def facts(self) -> dict[str, Any]:
        """Return all but the rows as plain data; `restored` goes on from there."""
        return {
            "n_rows": self.n_rows,
            "n_waiting": self.n_waiting,
            "random_state": self.random_state,
            "radius": self.radius,
            "cover": self.cover,
            "n_seen": self.n_seen,
        }

    @classmethod
    def restored(cls, rows: NDArray[np.float32], facts: Mapping[str, Any]) -> "Coreset":
        """Return a coreset that goes on from what `rows` and `facts` of another one were."""
        coreset = cls(facts["n_rows"], n_waiting=facts["n_waiting"], random_state=facts["random_state"])
        coreset.radius, coreset.cover = float(facts["radius"]), float(facts["cover"])
        coreset.n_seen = int(facts["n_seen"])
        coreset._kept = rows if len(rows) else None
        return coreset

    def _reduce(self) -> None:
        kept = [] if self._kept is None else [self._kept]
        everything = np.concatenate([*kept, *self._waiting])
        self._waiting = []
        if len(everything) > self.n_rows:
            chosen, radius = k_center(everything, self.n_rows, random_state=self.random_state)
            everything = everything[chosen]
            self.cover += radius
            self.radius = max(self.radius, radius)
        self._kept = everything


def _projected(X: NDArray[np.float32], dim: int | None, rng: np.random.RandomState) -> NDArray[np.float32]:
    if dim is None or dim >= X.shape[1]:
        return X
    directions = rng.standard_normal((X.shape[1], dim)).astype(np.float32) / np.float32(np.sqrt(dim))
    projected: NDArray[np.float32] = np.ascontiguousarray(X @ directions)
    return projected
