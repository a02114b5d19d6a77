"""Group faces into persons."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import validate_data

from nearsight.errors import InvalidParameterError
from nearsight.estimators.neighbors import unit_length
from nearsight.parameters import require_number

_BLOCK_ROWS = 1024


class FaceGrouper(ClusterMixin, BaseEstimator):
    """Group faces into persons; two faces of one image are never one person.

    *Method*: agglomerative clustering with average linkage (Sokal and Michener 1958) under cannot-link
    constraints (Wagstaff et al. 2001): the two most similar groups are merged as long as their mean
    similarity is above `min_similarity` and no image holds faces of both. Deviation: only groups with at
    least one pair above `min_similarity` are compared. The mean similarity of two groups is the product of
    their sums.

    Parameters
    ----------
    min_similarity : float, default 0.9
        Cosine in -1..1; take it from a calibrated threshold of the same model.

    Attributes
    ----------
    labels_ : ndarray of shape (n,), int64
        The group of each face; group 0 is the largest. A face that is similar to no other is a group of one.

    Notes
    -----
    Costs n² × d for the pairs, in blocks, then time and memory linear in the number of similar pairs.
    Duplicate rows are one group, and so are rows that are all the same, unless they come from one image. No
    rows are refused; one is a group, two are one or two groups. NaN and infinity are refused; a row of zeros
    is a group of one.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1, 0], [0.99, 0.1], [0, 1], [1, 0.05]])
    >>> FaceGrouper().fit_predict(X).tolist()
    [0, 0, 1, 0]
    >>> FaceGrouper().fit_predict(X, images=["a", "b", "a", "a"]).tolist()
    [1, 0, 2, 0]
    >>> FaceGrouper().fit_predict(X, together=[[2, 3]], apart=[([0], [3])]).tolist()
    [0, 0, 1, 1]
    """

    def __init__(self, *, min_similarity: float = 0.9) -> None:
        self.min_similarity = min_similarity

    def fit(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        images: Sequence[Any] | NDArray[Any] | None = None,
        together: Iterable[Sequence[int]] = (),
        apart: Iterable[tuple[Sequence[int], Sequence[int]]] = (),
    ) -> "FaceGrouper":
        """Group faces.

        Parameters
        ----------
        X : array of shape (n, d), float
            Vectors of at least one face.
        y : ignored
        images : sequence of n hashable values, optional
            The image that each face is in; by default every face is in an image of its own.
        together : iterable of sequences of int
            Rows that are of one person, whatever else speaks against it.
        apart : iterable of pairs of sequences of int
            Rows of the first are never in a group with rows of the second, unless `together` says so.

        Raises
        ------
        InvalidParameterError
            `min_similarity` is out of its range, or `images` has another length.
        """
        require_number("min_similarity", self.min_similarity)
        if not -1 <= self.min_similarity <= 1:
            raise InvalidParameterError(f"min_similarity is {self.min_similarity}; it must lie in -1..1")
        faces = unit_length(validate_data(self, X, dtype=[np.float32, np.float64])).astype(np.float64)
        if images is not None and len(images) != len(faces):
            raise InvalidParameterError(
                f"there are {len(images)} images for {len(faces)} faces; name one for each face"
            )
        image_of = list(range(len(faces))) if images is None else list(images)
        groups = _Groups(faces, image_of, _blocks(len(faces), together), apart)
        self.labels_ = _numbered_by_size(_average_linkage(faces, groups, self.min_similarity))
        return self

    def fit_predict(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        images: Sequence[Any] | NDArray[Any] | None = None,
        together: Iterable[Sequence[int]] = (),
        apart: Iterable[tuple[Sequence[int], Sequence[int]]] = (),
    ) -> NDArray[np.int64]:
        """Return `labels_`; see `fit`."""
        fitted = self.fit(X, images=images, together=together, apart=apart)
        labels: NDArray[np.int64] = fitted.labels_
        return labels


def same_image_similarities(
    X: NDArray[np.floating], images: Sequence[Any], *, max_pairs: int = 100_000
) -> NDArray[np.float64]:
    """Return the similarities of pairs of faces in one image, which are of two persons.

    Parameters
    ----------
    X : ndarray of shape (n, d), unit length
    images : sequence of n hashable values
        The image that each face is in.
    max_pairs : int
        At most so many pairs are returned; the first ones.

    Examples
    --------
    >>> same_image_similarities(np.eye(3), ["a", "b", "a"]).tolist()
    [0.0]
    """
    rows_of: dict[Any, list[int]] = {}
    for row, image in enumerate(images):
        rows_of.setdefault(image, []).append(row)
    similarities: list[float] = []
    for rows in rows_of.values():
        if len(rows) > 1 and len(similarities) < max_pairs:
            products = X[rows] @ X[rows].T
            similarities += products[np.triu_indices(len(rows), 1)].tolist()
    return np.array(similarities[:max_pairs])


class _Groups:
    """Groups of rows, by number: at first the blocks, each with the number of its first row."""

    def __init__(
        self,
        X: NDArray[np.float64],
        image_of: Sequence[Any],
        block_of: NDArray[np.int64],
        apart: Iterable[tuple[Sequence[int], Sequence[int]]],
    ) -> None:
        self.block_of = block_of
        self.rows: dict[int, list[int]] = {}
        for row, block in enumerate(block_of.tolist()):
            self.rows.setdefault(block, []).append(row)
        self.sums = {
            block: X[rows].sum(0) if len(rows) > 1 else X[block] for block, rows in self.rows.items()
        }
        self._images = {block: {image_of[row] for row in rows} for block, rows in self.rows.items()}
        #: Rows that may not join the group.
        self._others: dict[int, set[int]] = {}
        for some, others in apart:
            for row in some:
                self._others.setdefault(int(block_of[row]), set()).update(others)
            for row in others:
                self._others.setdefault(int(block_of[row]), set()).update(some)
        self._new = len(X)

    def may_join(self, a: int, b: int) -> bool:
        """Whether two groups share no image and no decision keeps them apart."""
        if not self._images[a].isdisjoint(self._images[b]):
            return False
        return a not in self._others or self._others[a].isdisjoint(self.rows[b])

    def similarity(self, a: int, b: int) -> float:
        """Return the mean similarity of the rows of two groups."""
        return float(self.sums[a] @ self.sums[b]) / (len(self.rows[a]) * len(self.rows[b]))

    def join(self, a: int, b: int) -> int:
        """Make one group of two; return its number."""
        new = self._new
        self._new += 1
        self.sums[new] = self.sums.pop(a) + self.sums.pop(b)
        self.rows[new] = self.rows.pop(a) + self.rows.pop(b)
        self._images[new] = self._images.pop(a) | self._images.pop(b)
        others = self._others.pop(a, set()) | self._others.pop(b, set())
        if others:
            self._others[new] = others
        return new

    def labels(self) -> NDArray[np.int64]:
        """Return the number of each row's group."""
        labels: NDArray[np.int64] = self.block_of.copy()
        for group, rows in self.rows.items():
            labels[rows] = group
        return labels


