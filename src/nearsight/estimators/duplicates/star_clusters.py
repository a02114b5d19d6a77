"""Groups of duplicates in which every row was compared with the kept one."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# The best so many duplicates of the kept row vote on a row in doubt.
_N_VOTERS = 5

# From two arrays of m rows to which of the pairs are duplicates.
PairTest = Callable[[Ints, Ints], NDArray[np.bool_]]


def star_groups(n: int, pairs: Ints, quality: Floats, are_duplicates: PairTest) -> tuple[Ints, Ints]:
    """Group duplicates around the best of them.

    *Method*: star clustering (Aslam et al. 2004, https://doi.org/10.7155/jgaa.00084) with quality in place of
    degree: in each connected component, the row of the highest quality is kept and takes its duplicates; the
    remaining rows are grouped again. So a chain of images, each a duplicate of the next, is not a group if
    its ends differ. Deviation: the kept row may be an edit itself, too different from two other edits; so a
    row that is a duplicate of most of the best 5 rows in the group, and of at least two, joins it as well.

    Parameters
    ----------
    n : int
        Number of rows.
    pairs : ndarray of shape (m, 2), int64
        Duplicate pairs.
    quality : ndarray of shape (n,), float
        Higher is better; of equal rows, the first.
    are_duplicates : callable
        Is asked about pairs of rows that share a duplicate without being a pair.

    Returns
    -------
    labels : ndarray of shape (n,), int64
        The group of each row, -1 for rows without one.
    kept : ndarray of shape (n_groups,), int64
        The kept row of each group.
    """
    labels = np.full(n, -1, np.int64)
    kept: list[int] = []
    rank = np.empty(n, np.int64)
    rank[np.lexsort((np.arange(n), -quality))] = np.arange(n)
    tested = _TestedPairs(pairs, are_duplicates)
    while len(pairs):
        graph = _graph(n, pairs)
        nearby = {hub: _within_two_edges(graph, hub) for hub in _hubs(graph, pairs, rank)}
        tested.test([(hub, row) for hub, rows in nearby.items() for row in rows])
        stars = {hub: [row for row in rows if tested.is_duplicate(hub, row)] for hub, rows in nearby.items()}
        voters = {hub: sorted(rows, key=rank.__getitem__)[:_N_VOTERS] for hub, rows in stars.items()}
        doubtful = {hub: sorted({*nearby[hub]} - {*rows}) for hub, rows in stars.items()}
        tested.test([(row, voter) for hub, rows in doubtful.items() for row in rows for voter in voters[hub]])
        for hub, rows in stars.items():
            n_required = max(2, len(voters[hub]) / 2 + 0.5)
            elected = [
                row
                for row in doubtful[hub]
                if sum(tested.is_duplicate(row, voter) for voter in voters[hub]) >= n_required
            ]
            labels[[hub, *rows, *elected]] = len(kept)
            kept.append(hub)
        pairs = pairs[(labels[pairs] < 0).all(axis=1)]
    return _numbered_by_first_row(labels, np.array(kept, np.int64))


class _TestedPairs:
    """Which pairs are duplicates; each pair is tested once."""

    def __init__(self, pairs: Ints, are_duplicates: PairTest) -> None:
        self._are_duplicates = are_duplicates
        self._results = dict.fromkeys(map(_edge, *pairs.T.tolist()), True)

    def test(self, edges: Iterable[tuple[int, int]]) -> None:
        if untested := sorted({_edge(*edge) for edge in edges} - self._results.keys()):
            left, right = np.array(untested, np.int64).T  # the lower row first
            results = self._are_duplicates(left, right).tolist()
            self._results |= dict(zip(untested, results, strict=True))

    def is_duplicate(self, left: int, right: int) -> bool:
        return self._results[_edge(left, right)]


def _graph(n: int, pairs: Ints) -> csr_array:
    both = np.concatenate([pairs, pairs[:, ::-1]])
    return csr_array((np.ones(len(both), np.int8), (both[:, 0], both[:, 1])), shape=(n, n))


def _hubs(graph: csr_array, pairs: Ints, rank: Ints) -> list[int]:
    """Return the best row of each component."""
    _, component = connected_components(graph, directed=False)
    rows = np.unique(pairs)
    rows = rows[np.argsort(rank[rows])]
    _, first = np.unique(component[rows], return_index=True)
    hubs: list[int] = rows[np.sort(first)].tolist()
    return hubs


def _within_two_edges(graph: csr_array, hub: int) -> list[int]:
    """Return the neighbors of a row and their neighbors; more distant rows are hardly its duplicates."""
    neighbors = graph.indices[graph.indptr[hub] : graph.indptr[hub + 1]]
    second = [graph.indices[graph.indptr[row] : graph.indptr[row + 1]] for row in neighbors]
    rows: list[int] = np.setdiff1d(np.concatenate([neighbors, *second]), [hub]).tolist()
    return rows


def _edge(left: int, right: int) -> tuple[int, int]:
    return (left, right) if left < right else (right, left)


def _numbered_by_first_row(labels: Ints, kept: Ints) -> tuple[Ints, Ints]:
    """Return both with groups numbered in the order of their first rows."""
    grouped = np.flatnonzero(labels >= 0)
    _, first = np.unique(labels[grouped], return_index=True)
    order = np.argsort(grouped[first])
    number = np.empty(len(kept), np.int64)
    number[order] = np.arange(len(kept))
    labels[grouped] = number[labels[grouped]]
    return labels, kept[order]
