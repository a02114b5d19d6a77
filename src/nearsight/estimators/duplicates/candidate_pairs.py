"""The nearest neighbors of every row as candidate pairs: exact for few rows, by cells for many.

Memory beside the rows themselves is `n_neighbors` numbers a row, and one block of products.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from nearsight.estimators.neighbors import similarity_blocks, unit_length

# Up to so many rows, all are compared with all in seconds.
EXACT_ROWS = 20_000
# A block of products has at most this number of rows and columns.
_BLOCK_ROWS = 2048
# Rows whose cells are kept at a time.
_QUERY_ROWS = 20_000
# Rows that the cells are fitted on, for each cell.
_ROWS_PER_CELL = 40
# Cells that each row is searched in; duplicates are seldom in a more distant one.
_N_PROBES = 8

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Variants = NDArray[np.number[Any]]


def candidate_pairs(
    X: Floats,
    *,
    n_neighbors: int,
    min_similarity: float,
    splits: Ints | None = None,
    variants: Variants | None = None,
    exact_rows: int = EXACT_ROWS,
    random_state: int | None = 0,
) -> tuple[Ints, Floats]:
    """Return the pairs of which one row is among the nearest neighbors of the other.

    *Method*: up to `exact_rows` rows, all similarities are computed, block by block. Beyond, an inverted file
    (Jegou et al. 2011, https://doi.org/10.1109/TPAMI.2010.57, section IV, without the codes): rows are put
    into sqrt(n) cells by k-means on a sample, and each row is compared with the rows of its 8 nearest cells.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32, unit length
    n_neighbors : int
        Neighbors of each row.
    min_similarity : float
        In -1..1: the lowest cosine of a pair.
    splits : ndarray of shape (n,), int64, optional
        Only rows of different splits are paired; rows of split -1 are left out.
    variants : ndarray of shape (n_variants, n, d), optional
        Other descriptions of each row, of any length and number type. The similarity of a pair is the highest
        of one row's variants, or its row of X, to the other's row of X. Zeros are similar to nothing.
    exact_rows : int
    random_state : int, optional
        Draws the sample that the cells are fitted on.

    Returns
    -------
    pairs : ndarray of shape (m, 2), int64
        The lower row first; sorted.
    similarities : ndarray of shape (m,), float32

    Notes
    -----
    Costs n² d operations up to `exact_rows` rows, then 8 n^1.5 d; as much for each variant.
    """
    splits = np.zeros(len(X), np.int64) if splits is None else splits
    best = _BestNeighbors(X, variants, n_neighbors, min_similarity)
    across = len(np.unique(splits)) > 1
    for split in np.unique(splits[splits >= 0]):
        rows = np.flatnonzero(splits == split)
        # Across splits, each split is compared with all others.
        references = np.flatnonzero((splits >= 0) & (splits != split)) if across else rows
        if not len(references):
            continue
        if max(len(rows), len(references)) <= exact_rows:
            best.compare(best.query_ids(rows), references)
        else:
            _compare_by_cells(best, X, rows, references, random_state)
    return best.pairs()


def _compare_by_cells(
    best: "_BestNeighbors", X: Floats, rows: Ints, references: Ints, random_state: int | None
) -> None:
    n_cells = max(1, round(len(references) ** 0.5))
    rng = np.random.default_rng(random_state)
    sample = rng.choice(references, min(len(references), n_cells * _ROWS_PER_CELL), replace=False)
    # k-means++ would cost n_cells² products in Python; random starts do as well with so many cells.
    cells = MiniBatchKMeans(
        n_cells, init="random", n_init=1, max_iter=10, batch_size=4096, random_state=random_state
    ).fit(X[np.sort(sample)])
    centers = unit_length(cells.cluster_centers_.astype(np.float32))
    references_in = _positions_by_value(_nearest_cells(X[references], centers, 1)[:, 0], n_cells)
    n_probes = min(_N_PROBES, n_cells)
    for start in range(0, len(rows), _QUERY_ROWS):
        queries = best.query_ids(rows[start : start + _QUERY_ROWS])
        probes = np.concatenate(
            [
                _nearest_cells(best.query_vectors(queries[at : at + _BLOCK_ROWS]), centers, n_probes)
                for at in range(0, len(queries), _BLOCK_ROWS)
            ]
        )
        queries_in = _positions_by_value(probes.ravel(), n_cells)
        for cell in range(n_cells):
            best.compare(queries[queries_in[cell] // n_probes], references[references_in[cell]])


def _nearest_cells(X: Floats, centers: Floats, n: int) -> NDArray[np.int32]:
    cells = np.empty((len(X), n), np.int32)
    for block, products in similarity_blocks(X, centers, block_rows=_BLOCK_ROWS):
        cells[block] = np.argpartition(-products, n - 1, axis=1)[:, :n]
    return cells


def _positions_by_value(values: NDArray[np.integer[Any]], n: int) -> list[Ints]:
    """Return the positions of each of the values 0..n-1."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.searchsorted(values[order], np.arange(1, n)))


class _BestNeighbors:
    """The best neighbors of every row so far.

    A query is a row in one of its variants; its id is row × (1 + number of variants) + variant, where variant
    0 is the row of X.
    """

    def __init__(self, X: Floats, variants: Variants | None, k: int, min_similarity: float) -> None:
        self._X, self._min_similarity = X, min_similarity
        self._variants = np.empty((0, *X.shape), np.int8) if variants is None else variants
        self._rows = np.full((len(X), k), -1, np.int64)
        self._similarities = np.full((len(X), k), -np.inf, np.float32)

    def query_ids(self, rows: Ints) -> Ints:
        """Return the ids of all queries of rows, those of one row together."""
        n_queries = 1 + len(self._variants)
        return (rows[:, None] * n_queries + np.arange(n_queries)).ravel()

    def query_vectors(self, queries: Ints) -> Floats:
        """Return the unit vectors of queries."""
        if not len(self._variants):
            return self._X[queries]
        rows, variants = np.divmod(queries, 1 + len(self._variants))
        vectors = self._X[rows]
        other = np.flatnonzero(variants)
        vectors[other] = unit_length(self._variants[variants[other] - 1, rows[other]].astype(np.float32))
        return vectors

    def compare(self, queries: Ints, references: Ints) -> None:
        """Compare queries, sorted by id, with each row of `references`."""
        rows, first = np.unique(queries // (1 + len(self._variants)), return_index=True)
        step = max(1, _BLOCK_ROWS // (1 + len(self._variants)))
        first = np.append(first, len(queries))
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            starts = first[start : start + len(block) + 1]
            vectors = self.query_vectors(queries[starts[0] : starts[-1]])
            for at in range(0, len(references), _BLOCK_ROWS):
                columns = references[at : at + _BLOCK_ROWS]
                products = vectors @ self._X[columns].T
                if len(vectors) > len(block):
                    products = np.maximum.reduceat(products, starts[:-1] - starts[0], axis=0)
                # No row is its own neighbor.
                products[block[:, None] == columns[None, :]] = -np.inf
                self._merge(block, columns, products)

    def _merge(self, rows: Ints, references: Ints, products: Floats) -> None:
        k = self._rows.shape[1]
        # Most rows have no better neighbor in a block, and need no sorting.
        worst = np.maximum(self._similarities[rows].min(axis=1), self._min_similarity)
        gains = np.flatnonzero(products.max(axis=1, initial=-np.inf) >= worst)
        if not len(gains):
            return
        products, rows = products[gains], rows[gains]
        if products.shape[1] > k:
            columns = np.argpartition(-products, k - 1, axis=1)[:, :k]
        else:
            columns = np.broadcast_to(np.arange(products.shape[1]), products.shape)
        similarities = np.concatenate(
            [self._similarities[rows], np.take_along_axis(products, columns, 1)], axis=1
        )
        neighbors = np.concatenate([self._rows[rows], references[columns]], axis=1)
        best = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        self._similarities[rows] = np.take_along_axis(similarities, best, 1)
        self._rows[rows] = np.take_along_axis(neighbors, best, 1)

    def pairs(self) -> tuple[Ints, Floats]:
        """Return every pair once, with the higher of its two similarities."""
        left, column = np.nonzero((self._rows >= 0) & (self._similarities >= self._min_similarity))
        right = self._rows[left, column]
        similarities = self._similarities[left, column]
        low, high = np.minimum(left, right), np.maximum(left, right)
        keys = low * len(self._X) + high
        order = np.lexsort((-similarities, keys))
        first = order[np.unique(keys[order], return_index=True)[1]]
        return np.stack([low[first], high[first]], axis=1).astype(np.int64), similarities[first]
