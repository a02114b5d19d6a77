"""Rows in partitions around centers, of which a search compares the nearest: an inverted file (IVF).

Built in a small part of the time that a graph takes, and as fast to search where vectors lie in clusters.
Where they do not, too many partitions hold the nearest rows; that is measured, and then a graph is built.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nearsight.store.memory.accelerators import byte_products
from nearsight.store.memory.codes import Codes, encode, rounded
from nearsight.store.memory.rows import Part, Rows

_CENTERS_PER_ROOT = 2  # of the number of rows
_ROWS_PER_CENTER, _N_ITERATIONS, _ROWS_PER_STEP = 25, 5, 8192
# Rows that stand for queries; neighbors, candidates that are compared exactly, and every which row is asked.
_N_QUERIES, _LEVELS = 500, ((10, 30, 1), (100, 300, 5), (1000, 3000, 10))
_TARGET_RECALL = 0.9925
# Numbers that a search of ten neighbors may compare; a walk through a graph takes no longer than that.
_MAX_NUMBERS = 10_000_000


@dataclass(slots=True)
class Partitions:
    """Rows of which those of a partition follow each other.

    Attributes
    ----------
    centers : Codes
        Of shape (p, d).
    ends : ndarray of int64, shape (p,)
        The row after the last of each partition.
    codes : Codes
        Of the rows, of shape (n, d).
    reach : list of (int, int)
        Candidates, and the partitions that have to be compared for so many.
    recall : float
        The share of the ten nearest that searches were seen to find.
    """

    centers: Codes
    ends: NDArray[np.int64]
    codes: Codes
    reach: list[tuple[int, int]]
    recall: float = 1.0

    def __len__(self) -> int:
        return len(self.codes.values)

    def search(
        self, queries: NDArray[np.int8], count: int, n_threads: int | None = None
    ) -> list[NDArray[np.int64]]:
        """Return the positions of at most `count` near rows for each of the (b, d) queries."""
        n_probes = self.n_probes(count)
        return [self._nearest(query, count, n_probes) for query in queries]

    def n_probes(self, count: int) -> int:
        """Return how many partitions to compare for so many candidates."""
        known = next((n_probes for limit, n_probes in self.reach if count <= limit), None)
        if known is None:
            limit, n_probes = self.reach[-1]
            known = -(-n_probes * count // limit)
        return min(known, len(self.ends))

    def _nearest(self, query: NDArray[np.int8], count: int, n_probes: int) -> NDArray[np.int64]:
        likeness = byte_products(query, self.centers.values) * self.centers.scales
        chosen = np.argpartition(likeness, len(likeness) - n_probes)[len(likeness) - n_probes :]
        ends = self.ends[chosen].tolist()
        starts = np.where(chosen > 0, self.ends[chosen - 1], 0).tolist()
        parts = [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]
        if sum(end - start for start, end in parts) < count and n_probes < len(self.ends):
            # Where rows are equal, rounding decides which partition holds them, and the nearest may be empty.
            return self._nearest(query, count, min(len(self.ends), 2 * n_probes))
        if not parts:
            return np.empty(0, np.int64)
        rows: NDArray[np.int64] = np.concatenate([np.arange(start, end) for start, end in parts])
        values, scales = self.codes.values, self.codes.scales
        scores = np.concatenate([byte_products(query, values[start:end]) for start, end in parts])
        if len(rows) <= count:
            return rows
        scores *= scales[rows]
        return rows[np.argpartition(scores, len(rows) - count)[len(rows) - count :]]


def grouped(part: Part, check_stop: Callable[[], None]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (p, d) centers of the rows, and of each row the number of the center nearest by its cosine.

    *Method*: spherical k-means (Dhillon and Modha 2001), a few iterations on 25 rows a center.
    """
    n, rng = len(part), np.random.default_rng(0)
    n_centers = min(n, max(1, int(_CENTERS_PER_ROOT * n**0.5)))
    chosen = np.sort(rng.choice(n, min(n, _ROWS_PER_CENTER * n_centers), replace=False))
    sample = part.vectors.take(chosen) * part.inverse_norms[chosen, None]
    centers = sample[rng.choice(len(sample), n_centers, replace=False)]

    def nearest(units: NDArray[np.float32]) -> NDArray[np.int64]:
        check_stop()
        numbers: NDArray[np.int64] = np.argmax(units @ centers.T, axis=1)
        return numbers

    for _ in range(_N_ITERATIONS):
        starts = range(0, len(sample), _ROWS_PER_STEP)
        own = np.concatenate([nearest(sample[start : start + _ROWS_PER_STEP]) for start in starts])
        sums = np.zeros_like(centers)
        np.add.at(sums, own, sample)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A center without rows, or whose rows cancel out, begins anew.
        fresh = sample[rng.choice(len(sample), n_centers)]
        centers = np.where(lengths > 1e-6, sums / np.maximum(lengths, 1e-6), fresh)
    blocks = [
        nearest(part.vectors.block(start, min(n, start + _ROWS_PER_STEP)))
        for start in range(0, n, _ROWS_PER_STEP)
    ]
    return centers, np.concatenate(blocks)