def _blocks(n: int, together: Iterable[Sequence[int]]) -> NDArray[np.int64]:
    """Return for each row the first row of those that belong to it."""
    blocks: NDArray[np.int64] = np.arange(n)
    for rows in together:
        if len(rows):
            members = np.isin(blocks, blocks[list(rows)])
            blocks[members] = blocks[members].min()
    return blocks


def _average_linkage(X: NDArray[np.float64], groups: _Groups, min_similarity: float) -> NDArray[np.int64]:
    """Return the group of each row."""
    neighbors: dict[int, set[int]] = {group: set() for group in groups.rows}
    queue: list[tuple[float, int, int]] = []
    for similarity, row, other_row in _similar_pairs(X, min_similarity):
        a, b = int(groups.block_of[row]), int(groups.block_of[other_row])
        if a == b or b in neighbors[a] or not groups.may_join(a, b):
            continue
        neighbors[a].add(b)
        neighbors[b].add(a)
        if len(groups.rows[a]) + len(groups.rows[b]) > 2:
            similarity = groups.similarity(a, b)
        if similarity > min_similarity:
            queue.append((-similarity, a, b))
    heapq.heapify(queue)
    while queue:
        _, a, b = heapq.heappop(queue)
        # A merged group gets a new number, so entries under an old number are out of date.
        if a not in groups.sums or b not in groups.sums:
            continue
        new = groups.join(a, b)
        neighbors[new] = (neighbors.pop(a) | neighbors.pop(b)) & groups.sums.keys()
        for other in list(neighbors[new]):
            neighbors[other].add(new)
            mean = groups.similarity(new, other)
            if mean > min_similarity and groups.may_join(new, other):
                heapq.heappush(queue, (-mean, other, new))
    return groups.labels()


def _similar_pairs(X: NDArray[np.float64], min_similarity: float) -> Iterator[tuple[float, int, int]]:
    """Yield the pairs of rows that are more similar than `min_similarity`."""
    for start in range(0, len(X), _BLOCK_ROWS):
        similarities = X[start : start + _BLOCK_ROWS] @ X[start:].T
        rows, columns = np.nonzero(np.triu(similarities > min_similarity, 1))
        yield from zip(
            similarities[rows, columns].tolist(),
            (rows + start).tolist(),
            (columns + start).tolist(),
            strict=True,
        )


def _numbered_by_size(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return group numbers from the largest to the smallest; of equal sizes, the first group comes first."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)
    rank[np.lexsort((first, -counts))] = np.arange(len(counts))
    return rank[inverse]
