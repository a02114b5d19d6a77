"""Candidate pairs by vectors and by hashes."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.estimators.duplicates.candidate_pairs import candidate_pairs
from nearsight.estimators.duplicates.hash_pairs import EXACT_ROWS as EXACT_HASH_ROWS
from nearsight.estimators.duplicates.hash_pairs import hash_pairs, most_similar_variants
from nearsight.estimators.neighbors import EXACT_ROWS
from nearsight.progress import bar

#: The hashes of rows, (n_variants, n, e), and the hashes of their edits, (n_edits, n, e).
Hashes = tuple[NDArray[Any], NDArray[Any]]

# Candidates of each row by hash, and the lowest cosine of their hashes: 50 of 63 signs agree.
_HASH_NEIGHBORS, _MIN_HASH_SIMILARITY = 10, 0.6
# From this cosine on, a hash alone is enough: 58 of 63 signs agree. Below, vectors must be somewhat alike,
# and more so where fewer than 55 agree.
_SURE_HASH_SIMILARITY, _STRONG_HASH_SIMILARITY = 0.82, 0.74
_MIN_COSINE_OF_STRONG_HASH, _MIN_COSINE_OF_WEAK_HASH = 0.4, 0.5

# Numbers of the vectors of pairs whose cosines are computed together: 16 MB each side.
_BLOCK_NUMBERS = 4_000_000

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def propose(
    vectors: Floats,
    *,
    n_neighbors: int,
    min_similarity: float,
    splits: Ints | None = None,
    hashes: Hashes | None = None,
    min_hash_similarity: float = -1.0,
    exact_rows: int = EXACT_ROWS,
    random_state: int | None = 0,
    n_threads: int | None = None,
    progress: bool | None = False,
) -> tuple[Ints, Floats]:
    """Return the pairs that may be duplicates, and their cosines.

    Parameters
    ----------
    vectors : ndarray of shape (n, d), float32, unit length
    n_neighbors, min_similarity, splits, exact_rows, random_state, n_threads
        See `candidate_pairs`.
    hashes : pair of ndarrays, optional
        Unless the hashes are nearly equal, a pair by hash also needs a cosine of 0.4 or 0.5, and one by the
        hash of an edit 0.4 or `min_similarity`.
    min_hash_similarity : float
        A pair by vectors also needs hashes, of any variants, that are so similar.
    progress : bool or None
        Whether steps are shown on stderr.

    Returns
    -------
    pairs : ndarray of shape (m, 2), int64
        The lower row first; sorted.
    cosines : ndarray of shape (m,), float32
    """
    n_compared = len(vectors) if splits is None else int((splits >= 0).sum())
    with bar("comparing vectors", n_compared, progress=progress) as shown:
        pairs, similarities = candidate_pairs(
            vectors,
            n_neighbors=n_neighbors,
            min_similarity=min_similarity,
            splits=splits,
            exact_rows=exact_rows,
            random_state=random_state,
            n_threads=n_threads,
            progress=shown.update,
        )
    if hashes is None:
        return pairs, similarities
    plain, edited = hashes
    searches = [(plain[1:], _MIN_COSINE_OF_WEAK_HASH)]
    if len(edited):
        # Among so many edits, many hashes are alike by chance, but none nearly equal.
        searches.append((edited, min_similarity))
    if min_hash_similarity > -1:
        alike = most_similar_variants(plain, edited, pairs, n_threads=n_threads)
        pairs = pairs[alike >= min_hash_similarity]
    search_hashes = partial(
        hash_pairs,
        plain[0],
        n_neighbors=_HASH_NEIGHBORS,
        min_similarity=_MIN_HASH_SIMILARITY,
        splits=splits,
        exact_rows=min(exact_rows, EXACT_HASH_ROWS),
        random_state=random_state,
        n_threads=n_threads,
    )
    proposals = [pairs]
    with bar("comparing hashes", n_compared, progress=progress) as shown:
        found = [
            search_hashes(variants, progress=lambda n: shown.update(n / len(searches)))
            for variants, _ in searches
        ]
    for (_, min_cosine), (hashed_pairs, hash_similarities) in zip(searches, found, strict=True):
        is_likely = hash_similarities >= _SURE_HASH_SIMILARITY
        [unsure] = np.nonzero(~is_likely)
        is_strong = hash_similarities[unsure] >= _STRONG_HASH_SIMILARITY
        min_cosines = np.where(is_strong, min(min_cosine, _MIN_COSINE_OF_STRONG_HASH), min_cosine)
        is_likely[unsure] = pair_cosines(vectors, hashed_pairs[unsure]) >= min_cosines
        proposals.append(hashed_pairs[is_likely])
    pairs = np.unique(np.concatenate(proposals), axis=0)
    return pairs, pair_cosines(vectors, pairs)


def pair_cosines(vectors: Floats, pairs: Ints) -> Floats:
    """Return the (m,) cosines of pairs of rows of unit length, in bounded memory."""
    cosines = np.empty(len(pairs), np.float32)
    n_pairs = max(1, _BLOCK_NUMBERS // vectors.shape[1])
    for start in range(0, len(pairs), n_pairs):
        block = slice(start, start + n_pairs)
        left, right = pairs[block].T
        np.einsum("nd,nd->n", vectors[left], vectors[right], out=cosines[block])
    return cosines
