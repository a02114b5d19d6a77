"""Neighbors by parts: k-means parts of the references, and products of queries with the parts around them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nearsight.estimators.neighbors.best_rows import BestRows, highest
from nearsight.estimators.neighbors.sketches import N_DIRECTIONS, Sketches
from nearsight.parallel import ordered_map

Ints = NDArray[np.int64]
Floats = NDArray[Any]

# Where many parts must be searched, a graph (usearch) takes longer still: for 30,000 rows 20.6 s of processor
# time, and 10.8 s here with 136 of 346 parts for each, both at a recall of 0.99 (benchmarks/neighbors.py).

# Rows that the centers are fitted on, for each part.
_ROWS_PER_CENTER = 40
# A part of more than so many times the mean is split, so that the costs are bounded whatever the data.
_MOST_TIMES_MEAN = 4
# Queries and references of a block of products.
_BLOCK_ROWS = 2048
# Share of a block's pairs up to which comparing them one by one is faster than all at once.
_MOST_LIKELY = 0.04
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
        from sklearn.cluster import MiniBatchKMeans

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
) -> bool:
    """Compare each query with the parts around it, one more at a time, until that is enough, or all.

    In each round, each query is compared with the part of the next rank. So a round compares every query
    with one part only, threads never meet, and results do not depend on their number.

    Long vectors are put into parts by their principal directions. Where similarities have a lower limit,
    only pairs whose sketches reach it are compared (`sketches`).

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

    Returns
    -------
    bool
        Whether it was enough in the end.
    """
    sketches = Sketches.of(references, random_state)
    if sketches is None:
        short_queries, short_references = queries, references
    else:
        short_references = sketches.sketch(references)
        short_queries = short_references if queries is references else sketches.sketch(queries)
    search = _PartSearch(
        queries, references, best, own, offsets,
        None if sketches is None or not best.has_limit else (short_queries, short_references),
    )  # fmt: skip
    if sketches is not None:
        # Contiguous, for faster products.
        directed = np.ascontiguousarray(short_references[:, :N_DIRECTIONS])
        short_queries = directed if queries is references else short_queries[:, :N_DIRECTIONS].copy()
        short_references = directed
    parts = Parts(short_references, n_parts, random_state, n_threads)
    n_ranked, done = 0, 0
    while done < len(parts):
        n_ranked = min(len(parts), max(_RANKED_PARTS, 2 * n_ranked))
        ranks = parts.ranked(short_queries, done, n_ranked)
        for rank in range(n_ranked - done):
            queries_of = _by_value(ranks[:, rank], len(parts))
            pairs = [(some, rows) for some, rows in zip(queries_of, parts.rows, strict=True) if len(some)]
            with threadpool_limits(1, "blas"):
                for _ in ordered_map(search.compare, pairs, n_threads=n_threads):
                    pass
            if is_enough():
                return True
        done = n_ranked
    return False


@dataclass(frozen=True, slots=True)
class _PartSearch:
    """Compares queries with the rows of a part.

    Attributes
    ----------
    queries, references, best, own, offsets
        See `search_by_parts`.
    sketches : pair of ndarrays, or None
        Of the queries and of the references; then offsets are None.
    """

    queries: Floats
    references: Floats
    best: BestRows
    own: Ints
    offsets: Floats | None
    sketches: tuple[Floats, Floats] | None

    def compare(self, pair: tuple[Ints, Ints]) -> None:
        """Compare some queries with the sorted rows of one part."""
        some, rows = pair
        for first in range(0, len(rows), _BLOCK_ROWS):
            columns = rows[first : first + _BLOCK_ROWS]
            for start in range(0, len(some), _BLOCK_ROWS):
                lines = some[start : start + _BLOCK_ROWS]
                if self.sketches is None or not self._compare_likely(*self.sketches, lines, columns):
                    self._compare_all(lines, columns)

    def _compare_all(self, lines: Ints, columns: Ints) -> None:
        products = self.queries[lines] @ self.references[columns].T
        if self.offsets is not None:
            products -= self.offsets[columns]
        leave_out_own(products, self.own[lines], columns)
        self.best.merge(lines, columns, products)

    def _compare_likely(self, queries: Floats, references: Floats, lines: Ints, columns: Ints) -> bool:
        """Compare the pairs whose sketches reach the limit, unless they are too many: then return False."""
        estimates = queries[lines] @ references[columns].T
        leave_out_own(estimates, self.own[lines], columns)
        limits = self.best.limits(lines)
        likely = np.flatnonzero(estimates > limits[:, None])
        if len(likely) > _MOST_LIKELY * estimates.size:
            return False
        at, column = np.divmod(likely, len(columns))
        similarities = np.empty(len(at), estimates.dtype)
        for start in range(0, len(at), _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            here, there = self.queries[lines[at[part]]], self.references[columns[column[part]]]
            np.einsum("ij,ij->i", here, there, out=similarities[part])
        is_better = similarities > limits[at]
        at, column = at[is_better], column[is_better]
        self.best.add(lines, at, columns[column], similarities[is_better])
        return True


def leave_out_own(products: Floats, own: Ints, columns: Ints) -> None:
    """Set the similarity of each query to itself to -inf; `columns` are sorted."""
    at = np.minimum(np.searchsorted(columns, own), len(columns) - 1)
    present = np.flatnonzero(columns[at] == own)
    products[present, at[present]] = -np.inf


def _by_value(values: NDArray[np.integer[Any]], n: int) -> list[Ints]:
    """Return the positions of each of the values 0..n-1, ascending."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.searchsorted(values[order], np.arange(1, n)))
