"""How a search is answered, from sizes alone.

The numbers come from ``benchmarks/search.py``; see docs/figures.md.
"""

from typing import Literal

Path = Literal["exact", "graph", "store"]

#: Numbers of stored vectors up to which comparing every one of them is faster than a walk through the graph.
MAX_EXACT_NUMBERS = 6_000_000
# Many queries at once share no work in the exact path that a matrix product would not do at once.
_MAX_EXACT_NUMBERS_IN_A_BATCH = 2_000_000
_LARGE_BATCH = 16
#: Numbers of vectors from which on partitions, or a graph, are built.
MIN_GRAPH_NUMBERS = 10_000_000
#: Numbers of float32 that are held without being asked: 256 MB.
MAX_HELD_NUMBERS = 64_000_000
# A walk that returns this many candidates takes as long as the store's own index.
_MAX_CANDIDATES = 8192
#: Candidates of a graph for each neighbor that is wanted; their exact similarities are computed.
CANDIDATES_PER_NEIGHBOR = 3
_MIN_CANDIDATES = 30


def choose(n: int, m: int, d: int, k: int, batch: int = 1, *, has_graph: bool = True) -> Path:
    """Return how to answer a search: compare all rows, partitions or a graph, or the store.

    Parameters
    ----------
    n, m : int
        Rows in memory, and those of them that match the filter.
    d : int
        Length of the vectors.
    k : int
        Neighbors wanted.
    batch : int, default 1
        Queries at once.
    has_graph : bool, default True
        Whether there are partitions or a graph.

    Examples
    --------
    >>> choose(100_000, 100_000, 512, 10), choose(100_000, 1_000, 512, 10)
    ('graph', 'exact')
    >>> choose(20_000, 20_000, 1280, 10, has_graph=False), choose(10**6, 10**6, 512, 10, has_graph=False)
    ('exact', 'store')
    """
    exact_numbers = MAX_EXACT_NUMBERS if batch < _LARGE_BATCH else _MAX_EXACT_NUMBERS_IN_A_BATCH
    if m <= k or m * d <= exact_numbers:
        return "exact"
    if has_graph and n_candidates(n, m, k) <= _MAX_CANDIDATES:
        return "graph"
    return "exact" if m * d <= MAX_HELD_NUMBERS else "store"


def n_candidates(n: int, m: int, k: int) -> int:
    """Return of how many neighbors in the graph `k` match for sure enough, where `m` of `n` rows match.

    Examples
    --------
    >>> n_candidates(1000, 1000, 10), n_candidates(1000, 100, 10)
    (30, 300)
    """
    return max(_MIN_CANDIDATES, -(-CANDIDATES_PER_NEIGHBOR * k * n // max(m, 1)))
