"""The most similar rows of every row: exact where that is quick, by cells where it is not.

Memory beside the rows themselves is `n_neighbors` numbers a row, and one block of products.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

# Up to here, all rows are compared with all in seconds.
EXACT_ROWS = 20_000
# A block of products is at most this squared.
_BLOCK = 2048
# Rows whose cells are known at a time.
_ASKING = 20_000
# Rows that cells are learned on, for each cell.
_ROWS_A_CELL = 40
# Cells that each row is looked for in; copies are so near that they are seldom further.
_N_PROBES = 8

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Ways = NDArray[np.number[Any]]


def near_pairs(
    X: Floats,
    *,
    n_neighbors: int,
    min_similarity: float,
    sides: Ints | None = None,
    ways: Ways | None = None,
    exact_rows: int = EXACT_ROWS,
    random_state: int | None = 0,
) -> tuple[Ints, Floats]:
    """Return the pairs of which one is among the nearest of the other.

    *Method*: among up to `exact_rows` rows, every similarity is computed, block by block. Beyond, rows are
    put into about as many cells as a cell has rows (k-means on a sample), and each is compared with the rows
    of the 8 nearest cells: an inverted file, searched for all rows at once (Jegou et al. 2011,
    https://doi.org/10.1109/TPAMI.2010.57, section IV, without the codes).

    Parameters
    ----------
    X : ndarray of shape (n, d), float32, unit length
    n_neighbors : int
        Of each row, at most so many are paired with it.
    min_similarity : float
        Cosine in -1..1 below which two rows are no pair.
    sides : ndarray of shape (n,), int64, optional
        Only rows of different sides are paired, both at least 0.
    ways : ndarray of shape (n_ways, n, d), optional
        Other descriptions of each row, of any length and any type of number, in which it is looked for too:
        a pair's similarity is that of the best of the one row's ways, or its row of X, and the other's row of
        X. A way of zeros is like nothing.
    exact_rows : int
    random_state : int, optional
        Chooses the sample that cells are learned on.

    Returns
    -------
    pairs : ndarray of shape (m, 2), int64
        The lower row first; sorted.
    similarities : ndarray of shape (m,), float32

    Notes
    -----
    n²d operations for `exact_rows` rows, then 8 n^1.5 d; that for each way.
    """
    sides = np.zeros(len(X), np.int64) if sides is None else sides
    nearest = _Nearest(X, ways, n_neighbors, min_similarity, sides)
    across = len(np.unique(sides)) > 1
    groups = [np.flatnonzero(sides == side) for side in np.unique(sides) if side >= 0]
    for here in groups:
        # Across sides, each side is looked for among all others.
        there = np.flatnonzero((sides >= 0) & (sides != sides[here[0]])) if across else here
        if not len(there):
            continue
        if max(len(here), len(there)) <= exact_rows:
            nearest.offer(nearest.asking(here), there)
        else:
            _by_cells(nearest, X, here, there, random_state)
    return nearest.pairs()


def _by_cells(nearest: "_Nearest", X: Floats, here: Ints, there: Ints, random_state: int | None) -> None:
    n_cells = max(1, round(len(there) ** 0.5))
    rng = np.random.default_rng(random_state)
    sample = rng.choice(there, min(len(there), n_cells * _ROWS_A_CELL), replace=False)
    # Its own seeds cost n_cells² products in Python; rows drawn at random do as well in so many cells.
    means = MiniBatchKMeans(
        n_cells, init="random", n_init=1, max_iter=10, batch_size=4096, random_state=random_state
    ).fit(X[np.sort(sample)])
    centers = means.cluster_centers_.astype(np.float32)
    centers /= np.maximum(np.linalg.norm(centers, axis=1, keepdims=True), 1e-12)
    rows_in = _by_value(_nearest_cells(X[there], centers, 1)[:, 0], n_cells)
    n_probes = min(_N_PROBES, n_cells)
    for at in range(0, len(here), _ASKING):
        asking = nearest.asking(here[at : at + _ASKING])
        looks_in = np.concatenate(
            [
                _nearest_cells(nearest.asked(asking[start : start + _BLOCK]), centers, n_probes)
                for start in range(0, len(asking), _BLOCK)
            ]
        )
        asking_in = _by_value(looks_in.ravel(), n_cells)
        for cell in range(n_cells):
            nearest.offer(asking[asking_in[cell] // n_probes], there[rows_in[cell]])


def _nearest_cells(X: Floats, centers: Floats, n: int) -> NDArray[np.int32]:
    found = np.empty((len(X), n), np.int32)
    for at in range(0, len(X), _BLOCK):
        products = X[at : at + _BLOCK] @ centers.T
        found[at : at + _BLOCK] = np.argpartition(-products, n - 1, axis=1)[:, :n]
    return found


def _by_value(values: NDArray[np.integer[Any]], n: int) -> list[Ints]:
    """Return for each of the values 0..n-1 where it stands."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.searchsorted(values[order], np.arange(1, n)))


class _Nearest:
    """The best neighbors of every row so far."""

    def __init__(self, X: Floats, ways: Ways | None, k: int, min_similarity: float, sides: Ints) -> None:
        self._X, self._min_similarity, self._sides = X, min_similarity, sides
        self._ways = np.empty((0, *X.shape), np.int8) if ways is None else ways
        self._rows = np.full((len(X), k), -1, np.int64)
        self._similarities = np.full((len(X), k), -np.inf, np.float32)

    def asking(self, rows: Ints) -> Ints:
        """Return numbers for each row in each way, those of one row together."""
        n = 1 + len(self._ways)
        return (rows[:, None] * n + np.arange(n)).ravel()

    def asked(self, asking: Ints) -> Floats:
        """Return the unit vectors behind such numbers."""
        if not len(self._ways):
            return self._X[asking]
        rows, ways = np.divmod(asking, 1 + len(self._ways))
        queries = self._X[rows]
        other = np.flatnonzero(ways)
        some = self._ways[ways[other] - 1, rows[other]].astype(np.float32)
        queries[other] = some / np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1e-12)
        return queries

    def offer(self, asking: Ints, there: Ints) -> None:
        """Compare all that ask, sorted, with each row of `there`."""
        rows, first = np.unique(asking // (1 + len(self._ways)), return_index=True)
        at_once = max(1, _BLOCK // (1 + len(self._ways)))
        first = np.append(first, len(asking))
        for at in range(0, len(rows), at_once):
            mine = rows[at : at + at_once]
            starts = first[at : at + len(mine) + 1]
            queries = self.asked(asking[starts[0] : starts[-1]])
            for start in range(0, len(there), _BLOCK):
                answers = there[start : start + _BLOCK]
                products = queries @ self._X[answers].T
                if len(queries) > len(mine):
                    products = np.maximum.reduceat(products, starts[:-1] - starts[0], axis=0)
                # No row is its own neighbor.
                products[mine[:, None] == answers[None, :]] = -np.inf
                self._merge(mine, answers, products)

    def _merge(self, asked: Ints, answers: Ints, products: Floats) -> None:
        k = self._rows.shape[1]
        # Most rows find nothing better in a block, and need no sorting.
        worst = np.maximum(self._similarities[asked].min(axis=1), self._min_similarity)
        gains = np.flatnonzero(products.max(axis=1, initial=-np.inf) >= worst)
        if not len(gains):
            return
        products, asked = products[gains], asked[gains]
        if products.shape[1] > k:
            columns = np.argpartition(-products, k - 1, axis=1)[:, :k]
        else:
            columns = np.broadcast_to(np.arange(products.shape[1]), products.shape)
        similarities = np.concatenate(
            [self._similarities[asked], np.take_along_axis(products, columns, 1)], axis=1
        )
        rows = np.concatenate([self._rows[asked], answers[columns]], axis=1)
        best = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        self._similarities[asked] = np.take_along_axis(similarities, best, 1)
        self._rows[asked] = np.take_along_axis(rows, best, 1)

    def pairs(self) -> tuple[Ints, Floats]:
        """Return every pair once."""
        here, column = np.nonzero((self._rows >= 0) & (self._similarities >= self._min_similarity))
        there = self._rows[here, column]
        similarities = self._similarities[here, column]
        keys = np.minimum(here, there) * len(self._X) + np.maximum(here, there)
        # Of a pair that was found from both sides, the better.
        order = np.lexsort((-similarities, keys))
        first = order[np.unique(keys[order], return_index=True)[1]]
        pairs = np.stack([np.minimum(here, there)[first], np.maximum(here, there)[first]], axis=1)
        return pairs.astype(np.int64), similarities[first]
