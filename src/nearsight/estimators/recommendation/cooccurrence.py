"""How strongly two items are bought together, from the baskets that hold both."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nearsight.errors import InvalidParameterError

Normalization = Literal["bm25", "cosine", "lift"]

# BM25: saturation, and how much popular items are held back (1: as by a mean).
_K1, _B = 1.2, 0.75
# Numbers of one block of the product of baskets with themselves.
_BLOCK = 4_000_000


def as_baskets(baskets: object, n_items: int) -> sparse.csr_matrix:
    """Return baskets as a sparse matrix of zeros and ones.

    Raises
    ------
    InvalidParameterError
        The shape is not (n_baskets, n_items), or a number is negative or not finite.
    """
    held = sparse.csr_matrix(baskets, dtype=np.float32, copy=True)
    held.sum_duplicates()
    if held.shape[1] != n_items:
        raise InvalidParameterError(
            f"baskets has shape {held.shape}; it needs a column for each of the {n_items} items in X"
        )
    if held.nnz and not (np.isfinite(held.data).all() and held.data.min() >= 0):
        raise InvalidParameterError(
            "baskets holds NaN, infinity or negative numbers; give 1 where an item is in"
        )
    held.eliminate_zeros()
    held.sort_indices()
    held.data[:] = 1
    return held


def association(
    baskets: sparse.csr_matrix, normalization: Normalization = "bm25", n_related: int = 200
) -> sparse.csr_matrix:
    """Return how strongly each item (row) is bought together with each other item (column).

    *Method*: a product of weighted baskets. ``"bm25"``: Robertson and Zaragoza 2009, section 3.4, an item
    being the document and its baskets the words: popular items are held back, and so are baskets that hold
    nearly everything, which tell little. ``"cosine"``: Sarwar et al. 2001, section 3.1, on counts.
    ``"lift"``: observed over expected number of common baskets; it overrates what was bought once.

    Parameters
    ----------
    baskets : sparse matrix of shape (n_baskets, n_items), of zeros and ones
    normalization : {"bm25", "cosine", "lift"}
    n_related : int, default 200
        The strongest of each row are kept: memory is 12 bytes × n_items × `n_related`. Time grows with the
        sum of the squared sizes of the baskets.

    Returns
    -------
    sparse matrix of shape (n_items, n_items), float32
        Higher is stronger; the diagonal is empty. Not symmetric if rows were truncated.
    """
    if normalization not in get_args(Normalization):
        raise InvalidParameterError(
            f"normalization is {normalization!r}; it must be one of {', '.join(get_args(Normalization))}"
        )
    left, right = _weighted(baskets, normalization)
    n = baskets.shape[1]
    mean_row = max(
        1.0, float(np.diff(baskets.indptr).astype(np.float64) @ np.diff(baskets.indptr)) / max(n, 1)
    )
    step = max(1, int(_BLOCK / min(mean_row, max(n, 1))))
    blocks = [_strongest((left[at : at + step] @ right).tocsr(), at, n_related) for at in range(0, n, step)]
    related: sparse.csr_matrix = (
        sparse.vstack(blocks, format="csr", dtype=np.float32)
        if blocks
        else sparse.csr_matrix((0, 0), dtype=np.float32)
    )
    return related


def regression(baskets: sparse.csr_matrix, most_items: int) -> NDArray[np.float64] | None:
    """Return how much each bought item (row) changes the probability of each other, all else equal.

    *Method*: EASE (Steck 2019, arXiv 1905.03375, section 3.1): every item is predicted from the others by
    one ridge regression, in closed form. What competes gets a negative weight, and what goes with two
    items that go together is not counted twice. Deviation: the penalty is the mean number of baskets of an
    item that was bought, so that it need not be tuned.

    Parameters
    ----------
    baskets : sparse matrix of shape (n_baskets, n_items), of zeros and ones
    most_items : int
        It takes 16 bytes × (items bought)² and their number cubed operations; above this number, None.
    """
    bought = np.flatnonzero(np.bincount(baskets.indices, minlength=baskets.shape[1]))
    if not 0 < len(bought) <= most_items:
        return None
    held = baskets[:, bought].astype(np.float64)
    gram = (held.T @ held).toarray()
    gram[np.diag_indices_from(gram)] += np.diag(gram).mean()
    inverse = np.linalg.inv(gram)
    weights: NDArray[np.float64] = -inverse / np.diag(inverse)[None]
    np.fill_diagonal(weights, 0)
    return weights


def _weighted(
    baskets: sparse.csr_matrix, normalization: Normalization
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Return two matrices whose product says how strongly items belong together."""
    n_baskets, n_items = baskets.shape
    bought = np.asarray(baskets.sum(axis=0), np.float64).ravel()
    items = sparse.csr_matrix(baskets.T, dtype=np.float64)
    if normalization == "cosine":
        unit = _scaled(items, 1 / np.sqrt(np.maximum(bought, 1)))
        return unit, unit.T.tocsr()
    if normalization == "lift":
        share = _scaled(items, 1 / np.maximum(bought, 1))
        return share * float(n_baskets), share.T.tocsr()
    sizes = np.diff(baskets.indptr)
    # Lucene's form, which never falls below zero: in a catalog of three, every basket holds nearly all.
    telling = np.log1p((n_items - sizes + 0.5) / (sizes + 0.5))
    length = 1 - _B + _B * bought / max(bought.mean(), 1e-12) if n_items else bought
    weight = _scaled(items, (_K1 + 1) / (_K1 * length + 1)) @ sparse.diags(telling)
    return weight.tocsr(), weight.T.tocsr()


def _scaled(items: sparse.csr_matrix, factors: NDArray[np.float64]) -> sparse.csr_matrix:
    return (sparse.diags(factors) @ items).tocsr()


def _strongest(block: sparse.csr_matrix, first: int, most: int) -> sparse.csr_matrix:
    """Return the block without its own items, and with the largest `most` of each row."""
    rows, columns, values = [], [], []
    for i in range(block.shape[0]):
        here = slice(block.indptr[i], block.indptr[i + 1])
        others, strengths = block.indices[here], block.data[here]
        kept = np.flatnonzero((others != first + i) & (strengths > 0))
        if len(kept) > most:
            # By strength, then by column: the same rows in the same order whatever made them.
            kept = kept[np.lexsort((others[kept], -strengths[kept]))[:most]]
        rows.append(np.full(len(kept), i))
        columns.append(others[kept])
        values.append(strengths[kept])
    return sparse.csr_matrix(
        (np.concatenate(values).astype(np.float32), (np.concatenate(rows), np.concatenate(columns))),
        shape=block.shape,
    )
