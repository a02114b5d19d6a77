"""Neighbors by parts: k-means parts of the references, and products of queries with the parts around them."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from nearsight.estimators.neighbors.best_rows import BestRows, highest
from nearsight.parallel import ordered_map

Ints = NDArray[np.int64]
Floats = NDArray[Any]

#: Called with the number of queries that were compared with one more part.
Progress = Callable[[int], object]

# Where many parts must be searched, a graph (usearch) takes longer still: for 30,000 rows 20.6 s of processor
# time, and 10.8 s here with 136 of 346 parts for each, both at a recall of 0.99 (benchmarks/neighbors.py).

# Rows that the centers are fitted on, for each part.
_ROWS_PER_CENTER = 40
# A part of more than so many times the mean is split, so that the costs are bounded whatever the data.
_MOST_TIMES_MEAN = 4
# Queries and references of a block of products.
_BLOCK_ROWS = 2048
# Parts that are ranked at first; later twice as many each time.
_RANKED_PARTS = 8


class Parts:
    """References in k-means parts.

    *Method*: an inverted file (Jegou et al. 2011, https://doi.org/10.1109/TPAMI.2010.57, section IV, without
    the codes). A part much larger than the mean is split again, and where its rows are the same, by halves.

    Parameters
    ----------
    references : ndarray of shape (m, d)
    n_parts : int
    random_state : int or None
    n_threads : int
    """

    def __init__(self, references: Floats, n_parts: int, random_state: int | None, n_threads: int) -> None:
        self._references, self._n_threads = references, n_threads
        self._random_state = random_state
        centers = self._fit(np.arange(len(references)), n_parts)
        rows_of = _by_value(self._ranked(references, centers, 1)[:, 0], len(centers))
        limit = max(1, _MOST_TIMES_MEAN * len(references) // n_parts)
        self.rows: list[Ints] = []
        split_centers = []
        for center, rows in zip(centers, rows_of, strict=True):
            for own_center, own_rows in self._split(center, rows, limit):
                self.rows.append(own_rows)
                split_centers.append(own_center)
        self.centers = np.stack(split_centers)

    def __len__(self) -> int:
        return len(self.rows)

    def ranked(self, queries: Floats, first: int, last: int) -> NDArray[np.int32]:
        """Return the parts of rank `first` to `last` around each query, the nearest first."""
        return self._ranked(queries, self.centers, last)[:, first:]

    def _fit(self, rows: Ints, n_parts: int) -> Floats:
        rng = np.random.default_rng(self._random_state)
        sample = rng.choice(rows, min(len(rows), n_parts * _ROWS_PER_CENTER), replace=False)
        # k-means++ would cost n_parts² products in Python; random starts do as well with so many centers.
        model = MiniBatchKMeans(
            n_parts, init="random", n_init=1, max_iter=10, batch_size=4096, random_state=self._random_state
        ).fit(self._references[np.sort(sample)])
        centers: Floats = model.cluster_centers_.astype(self._references.dtype)
        return centers

    def _split(self, center: Floats, rows: Ints, limit: int) -> Iterator[tuple[Floats, Ints]]:
        if len(rows) <= limit:
            yield center, rows
            return
        centers = self._fit(rows, -(-len(rows) // limit) + 1)
        rows_of = _by_value(self._ranked(self._references[rows], centers, 1)[:, 0], len(centers))
        for own_center, places in zip(centers, rows_of, strict=True):
            # Rows that are nearly the same have no parts; any of them will do as neighbors.
            n_pieces = -(-len(places) // limit)
            yield from ((own_center, rows[piece]) for piece in np.array_split(places, max(1, n_pieces)))

    def _ranked(self, X: Floats, centers: Floats, n: int) -> NDArray[np.int32]:
        ranks = np.empty((len(X), n), np.int32)
        offsets = np.einsum("ij,ij->i", centers, centers) / 2
        blocks = [slice(at, at + _BLOCK_ROWS) for at in range(0, len(X), _BLOCK_ROWS)]

        def rank(block: slice) -> NDArray[np.int64]:
            return highest(X[block] @ centers.T - offsets, n)[0]

        with threadpool_limits(1, "blas"):
            for block, columns in zip(
                blocks, ordered_map(rank, blocks, n_threads=self._n_threads), strict=True
            ):
                ranks[block] = columns
        return ranks


def search_by_parts(
    queries: Floats,
    references: Floats,
    best: BestRows,
    *,
    own: Ints,
    offsets: Floats | None,
    n_parts: int,
    random_state: int | None,
    n_threads: int,
    is_enough: Callable[[], bool],
    progress: Progress | None = None,
) -> None:
    """Compare each query with the parts around it, one more at a time, until that is enough, or all.

    In each round, each query is compared with the part of the next rank. So a round compares every query
    with one part only, threads never meet, and results do not depend on their number.

    Parameters
    ----------
    queries : ndarray of shape (n, d)
    references : ndarray of shape (m, d)
    best : BestRows
        Of the queries; changed in place.
    own : ndarray of shape (n,), int64
        The reference that each query is itself, or -1.
    offsets : ndarray of shape (m,), optional
        Is taken off the similarities to each reference.
    n_parts : int
    random_state : int or None
    n_threads : int
    is_enough : callable
        Is asked after every round.
    progress : callable, optional
    """
    parts = Parts(references, n_parts, random_state, n_threads)
    n_ranked, done = 0, 0
    while done < len(parts):
        n_ranked = min(len(parts), max(_RANKED_PARTS, 2 * n_ranked))
        ranks = parts.ranked(queries, done, n_ranked)
        for rank in range(n_ranked - done):
            queries_of = _by_value(ranks[:, rank], len(parts))
            compare = partial(_compare, queries, references, best, own, offsets)
            pairs = [(some, rows) for some, rows in zip(queries_of, parts.rows, strict=True) if len(some)]
            with threadpool_limits(1, "blas"):
                for n_compared in ordered_map(compare, pairs, n_threads=n_threads):
                    if progress is not None:
                        progress(n_compared)
            if is_enough():
                return
        done = n_ranked


def _compare(
    queries: Floats,
    references: Floats,
    best: BestRows,
    own: Ints,
    offsets: Floats | None,
    pair: tuple[Ints, Ints],
) -> int:
    """Compare some queries with the sorted rows of one part; return the number of queries."""
    some, rows = pair
    for first in range(0, len(rows), _BLOCK_ROWS):
        columns = rows[first : first + _BLOCK_ROWS]
        vectors = references[columns].T
        for start in range(0, len(some), _BLOCK_ROWS):
            lines = some[start : start + _BLOCK_ROWS]
            products = queries[lines] @ vectors
            if offsets is not None:
                products -= offsets[columns]
            leave_out_own(products, own[lines], columns)
            best.merge(lines, columns, products)
    return len(some)


def leave_out_own(products: Floats, own: Ints, columns: Ints) -> None:
    """Set the similarity of each query to itself to -inf; `columns` are sorted."""
    at = np.minimum(np.searchsorted(columns, own), len(columns) - 1)
    present = np.flatnonzero(columns[at] == own)
    products[present, at[present]] = -np.inf


def _by_value(values: NDArray[np.integer[Any]], n: int) -> list[Ints]:
    """Return the positions of each of the values 0..n-1, ascending."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.searchsorted(values[order], np.arange(1, n)))
