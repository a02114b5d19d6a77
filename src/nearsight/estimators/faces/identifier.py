"""Faces as vectors: whose are they, and which are of one person? The answer may be "unknown".

Vectors are compared by cosine. How like two faces must be is never a fixed number: it is calibrated, on the
faces that are enrolled or on a background of pairs of different persons, for a stated rate of false matches.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.conformal import Threshold, from_background, from_good, required_examples

_BLOCK_ROWS = 1024
# More images of one person hardly give a stranger more chances: they are alike.
_MOST_CHANCES = 10
# Faces of one bank are compared with all others; so many of them say enough.
_MOST_CALIBRATED = 5000
_CONFIDENCE = 0.95
# A threshold that promises less is not worth having.
_WORST_RATE = 0.1


@dataclass(frozen=True, slots=True)
class Identities:
    """Who faces are, row by row.

    Attributes
    ----------
    persons : ndarray of shape (n,)
        The most likely person, of those enrolled; also where the face is unknown.
    similarity : ndarray of shape (n,), float64
        Cosine to that person's nearest face, in -1..1; higher is closer.
    unknown : ndarray of shape (n,), bool
        Nobody enrolled is similar enough.
    rivals : ndarray of shape (n,)
        The second most similar person; the first again where there is no other.
    rival_similarity : ndarray of shape (n,), float64
        Cosine to the rival's nearest face; -1 where there is no rival.
    ambiguous : ndarray of shape (n,), bool
        The face is known, but the rival would be accepted as well: siblings, say.
    """

    persons: NDArray[Any]
    similarity: NDArray[np.float64]
    unknown: NDArray[np.bool_]
    rivals: NDArray[Any]
    rival_similarity: NDArray[np.float64]
    ambiguous: NDArray[np.bool_]


class FaceIdentifier(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Names faces by their nearest enrolled faces, or calls them unknown.

    *Method*: k nearest neighbors (Cover and Hart 1967) in cosine similarity. Only faces above the threshold
    vote, each with the square of what it is above it (after Dudani 1976, doi 10.1109/TSMC.1976.5408784, who
    weights linearly, from the k-th distance on): so one very near face outweighs several that are merely
    similar. The threshold is
    split conformal, see `calibrate`. With many persons it is learned from the bank itself: each enrolled face
    is compared with all faces of *other* persons, as a stranger would be. Faces of one person are alike, so
    each person counts as one example only, with the face most like somebody else's; that promises a rate r
    from about 1/r persons on, and keeps it with room to spare. Otherwise it comes from a background of pairs
    of different persons, where a stranger has as many chances as there are faces, at most 10 a person; the
    rate is then held with 95 % confidence if there are pairs enough.

    Parameters
    ----------
    n_neighbors : int, default 5
        Enrolled faces that may vote, at least 1.
    false_match_rate : float, default 0.01
        In (0, 1): the share of strangers that may be taken for somebody.
    background : array of shape (m,), float, optional
        Similarities of pairs of different persons, by the same model.
    random_state : int, default 0
        Which faces calibrate where there are more than 5,000.

    Attributes
    ----------
    threshold_ : Threshold or None
        A face must be more similar than its `value` to somebody. Where nothing can promise the rate, it is
        the threshold that promises most, as its `false_alarm_rate` tells; where that is above 10 %, it is
        None, and everybody is unknown.
    reason_ : str
        Why `threshold_` promises less than was asked for, or is None; empty otherwise.
    classes_ : ndarray
        The persons, sorted.

    Notes
    -----
    Fitting costs min(n, 5000) x n x d, identifying m faces m x n x d, in memory linear in n. Duplicate faces
    are voters like any other; if they carry two names, both persons are `ambiguous`. Where all faces are the
    same, nobody is more alike than strangers are, so everybody is unknown. Rows need not be of unit length; a
    row of zeros is like nobody. Without rows it refuses, and NaN and infinity. One face, two, or many of
    one person give no strangers to learn a threshold from: without `background` everybody is unknown, and
    `reason_` says why.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> persons = rng.normal(size=(99, 64))
    >>> faces = np.repeat(persons, 2, axis=0) + 0.1 * rng.normal(size=(198, 64))
    >>> names = np.repeat([f"person {i}" for i in range(99)], 2)
    >>> identifier = FaceIdentifier().fit(faces, names)
    >>> stranger = rng.normal(size=64)
    >>> identifier.predict([persons[3], stranger]).tolist()
    ['person 3', None]
    """

    def __init__(
        self,
        *,
        n_neighbors: int = 5,
        false_match_rate: float = 0.01,
        background: ArrayLike | None = None,
        random_state: int = 0,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.false_match_rate = false_match_rate
        self.background = background
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> "FaceIdentifier":
        """Enroll faces and calibrate.

        Parameters
        ----------
        X : array of shape (n, d)
            Vectors of at least one face.
        y : array of shape (n,)
            Whose each is.

        Raises
        ------
        InvalidParameterError
            A parameter is outside its range.
        ValueError
            The shapes do not fit, there is no face, or a number is not finite.
        """
        if self.n_neighbors < 1:
            raise InvalidParameterError(f"n_neighbors is {self.n_neighbors}; it must be at least 1")
        faces, y = validate_data(self, X, y, dtype=[np.float32, np.float64])
        self._faces = _unit(faces)
        self.classes_, self._persons = np.unique(y, return_inverse=True)
        self.threshold_, self.reason_ = self._calibrated()
        return self

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that `fit` needs labels."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _calibrated(self) -> tuple[Threshold | None, str]:
        """Return the threshold, and why it is none or promises less than was asked for."""
        rate, strangers = self.false_match_rate, self._as_strangers()
        try:
            return from_good(strangers, false_alarm_rate=rate), ""
        except CalibrationError as error:
            reason = str(error)
        background = None if self.background is None else np.asarray(self.background, np.float64)
        chances = int(np.minimum(np.bincount(self._persons), _MOST_CHANCES).sum())
        if background is not None:
            # A background is of few persons: where it has pairs enough, the rate is held with confidence.
            each = -math.expm1(math.log1p(-rate) / chances)
            is_enough = len(background) >= required_examples(each, confidence=_CONFIDENCE)
            confidence = _CONFIDENCE if is_enough else None
            try:
                return from_background(
                    background, false_alarm_rate=rate, n_comparisons=chances, confidence=confidence
                ), ""
            except CalibrationError as error:
                reason = str(error)
        return self._at_best(strangers, background, chances, reason)

    def _at_best(
        self,
        strangers: NDArray[np.float64],
        background: NDArray[np.float64] | None,
        chances: int,
        reason: str,
    ) -> tuple[Threshold | None, str]:
        """Return the threshold that promises most, if that is anything worth a promise."""
        by_bank = _best_rate(len(strangers), 1)
        by_background = 1.0 if background is None else _best_rate(len(background), chances)
        best = min(by_bank, by_background)
        if best > _WORST_RATE:
            return None, f"everybody is unknown: {reason}"
        if by_bank <= by_background:
            found = from_good(strangers, false_alarm_rate=best)
        else:
            found = from_background(np.asarray(background), false_alarm_rate=best, n_comparisons=chances)
        return found, f"the rate of false matches is at most {best:g} only: {reason}"

    def _as_strangers(self) -> NDArray[np.float64]:
        """Return for each person how like the most similar of its faces is to a face of somebody else."""
        n = len(self._faces)
        if len(self.classes_) < 2:
            return np.empty(0)
        rows = np.arange(n)
        if n > _MOST_CALIBRATED:
            rows = np.random.default_rng(self.random_state).choice(n, _MOST_CALIBRATED, replace=False)
        scores = np.full(len(self.classes_), -np.inf)
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = rows[start : start + _BLOCK_ROWS]
            similarity = self._faces[block] @ self._faces.T
            similarity[self._persons[block][:, None] == self._persons[None]] = -2
            np.maximum.at(scores, self._persons[block], similarity.max(1))
        # Of very many faces, a person may have none among those that were drawn.
        found: NDArray[np.float64] = scores[np.isfinite(scores)]
        return found

    def identify(self, X: ArrayLike) -> Identities:
        """Say who faces are.

        Parameters
        ----------
        X : array of shape (n, d)

        Returns
        -------
        Identities
        """
        check_is_fitted(self)
        X = _unit(validate_data(self, X, reset=False, dtype=[np.float32, np.float64]))
        blocks = [self._identified(X[at : at + _BLOCK_ROWS]) for at in range(0, len(X), _BLOCK_ROWS)]
        first, best, second, rival, voted = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        if self.threshold_ is None:
            unknown, ambiguous = np.ones(len(X), bool), np.zeros(len(X), bool)
        else:
            unknown = ~voted
            ambiguous = voted & (rival > self.threshold_.value)
        return Identities(self.classes_[first], best, unknown, self.classes_[second], rival, ambiguous)

    def predict(self, X: ArrayLike) -> NDArray[np.object_]:
        """Return the person of each face, None where it is unknown: an object array of shape (n,)."""
        found = self.identify(X)
        names = found.persons.astype(object)
        names[found.unknown] = None
        return names

    def _identified(self, X: NDArray[np.floating]) -> tuple[NDArray[Any], ...]:
        """Return first person, similarity, second person, similarity, and whether anybody voted."""
        rows, n_persons = np.arange(len(X)), len(self.classes_)
        similarity = X @ self._faces.T
        nearest = np.full((len(X), n_persons), -1.0)
        for person in range(n_persons):
            nearest[:, person] = similarity[:, self._persons == person].max(1)
        votes = np.zeros_like(nearest)
        if self.threshold_ is not None:
            k = min(self.n_neighbors, similarity.shape[1])
            voters = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
            weights = np.maximum(np.take_along_axis(similarity, voters, 1) - self.threshold_.value, 0)
            np.add.at(votes, (rows[:, None], self._persons[voters]), weights**2)
        voted = votes.max(1) > 0
        first = np.where(voted, votes.argmax(1), nearest.argmax(1))
        best = nearest[rows, first]
        others = nearest.copy()
        others[rows, first] = -1.0
        second = others.argmax(1) if n_persons > 1 else first
        return first, best, second, others[rows, second], voted


class FaceGrouper(ClusterMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Groups faces into persons; two faces of one image are never one person.

    *Method*: agglomerative clustering with average linkage (Sokal and Michener 1958) under cannot-link
    constraints (Wagstaff et al. 2001): the two most similar groups are joined, as long as their faces are on
    average more similar than `min_similarity` and no image holds a face of both. Only groups with at least
    one pair above that are looked at; the mean similarity of two groups is the product of their sums.

    Parameters
    ----------
    min_similarity : float, default 0.9
        Cosine in -1..1; take it from a calibrated threshold of the same model.

    Attributes
    ----------
    labels_ : ndarray of shape (n,), int64
        The group of each face, numbered by size, the largest being 0. A face like no other is a group of one.

    Notes
    -----
    Costs n² x d for the pairs, in blocks, then time and memory linear in the pairs that are similar enough.
    Duplicate rows are one group, and so are rows that are all the same, unless they come from one image. No
    rows are refused; one is a group, two are one or two. NaN and infinity are refused; a row of zeros is a
    group by itself.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1, 0], [0.99, 0.1], [0, 1], [1, 0.05]])
    >>> FaceGrouper().fit_predict(X).tolist()
    [0, 0, 1, 0]
    >>> FaceGrouper().fit_predict(X, images=["a", "b", "a", "a"]).tolist()
    [1, 0, 2, 0]
    """

    def __init__(self, *, min_similarity: float = 0.9) -> None:
        self.min_similarity = min_similarity

    def fit(
        self, X: ArrayLike, y: Any = None, *, images: Sequence[Any] | NDArray[Any] | None = None
    ) -> "FaceGrouper":
        """Group faces.

        Parameters
        ----------
        X : array of shape (n, d)
            Vectors of at least one face; a row of zeros is like nobody.
        y : ignored
        images : sequence of n hashable values, optional
            The image that each face is in; without it, every face is from an image of its own.

        Raises
        ------
        InvalidParameterError
            `min_similarity` is outside its range, or `images` of another length.
        """
        if not -1 <= self.min_similarity <= 1:
            raise InvalidParameterError(f"min_similarity is {self.min_similarity}; it must lie in -1..1")
        X = _unit(validate_data(self, X, dtype=[np.float32, np.float64])).astype(np.float64)
        if images is not None and len(images) != len(X):
            raise InvalidParameterError(
                f"there are {len(images)} images for {len(X)} faces; name one for each face"
            )
        where = list(range(len(X))) if images is None else list(images)
        self.labels_ = _by_size(_agglomerated(X, where, self.min_similarity))
        return self

    def fit_predict(
        self, X: ArrayLike, y: Any = None, *, images: Sequence[Any] | NDArray[Any] | None = None
    ) -> NDArray[np.int64]:
        """Return `labels_`; see `fit`."""
        labels: NDArray[np.int64] = self.fit(X, images=images).labels_
        return labels


def strangers(X: NDArray[np.floating], images: Sequence[Any], *, most: int = 100_000) -> NDArray[np.float64]:
    """Return the similarities of faces that are surely of two persons: those of one image.

    Parameters
    ----------
    X : ndarray of shape (n, d), unit length
    images : sequence of n hashable values
    most : int
        Pairs to return at most; the first ones.

    Examples
    --------
    >>> strangers(np.eye(3), ["a", "b", "a"]).tolist()
    [0.0]
    """
    places: dict[Any, list[int]] = {}
    for row, image in enumerate(images):
        places.setdefault(image, []).append(row)
    found: list[float] = []
    for rows in places.values():
        if len(rows) > 1 and len(found) < most:
            similarity = X[rows] @ X[rows].T
            found += similarity[np.triu_indices(len(rows), 1)].tolist()
    return np.array(found[:most])


def _agglomerated(X: NDArray[np.float64], where: list[Any], least: float) -> NDArray[np.int64]:
    """Return the group of each row."""
    sums, sizes = dict(enumerate(X)), dict.fromkeys(range(len(X)), 1)
    seen_in = {i: {image} for i, image in enumerate(where)}
    near: dict[int, set[int]] = {i: set() for i in range(len(X))}
    waiting: list[tuple[float, int, int]] = []
    for similarity, a, b in _similar(X, least):
        if where[a] != where[b]:
            near[a].add(b)
            near[b].add(a)
            waiting.append((-similarity, a, b))
    heapq.heapify(waiting)
    labels = np.arange(len(X))
    members: dict[int, list[int]] = {i: [i] for i in range(len(X))}
    fresh = len(X)
    while waiting:
        _, a, b = heapq.heappop(waiting)
        # Groups get a new number when they grow: what waits under an old one is out of date.
        if a not in sums or b not in sums:
            continue
        sums[fresh], sizes[fresh] = sums.pop(a) + sums.pop(b), sizes.pop(a) + sizes.pop(b)
        seen_in[fresh], members[fresh] = seen_in.pop(a) | seen_in.pop(b), members.pop(a) + members.pop(b)
        near[fresh] = (near.pop(a) | near.pop(b)) & sums.keys()
        for other in list(near[fresh]):
            near[other].add(fresh)
            mean = float(sums[fresh] @ sums[other]) / (sizes[fresh] * sizes[other])
            if mean > least and seen_in[fresh].isdisjoint(seen_in[other]):
                heapq.heappush(waiting, (-mean, other, fresh))
        fresh += 1
    for group, rows in members.items():
        labels[rows] = group
    return labels


def _similar(X: NDArray[np.float64], least: float) -> Iterator[tuple[float, int, int]]:
    """Yield the pairs of rows that are more similar than `least`."""
    for start in range(0, len(X), _BLOCK_ROWS):
        similarity = X[start : start + _BLOCK_ROWS] @ X[start:].T
        rows, columns = np.nonzero(np.triu(similarity > least, 1))
        yield from zip(
            similarity[rows, columns].tolist(),
            (rows + start).tolist(),
            (columns + start).tolist(),
            strict=True,
        )


def _by_size(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return group numbers from the largest to the smallest; of two of a size, the one that begins first."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)
    rank[np.lexsort((first, -counts))] = np.arange(len(counts))
    return rank[inverse]


def _best_rate(n_examples: int, n_comparisons: int) -> float:
    """Return the rate that so many examples can promise, rounded up so that asking for it succeeds."""
    if n_examples == 0:
        return 1.0
    best = -math.expm1(n_comparisons * math.log1p(-1 / (n_examples + 1)))
    return min(1.0, math.ceil(best * 1e4) / 1e4)


def _unit(X: NDArray[np.floating]) -> NDArray[np.floating]:
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    scaled: NDArray[np.floating] = np.divide(X, lengths, out=np.zeros_like(X), where=lengths > 0)
    return scaled
