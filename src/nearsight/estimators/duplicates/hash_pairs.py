"""Candidate pairs by hashes: exact for few rows, by sorted permutations of their bits for many."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import cpu_count
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nearsight.estimators.duplicates.candidate_pairs import best_pairs, compared_rows
from nearsight.estimators.neighbors import ProgressCallback, unit_length
from nearsight.parallel import ordered_map

Bits = NDArray[np.uint64]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Numbers = NDArray[Any]

# Up to so many rows, all hashes are compared with all, in seconds.
EXACT_ROWS = 5_000
# Rows whose variants are compared together.
_BLOCK_ROWS = 1024
# Pairs whose variants are all compared with all: 15 MB.
_BLOCK_PAIRS = 512
# Orders of the bits, and hashes on either side of a place in each order that are compared.
_N_ORDERS, _WINDOW = 16, 8
# A number has so many bits.
_MOST_BITS = 64
# More bits may differ by at most so many where some are neither 1 nor -1: their similarity is computed anew.
_MOST_SLACK_BITS = 6


def hash_pairs(
    hashes: Numbers,
    variants: Numbers,
    *,
    n_neighbors: int,
    min_similarity: float,
    splits: Ints | None = None,
    exact_rows: int = EXACT_ROWS,
    random_state: int | None = 0,
    n_threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[Ints, Floats]:
    """Return the pairs of which one row's hash is among the nearest to any variant of the other's.

    *Method*: up to `exact_rows` rows, all with all. Beyond, hashes become bits, above or below the mean,
    which are sorted in 16 random orders. In each, a hash is compared with the 8 before and after its place
    (Charikar 2002, https://doi.org/10.1145/509907.509965, section 3; Ravichandran et al. 2005): where
    the first bits of an order agree, equal ones lie side by side. So the costs do not depend on how alike the
    hashes are. Two of 63 signs that differ in 6 are found with a probability of about 0.99.

    Parameters
    ----------
    hashes : ndarray of shape (n, e)
        Numbers of any type, such as signs; a row of zeros is similar to nothing.
    variants : ndarray of shape (n_variants, n, e)
        Other hashes of each row. The similarity of a pair is the highest cosine of one row's hash or variants
        to the other's hash.
    n_neighbors : int
        Pairs of each row.
    min_similarity : float
        In -1..1: the lowest similarity of a pair.
    splits : ndarray of shape (n,), int64, optional
        Only rows of different splits are paired; rows of split -1 are left out.
    exact_rows : int, default 5000
    random_state : int or None, default 0
        Draws the orders.
    n_threads : int, optional
        By default all cores. The result does not depend on it.
    progress : callable, optional
        Called with numbers of rows.

    Returns
    -------
    pairs : ndarray of shape (m, 2), int64
        The lower row first; sorted.
    similarities : ndarray of shape (m,), float32

    Notes
    -----
    Costs (1 + n_variants) n² e operations up to `exact_rows` rows, then some microseconds for each of the
    (1 + n_variants) n hashes. Memory: 256 bytes a row, and a block for each thread.
    """
    found = []
    for rows, references, own in compared_rows(splits, len(hashes)):
        search = _Search(hashes, variants, rows, references, own, n_neighbors, min_similarity)
        is_exact = max(len(rows), len(references)) <= exact_rows
        orders = None if is_exact else _Orders.of(hashes[references], random_state)
        blocks = [np.arange(at, min(at + _BLOCK_ROWS, len(rows))) for at in range(0, len(rows), _BLOCK_ROWS)]

        def compare(block: Ints, search: "_Search" = search, orders: "_Orders | None" = orders) -> Any:
            return search.compare_all(block) if orders is None else search.compare(block, orders)

        with threadpool_limits(1, "blas"):
            results = ordered_map(compare, blocks, n_threads=n_threads or cpu_count())
            for block, result in zip(blocks, results, strict=True):
                found.append(result)
                if progress is not None:
                    progress(len(block))
    if not found:
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    left, right, similarities = (np.concatenate(part) for part in zip(*found, strict=True))
    return best_pairs(left, right, similarities)


def most_similar_variants(
    plain: Numbers, edited: Numbers, pairs: Ints, *, n_threads: int | None = None
) -> Floats:
    """Return how alike the most similar hashes of the two rows of each pair are, of any variants.

    So an image that is both mirrored and cropped is recognized by the mirrored hash of the one and the
    cropped hash of the other.

    Parameters
    ----------
    plain : ndarray of shape (n_variants, n, e)
    edited : ndarray of shape (n_edits, n, e)
    pairs : ndarray of shape (m, 2), int64
    n_threads : int, optional
        By default all cores.

    Returns
    -------
    ndarray of shape (m,), float32
        Cosines; 1 where a row has no hash, so that nothing speaks against the pair.
    """
    similarities = np.ones(len(pairs), np.float32)

    def compare(block: Ints) -> Floats:
        here, there = (_unit(np.concatenate([plain[:, rows], edited[:, rows]])) for rows in block.T)
        products = np.matmul(here.swapaxes(0, 1), there.transpose(1, 2, 0))
        best: Floats = products.max(axis=(1, 2))
        best[~(here.any(axis=(0, 2)) & there.any(axis=(0, 2)))] = 1
        return best

    blocks = [pairs[at : at + _BLOCK_PAIRS] for at in range(0, len(pairs), _BLOCK_PAIRS)]
    with threadpool_limits(1, "blas"):
        results = ordered_map(compare, blocks, n_threads=n_threads or cpu_count())
        for at, own in zip(range(0, len(pairs), _BLOCK_PAIRS), results, strict=True):
            similarities[at : at + len(own)] = own
    return similarities


@dataclass(frozen=True, slots=True)
class _Orders:
    """The bits of hashes, sorted in several orders.

    Attributes
    ----------
    means : ndarray of shape (e,)
        A bit says whether a number is above its mean.
    tables : list of (8, 256) uint64
        The bits of each byte, in each order.
    sorted_bits : list of (n,) uint64
    rows : list of (n,) int64
    slack : ndarray of shape (n,), uint8
        Bits by which each hash may differ more, see `_slack_bits`.
    """

    means: Floats
    tables: list[Bits]
    sorted_bits: list[Bits]
    rows: list[Ints]
    slack: NDArray[np.uint8]

    @classmethod
    def of(cls, hashes: Numbers, random_state: int | None) -> "_Orders":
        rng = np.random.default_rng(random_state)
        means = hashes.mean(axis=0, dtype=np.float64)[:_MOST_BITS].astype(np.float32)
        tables = [_reordering(rng.permutation(_MOST_BITS)) for _ in range(_N_ORDERS)]
        packed = _packed(hashes, means)
        keys = [_reordered(packed, table) for table in tables]
        rows = [np.argsort(key, kind="stable") for key in keys]
        sorted_bits = [key[order] for key, order in zip(keys, rows, strict=True)]
        return cls(means, tables, sorted_bits, rows, _slack_bits(hashes))


@dataclass(frozen=True, slots=True)
class _Search:
    """Compares the variants of some rows with the hashes of others."""

    hashes: Numbers
    variants: Numbers
    rows: Ints
    references: Ints
    own: Ints
    n_neighbors: int
    min_similarity: float

    def _queries(self, block: Ints) -> Numbers:
        """Return the (1 + n_variants, rows, e) hashes of a block of rows."""
        rows = self.rows[block]
        return np.concatenate([self.hashes[None, rows], self.variants[:, rows]])

    def compare_all(self, block: Ints) -> tuple[Ints, Ints, Floats]:
        references = _unit(self.hashes[self.references])
        queries = _unit(self._queries(block))
        # One product at a time: all variants of a block would take gigabytes.
        products = queries[0] @ references.T
        for variant in queries[1:]:
            np.maximum(products, variant @ references.T, out=products)
        at, columns = np.nonzero(products >= self.min_similarity)
        return self._best(block, at, columns, products[at, columns])

    def compare(self, block: Ints, orders: _Orders) -> tuple[Ints, Ints, Floats]:
        queries = self._queries(block)
        e = queries.shape[2]
        packed = _packed(queries.reshape(-1, e), orders.means)
        most_bits = np.uint8(min(e, _MOST_BITS) * (1 - self.min_similarity) / 2)
        slack = _slack_bits(queries.reshape(-1, e))[:, None]
        n, width = len(self.references), min(2 * _WINDOW, len(self.references))
        candidates = []
        for table, ordered, rows in zip(orders.tables, orders.sorted_bits, orders.rows, strict=True):
            bits = _reordered(packed, table)
            starts = np.clip(np.searchsorted(ordered, bits) - _WINDOW, 0, n - width)
            windows = sliding_window_view(ordered, width)[starts]
            windows ^= bits[:, None]
            limits = slack + sliding_window_view(orders.slack[rows], width)[starts]
            np.minimum(limits, _MOST_SLACK_BITS, out=limits)
            limits += most_bits
            at, place = np.nonzero(_bit_counts(windows) <= limits)
            candidates.append(at * n + rows[starts[at] + place])
        at, columns = np.divmod(np.unique(np.concatenate(candidates)), n)
        variant, place = np.divmod(at, len(block))
        similarities = np.empty(len(at), np.float32)
        for start in range(0, len(at), 1 << 16):
            part = slice(start, start + (1 << 16))
            here = _unit(queries[variant[part], place[part]])
            there = _unit(self.hashes[self.references[columns[part]]])
            similarities[part] = np.einsum("ij,ij->i", here, there)
        is_similar = similarities >= self.min_similarity
        return self._best(block, place[is_similar], columns[is_similar], similarities[is_similar])

    def _best(self, block: Ints, at: Ints, columns: Ints, similarities: Floats) -> tuple[Ints, Ints, Floats]:
        """Return the best pairs of each row of a block."""
        is_other = columns != self.own[block[at]]
        at, columns, similarities = at[is_other], columns[is_other], similarities[is_other]
        # Each pair once, with its most similar variant.
        order = np.lexsort((-similarities, columns, at))
        at, columns, similarities = at[order], columns[order], similarities[order]
        is_first = np.append(True, (at[1:] != at[:-1]) | (columns[1:] != columns[:-1]))[: len(at)]
        at, columns, similarities = at[is_first], columns[is_first], similarities[is_first]
        order = np.lexsort((columns, -similarities, at))
        rank = np.arange(len(at)) - np.searchsorted(at, at)
        best = order[rank < self.n_neighbors]
        return self.rows[block[at[best]]], self.references[columns[best]], similarities[best]


def _unit(hashes: Numbers) -> Floats:
    shape = hashes.shape
    return unit_length(hashes.reshape(-1, shape[-1]).astype(np.float32)).reshape(shape)


def _slack_bits(hashes: Numbers) -> NDArray[np.uint8]:
    """Return by how many bits each hash may differ more than its signs do: none where all are 1 or -1.

    A 0 agrees with neither sign, but has a bit; other numbers weigh more or less than a bit.
    """
    n_zeros = hashes.shape[1] - np.count_nonzero(hashes, axis=1)
    are_signs = ((hashes >= -1) & (hashes <= 1)).all(axis=1)
    if hashes.dtype.kind == "f":
        are_signs &= (np.rint(hashes) == hashes).all(axis=1)
    slack = np.where(are_signs, np.minimum(n_zeros, _MOST_SLACK_BITS), _MOST_SLACK_BITS)
    return slack.astype(np.uint8)


def _packed(hashes: Numbers, means: Floats) -> NDArray[np.uint8]:
    """Return the (n, 8) bytes of whether numbers are above the means."""
    bits = np.zeros((len(hashes), _MOST_BITS), bool)
    bits[:, : len(means)] = hashes[:, : len(means)] > means
    return np.packbits(bits, axis=1)


def _reordering(order: Ints) -> Bits:
    """Return what each byte contributes to the number in which the bits have another order."""
    values = np.uint64(1) << np.argsort(order).astype(np.uint64)
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.uint64)
    table: Bits = values.reshape(8, 8) @ bits.T
    return table


def _reordered(packed: NDArray[np.uint8], table: Bits) -> Bits:
    numbers: Bits = table[0][packed[:, 0]]
    for place in range(1, len(table)):
        numbers |= table[place][packed[:, place]]
    return numbers


_BYTE_COUNTS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).astype(np.uint8)


def _bit_counts(numbers: Bits) -> NDArray[np.uint8]:
    """Return the number of bits that are 1."""
    if hasattr(np, "bitwise_count"):  # since NumPy 2.0
        counts: NDArray[np.uint8] = np.bitwise_count(numbers)
    else:
        counts = _BYTE_COUNTS[numbers.view(np.uint8)].reshape(*numbers.shape, 8).sum(axis=-1, dtype=np.uint8)
    return counts
