"""The best references of each query so far, merged block by block."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

# A query with so many times k better references in one block is cut down to the best k first.
_MOST_GAINS = 4


def highest(similarities: NDArray[Any], k: int) -> tuple[Ints, NDArray[Any]]:
    """Return the columns and values of the `k` highest numbers of each row, the highest first.

    Of equal numbers the lower column comes first.

    Parameters
    ----------
    similarities : ndarray of shape (n, m)
    k : int
        At least 1. With fewer columns, all of them are returned.

    Returns
    -------
    columns : ndarray of shape (n, min(k, m)), int64
    values : ndarray of shape (n, min(k, m))
    """
    n, m = similarities.shape
    if k < m:
        # Twice as fast as argpartition, which decides by chance which of equal numbers it returns.
        lowest = np.partition(similarities, m - k, axis=1)[:, m - k, None]
        is_candidate = similarities >= lowest
        surplus = np.count_nonzero(is_candidate, axis=1) - k
        for row in np.flatnonzero(surplus):
            [equal] = np.nonzero(similarities[row] == lowest[row])
            is_candidate[row, equal[len(equal) - surplus[row] :]] = False
        columns = np.nonzero(is_candidate)[1].reshape(n, k)
    else:
        columns = np.broadcast_to(np.arange(m), similarities.shape)
    values = np.take_along_axis(similarities, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


class BestRows:
    """The k most similar references of each query.

    Of equally similar ones those stay that came first, so the result does not depend on the number of
    threads, as long as the blocks of one query come in the same order.

    Parameters
    ----------
    n : int
        Number of queries.
    k : int
        At least 1.
    dtype : dtype
        Of the similarities.
    min_similarity : float
        References below are left out.

    Attributes
    ----------
    rows : ndarray of shape (n, k), int64
        The most similar first; -1 where there is none.
    similarities : ndarray of shape (n, k)
        -inf where there is none.
    """

    def __init__(self, n: int, k: int, dtype: Any, min_similarity: float = -np.inf) -> None:
        self.rows = np.full((n, k), -1, np.int64)
        self.similarities = np.full((n, k), -np.inf, dtype)
        # What is above is similar enough.
        self._floor = np.nextafter(np.asarray(min_similarity, dtype), np.asarray(-np.inf, dtype))

    @property
    def has_limit(self) -> bool:
        """Whether less similar references are left out."""
        return bool(self._floor > -np.inf)

    def limits(self, queries: Ints | slice) -> NDArray[Any]:
        """Return what the similarity of a reference to each query must exceed to be among the best."""
        limits: NDArray[Any] = np.maximum(self.similarities[queries, -1], self._floor)
        return limits

    def merge(self, queries: Ints | slice, references: Ints, products: NDArray[Any]) -> None:
        """Merge a block: the (q, r) similarities of queries to references, each seen for the first time."""
        limits = self.limits(queries)
        if not len(limits) or not len(references):
            return
        k = self.rows.shape[1]
        if len(references) > k and np.isneginf(limits).all():
            columns, values = highest(products, k)
            is_new = values > -np.inf
            at, column = np.nonzero(is_new)
            column, gains = columns[is_new], values[is_new]
        else:
            # Most queries have no better reference in a block, and nothing to sort.
            flat = np.flatnonzero(products > limits[:, None])
            at, column = np.divmod(flat, products.shape[1])
            gains = products.ravel()[flat]
        if not len(at):
            return
        first = np.flatnonzero(np.append(True, at[1:] != at[:-1]))
        counts = np.diff(np.append(first, len(at)))
        if counts.max() > _MOST_GAINS * k:
            heavy = at[first[counts > _MOST_GAINS * k]]
            is_light = ~np.isin(at, heavy)
            self.add(queries, at[is_light], references[column[is_light]], gains[is_light])
            columns, values = highest(products[heavy], k)
            is_new = values > limits[heavy, None]
            self.add(
                queries,
                np.repeat(heavy, k).reshape(-1, k)[is_new],
                references[columns[is_new]],
                values[is_new],
            )
        else:
            self.add(queries, at, references[column], gains)

    def add(self, queries: Ints | slice, at: Ints, rows: Ints, similarities: NDArray[Any]) -> None:
        """Add rows, each above its limit, to the queries at the sorted places `at`."""
        if not len(at):
            return
        k = self.rows.shape[1]
        is_first = np.append(True, at[1:] != at[:-1])
        first = np.flatnonzero(is_first)
        line = np.cumsum(is_first) - 1
        place = np.arange(len(at)) - first[line]
        some = at[first] + queries.start if isinstance(queries, slice) else queries[at[first]]
        width = k + int(place.max()) + 1
        values = np.full((len(some), width), -np.inf, self.similarities.dtype)
        ids = np.full((len(some), width), -1, np.int64)
        values[:, :k], ids[:, :k] = self.similarities[some], self.rows[some]
        values[line, k + place], ids[line, k + place] = similarities, rows
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
        self.similarities[some] = np.take_along_axis(values, order, axis=1)
        self.rows[some] = np.take_along_axis(ids, order, axis=1)
