"""The images that a demo shows: example searches, images to edit, and the order of the contact sheet."""

import numpy as np
from numpy.typing import NDArray


def diverse_rows(vectors: NDArray[np.float32], n: int) -> list[int]:
    """Return the rows that differ most from each other.

    *Method.* Farthest-first traversal (Gonzalez 1985), from the row least similar to the mean.

    Parameters
    ----------
    vectors : array of shape (m, d), float32, unit length
    n : int
        Maximum number of rows.
    """
    if len(vectors) == 0:
        return []
    rows = [int(np.argmin(vectors @ vectors.mean(axis=0)))]
    similarity = vectors @ vectors[rows[0]]
    while len(rows) < min(n, len(vectors)):
        rows.append(int(np.argmin(similarity)))
        similarity = np.maximum(similarity, vectors @ vectors[rows[-1]])
    return rows


def query_rows(vectors: NDArray[np.float32], n: int) -> list[int]:
    """Return rows that have close neighbors and differ from each other: good example searches.

    *Method.* Greedy: each step takes the row with the largest (1 - similarity to the nearest row taken)
    × (similarity to its own nearest neighbor) squared. So an image without close neighbors scores low
    however different it is, and so does a second image of the same kind.

    Parameters
    ----------
    vectors : array of shape (m, d), float32, unit length
        Memory grows with the square of m.
    n : int
        Maximum number of rows.
    """
    if len(vectors) < 2:
        return list(range(len(vectors)))
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -1)
    neighbor_weight = np.clip(similarities.max(axis=1), 0, 1) ** 2
    similarity = np.zeros(len(vectors), np.float32)
    rows: list[int] = []
    while len(rows) < min(n, len(vectors)):
        score = (1 - similarity) * neighbor_weight
        score[rows] = -1
        rows.append(int(np.argmax(score)))
        similarity = np.maximum(similarity, similarities[rows[-1]])
    return rows


def similarity_order(vectors: NDArray[np.float32], n_groups: int = 12) -> list[int]:
    """Return all rows in an order that puts similar images side by side.

    *Method.* Each row joins the most similar of `n_groups` diverse rows. Small groups come first, and the
    rows of a group are ordered by their similarity to its diverse row.

    Parameters
    ----------
    vectors : array of shape (m, d), float32, unit length
    n_groups : int, default 12
    """
    if len(vectors) == 0:
        return []
    similarities = vectors @ vectors[diverse_rows(vectors, n_groups)].T
    group = similarities.argmax(axis=1)
    size = np.bincount(group)[group]
    return [int(row) for row in np.lexsort((-similarities.max(axis=1), group, size))]


def evenly_spaced(n: int, maximum: int) -> list[int]:
    """Return at most `maximum` of the numbers 0..n-1, evenly spaced.

    Examples
    --------
    >>> evenly_spaced(3, 5), evenly_spaced(10, 4)
    ([0, 1, 2], [0, 3, 6, 9])
    """
    if n <= maximum:
        return list(range(n))
    return [int(i) for i in np.linspace(0, n - 1, maximum).round()]
