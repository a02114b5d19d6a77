"""From pairs to groups in which every row was compared with the one that is kept."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Of the rows that are the same as the kept one, the best so many decide about one in doubt.
_JURY = 5

# Given rows (m,) and (m,): which of these pairs are the same.
Judge = Callable[[Ints, Ints], NDArray[np.bool_]]


def star_groups(n: int, pairs: Ints, quality: Floats, judge: Judge) -> tuple[Ints, Ints]:
    """Group rows around the best of them.

    *Method*: of the rows that hang together, the one of the highest quality is kept, and takes all those with
    it that are the same as *it*; what is left goes on among itself (star clustering, Aslam et al. 2004,
    https://doi.org/10.7155/jgaa.00084, with quality in place of degree). So a chain of images, each like
    the next, whose ends have nothing in common is no group. Where we deviate: the kept one may be an edit
    itself, which two other edits have too little in common with; so a row also comes in that is the same as
    most of those that the kept one took, at least two (of the best 5).

    Parameters
    ----------
    n : int
        Number of rows.
    pairs : ndarray of shape (m, 2), int64
        Rows that are the same.
    quality : ndarray of shape (n,), float
        Higher is better; of equal rows, the first.
    judge : callable
        Is asked about rows that hang together over one other, without being a pair.

    Returns
    -------
    labels : ndarray of shape (n,), int64
        Number of a row's group, -1 for rows without one.
    kept : ndarray of shape (n_groups,), int64
        The row that each group keeps.
    """
    labels = np.full(n, -1, np.int64)
    kept: list[int] = []
    rank = np.empty(n, np.int64)
    rank[np.lexsort((np.arange(n), -quality))] = np.arange(n)
    known = _Known(pairs, judge)
    while len(pairs):
        graph = _graph(n, pairs)
        near = {hub: _within_two(graph, hub) for hub in _hubs(graph, pairs, rank)}
        known.ask([(hub, row) for hub, rows in near.items() for row in rows])
        stars = {hub: [row for row in rows if known.same(hub, row)] for hub, rows in near.items()}
        juries = {hub: sorted(rows, key=rank.__getitem__)[:_JURY] for hub, rows in stars.items()}
        in_doubt = {hub: sorted({*near[hub]} - {*rows}) for hub, rows in stars.items()}
        known.ask([(row, one) for hub, rows in in_doubt.items() for row in rows for one in juries[hub]])
        for hub, rows in stars.items():
            votes = {row: sum(known.same(row, one) for one in juries[hub]) for row in in_doubt[hub]}
            voted_in = [row for row, n_for in votes.items() if n_for >= max(2, len(juries[hub]) / 2 + 0.5)]
            labels[[hub, *rows, *voted_in]] = len(kept)
            kept.append(hub)
        pairs = pairs[(labels[pairs] < 0).all(axis=1)]
    return _in_order(labels, np.array(kept, np.int64))


class _Known:
    """Which pairs are the same, each asked once."""

    def __init__(self, pairs: Ints, judge: Judge) -> None:
        self._judge = judge
        self._same = dict.fromkeys(map(_edge, *pairs.T.tolist()), True)

    def ask(self, edges: Iterable[tuple[int, int]]) -> None:
        if asked := sorted({_edge(*edge) for edge in edges} - self._same.keys()):
            here, there = np.array(asked, np.int64).T  # the lower row first
            self._same |= dict(zip(asked, self._judge(here, there).tolist(), strict=True))

    def same(self, here: int, there: int) -> bool:
        return self._same[_edge(here, there)]


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


def _within_two(graph: csr_array, hub: int) -> list[int]:
    """Return the neighbors of a row, and theirs: what lies further away is hardly a copy of it."""
    near = graph.indices[graph.indptr[hub] : graph.indptr[hub + 1]]
    far = [graph.indices[graph.indptr[row] : graph.indptr[row + 1]] for row in near]
    rows: list[int] = np.setdiff1d(np.concatenate([near, *far]), [hub]).tolist()
    return rows


def _edge(here: int, there: int) -> tuple[int, int]:
    return (here, there) if here < there else (there, here)


def _in_order(labels: Ints, kept: Ints) -> tuple[Ints, Ints]:
    """Return both with groups numbered by their first rows, whatever the order of the work was."""
    members = np.flatnonzero(labels >= 0)
    _, first = np.unique(labels[members], return_index=True)
    order = np.argsort(members[first])
    number = np.empty(len(kept), np.int64)
    number[order] = np.arange(len(kept))
    labels[members] = number[labels[members]]
    return labels, kept[order]
