"""From pairs to groups in which every row was compared with the one that is kept."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Given rows (m,) and (m,): which of these pairs are the same.
Judge = Callable[[Ints, Ints], NDArray[np.bool_]]


def star_groups(n: int, pairs: Ints, quality: Floats, judge: Judge) -> tuple[Ints, Ints]:
    """Group rows around the best of them.

    *Method*: of the rows that hang together, the one of the highest quality is kept, and takes all those with
    it that are the same as *it*; what is left goes on among itself (star clustering, Aslam et al. 2004,
    https://doi.org/10.7155/jgaa.00084, with quality in place of degree). So a chain of pictures, each like
    the next, whose ends have nothing in common is no group.

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
    same = dict.fromkeys(map(_edge, *pairs.T.tolist()), True)
    while len(pairs):
        graph = _graph(n, pairs)
        stars = {hub: _within_two(graph, hub) for hub in _hubs(graph, pairs, rank)}
        edges = [_edge(hub, row) for hub, rows in stars.items() for row in rows]
        if asked := [edge for edge in edges if edge not in same]:
            here, there = np.array(asked, np.int64).T  # the lower row first
            same |= dict(zip(asked, judge(here, there).tolist(), strict=True))
        for hub, rows in stars.items():
            labels[[hub, *(row for row in rows if same[_edge(hub, row)])]] = len(kept)
            kept.append(hub)
        pairs = pairs[(labels[pairs] < 0).all(axis=1)]
    return _in_order(labels, np.array(kept, np.int64))


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
    """Return the neighbours of a row, and theirs: what lies further away is hardly a copy of it."""
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