def measured(
    part: Part, centers: NDArray[np.float32], numbers: NDArray[np.int64], check_stop: Callable[[], None]
) -> Partitions | None:
    """Return the partitions of rows that are in their order, or None where they would be slow.

    How many of them a search compares is the least that finds enough for some stored rows, which do not count
    as found.

    Parameters
    ----------
    part : Part
    centers : ndarray of float32, shape (p, d)
    numbers : ndarray of int64, shape (n,)
        The partition of each row, ascending.
    check_stop : callable
    """
    codes = part.codes
    if codes is None:
        return None
    ends = np.searchsorted(numbers, np.arange(len(centers)), side="right")
    partitions = Partitions(encode(centers, np.ones(len(centers), np.float32)), ends, codes, [])
    rng = np.random.default_rng(1)
    asked = rng.permutation(len(part))[: min(_N_QUERIES, len(part) // 10)]
    for k, count, stride in _LEVELS:
        if len(part) < 10 * k:
            break
        n_probes, recall = _least(partitions, part, np.sort(asked[::stride]), k, count, check_stop)
        if not partitions.reach:
            if recall < _TARGET_RECALL or n_probes * codes.values.size > _MAX_NUMBERS * len(centers):
                return None
            partitions.recall = recall
        least = partitions.reach[-1][1] if partitions.reach else 0
        partitions.reach.append((count, max(least, n_probes)))
    # So few rows are all compared.
    partitions.reach = partitions.reach or [(1, len(ends))]
    return partitions


def _least(
    partitions: Partitions,
    part: Part,
    asked: NDArray[np.int64],
    k: int,
    count: int,
    check_stop: Callable[[], None],
) -> tuple[int, float]:
    """Return how many partitions find enough of the k nearest, and the share that they find."""
    queries = part.vectors.take(asked) * part.inverse_norms[asked, None]
    # One more, since each finds itself.
    nearest = Rows.of(part).compare_at_once(queries, k + 1, np.arange(len(part)))
    limits = [np.partition(cosines, len(cosines) - k - 1)[len(cosines) - k - 1] for _, cosines in nearest]
    codes = rounded(queries)
    n_probes, recall = 0, 0.0
    for n_probes in _ladder(len(partitions.ends)):
        check_stop()
        found = replace(partitions, reach=[(count, n_probes)]).search(codes, count)
        others = [keys[keys != own] for keys, own in zip(found, asked, strict=True)]
        recall = _recall(part, queries, others, limits, k)
        if recall >= _TARGET_RECALL:
            break
    return n_probes, recall


def _ladder(n_partitions: int) -> list[int]:
    """Return numbers of partitions to try, each half as many again.

    Examples
    --------
    >>> _ladder(30)
    [4, 6, 9, 13, 19, 28, 30]
    """
    numbers = [min(4, n_partitions)]
    while numbers[-1] < n_partitions:
        numbers.append(min(n_partitions, numbers[-1] * 3 // 2))
    return numbers


def _recall(
    part: Part,
    queries: NDArray[np.float32],
    found: Sequence[NDArray[np.int64]],
    limits: Sequence[float],
    k: int,
) -> float:
    hits = [
        min(k, int((part.similarities(query, keys) >= limit - 1e-6).sum()))
        for query, keys, limit in zip(queries, found, limits, strict=True)
    ]
    return sum(hits) / (k * len(hits))
