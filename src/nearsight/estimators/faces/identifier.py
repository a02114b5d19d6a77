"""Identify faces by their nearest enrolled faces; the answer may be "unknown".

Vectors are compared by cosine. The threshold is never a fixed number: it is calibrated for a stated false
match rate, on the enrolled faces or on pairs of faces of different persons.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.conformal import Threshold, from_good, from_nonmatching_pairs, required_examples
from nearsight.estimators.neighbors import highest, similarity_blocks, unit_length

# Further images of one person hardly add chances of a false match: they are alike.
_MOST_CHANCES_PER_PERSON = 10
# Enrolled faces that are compared with all others to calibrate.
_MOST_CALIBRATED = 5000
_CONFIDENCE = 0.95
# No threshold is used that only keeps a higher rate than this.
_WORST_RATE = 0.1


@dataclass(frozen=True, slots=True)
class FaceIdentities:
    """The persons that faces were identified as, row by row.

    Attributes
    ----------
    persons : ndarray of shape (n,)
        The most likely enrolled person; also where the face is unknown.
    similarity : ndarray of shape (n,), float64
        Cosine to that person's nearest face, in -1..1; higher is closer.
    unknown : ndarray of shape (n,), bool
        No enrolled person is similar enough.
    rivals : ndarray of shape (n,)
        The second most similar person; the first again where there is no other.
    rival_similarity : ndarray of shape (n,), float64
        Cosine to the rival's nearest face; -1 where there is no rival.
    ambiguous : ndarray of shape (n,), bool
        The face is known, but the rival is above the threshold as well: siblings, for example.
    """

    persons: NDArray[Any]
    similarity: NDArray[np.float64]
    unknown: NDArray[np.bool_]
    rivals: NDArray[Any]
    rival_similarity: NDArray[np.float64]
    ambiguous: NDArray[np.bool_]


class FaceIdentifier(BaseEstimator):
    """Name faces by their nearest enrolled faces, or call them unknown.

    *Method*: k nearest neighbors (Cover and Hart 1967) by cosine. Only faces above the threshold vote, each
    with the square of its excess over the threshold (after Dudani 1976, doi 10.1109/TSMC.1976.5408784, who
    weights linearly from the k-th distance on): one very near face outweighs several that are merely similar.

    The threshold is split conformal (`nearsight.estimators.conformal`). With many persons it is calibrated on
    the enrolled faces: each is compared with the faces of all *other* persons, as an unknown face would be.
    Faces of one person are alike, so each person is one example, with the highest of its similarities; about
    1/r persons are needed for a rate r, which is then kept with room to spare. Otherwise it is calibrated on
    `impostor_similarities`, where an unknown face has as many chances as there are enrolled faces, at most 10
    a person; with pairs enough, the rate is then held with 95 % confidence.

    Parameters
    ----------
    n_neighbors : int, default 5
        Enrolled faces that may vote, at least 1.
    false_match_rate : float, default 0.01
        In (0, 1): the share of faces of persons who are not enrolled that may be given a name.
    impostor_similarities : array of shape (m,), float, optional
        Similarities of pairs of faces of different persons, by the same model.
    random_state : int, default 0
        Draws the faces that calibrate where there are more than 5,000.

    Attributes
    ----------
    threshold_ : Threshold or None
        A known face is more similar than its `value` to some enrolled face. If no data can keep the rate, the
        threshold with the lowest rate that can be kept; if that rate is above 10 %, None, and every face is
        unknown.
    reason_ : str
        Why `threshold_` keeps a higher rate than stated, or is None; empty otherwise.
    classes_ : ndarray
        The persons, sorted.

    Notes
    -----
    `fit` costs min(n, 5000) × n × d, identifying m faces m × n × d, in memory linear in n. Duplicate faces
    vote like any other; under two names, they make both persons `ambiguous`. If all faces are the same, every
    face is unknown. Rows need not have unit length; a row of zeros is similar to nobody. No rows, NaN and
    infinity are refused. One face, two, or many of one person cannot calibrate a threshold: without
    `impostor_similarities` every face is unknown, and `reason_` says why.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> persons = rng.normal(size=(99, 64))
    >>> faces = np.repeat(persons, 2, axis=0) + 0.1 * rng.normal(size=(198, 64))
    >>> names = np.repeat([f"person {i}" for i in range(99)], 2)
    >>> identifier = FaceIdentifier().fit(faces, names)
    >>> identifier.predict([persons[3], rng.normal(size=64)]).tolist()
    ['person 3', None]
    """

    def __init__(
        self,
        *,
        n_neighbors: int = 5,
        false_match_rate: float = 0.01,
        impostor_similarities: ArrayLike | None = None,
        random_state: int = 0,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.false_match_rate = false_match_rate
        self.impostor_similarities = impostor_similarities
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> "FaceIdentifier":
        """Enroll faces and calibrate the threshold.

        Parameters
        ----------
        X : array of shape (n, d), float
            Vectors of at least one face.
        y : array of shape (n,)
            The person of each face.

        Raises
        ------
        InvalidParameterError
            A parameter is out of its range.
        ValueError
            The shapes do not agree, there is no face, or a number is not finite.
        """
        if self.n_neighbors < 1:
            raise InvalidParameterError(f"n_neighbors is {self.n_neighbors}; it must be at least 1")
        faces, y = validate_data(self, X, y, dtype=[np.float32, np.float64])
        self._faces = unit_length(faces)
        self.classes_, self._persons = np.unique(y, return_inverse=True)
        self.threshold_, self.reason_ = self._calibrated()
        return self

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: `fit` needs labels."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _calibrated(self) -> tuple[Threshold | None, str]:
        """Return the threshold, and why it is None or keeps a higher rate than stated."""
        rate, own = self.false_match_rate, self._impostor_scores()
        try:
            return from_good(own, false_alarm_rate=rate), ""
        except CalibrationError as error:
            reason = str(error)
        n_chances = int(np.minimum(np.bincount(self._persons), _MOST_CHANCES_PER_PERSON).sum())
        impostors = None
        if self.impostor_similarities is not None:
            impostors = np.asarray(self.impostor_similarities, np.float64)
            # Impostor pairs are of few persons: with pairs enough, the rate is held with confidence.
            chance_rate = -math.expm1(math.log1p(-rate) / n_chances)
            is_enough = len(impostors) >= required_examples(chance_rate, confidence=_CONFIDENCE)
            confidence = _CONFIDENCE if is_enough else None
            try:
                return from_nonmatching_pairs(
                    impostors, false_alarm_rate=rate, n_comparisons=n_chances, confidence=confidence
                ), ""
            except CalibrationError as error:
                reason = str(error)
        return self._best_possible(own, impostors, n_chances, reason)

    def _best_possible(
        self,
        own: NDArray[np.float64],
        impostors: NDArray[np.float64] | None,
        n_chances: int,
        reason: str,
    ) -> tuple[Threshold | None, str]:
        """Return the threshold with the lowest rate that can be kept, if that rate is low enough to use."""
        own_rate = _best_rate(len(own), 1)
        impostor_rate = 1.0 if impostors is None else _best_rate(len(impostors), n_chances)
        best = min(own_rate, impostor_rate)
        if best > _WORST_RATE:
            return None, f"every face is unknown: {reason}"
        if own_rate <= impostor_rate:
            threshold = from_good(own, false_alarm_rate=best)
        else:
            threshold = from_nonmatching_pairs(
                np.asarray(impostors), false_alarm_rate=best, n_comparisons=n_chances
            )
        return threshold, f"the false match rate is {best:g} instead of the stated one: {reason}"

    def _impostor_scores(self) -> NDArray[np.float64]:
        """Return for each person the highest similarity of its faces to a face of another person."""
        n = len(self._faces)
        if len(self.classes_) < 2:
            return np.empty(0)
        rows = np.arange(n)
        if n > _MOST_CALIBRATED:
            rows = np.random.default_rng(self.random_state).choice(n, _MOST_CALIBRATED, replace=False)
        scores = np.full(len(self.classes_), -np.inf)
        for block, similarities in similarity_blocks(self._faces[rows], self._faces):
            persons = self._persons[rows[block]]
            similarities[persons[:, None] == self._persons[None]] = -2
            np.maximum.at(scores, persons, similarities.max(1))
        # If not all faces were drawn, some persons may have no score.
        finite: NDArray[np.float64] = scores[np.isfinite(scores)]
        return finite

    def identify(self, X: ArrayLike) -> FaceIdentities:
        """Return the persons of (n, d) faces, their similarities, and their rivals."""
        check_is_fitted(self)
        queries = unit_length(validate_data(self, X, reset=False, dtype=[np.float32, np.float64]))
        blocks = [
            self._identified(similarities) for _, similarities in similarity_blocks(queries, self._faces)
        ]
        first, best, second, rival, has_votes = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        if self.threshold_ is None:
            unknown, ambiguous = np.ones(len(queries), bool), np.zeros(len(queries), bool)
        else:
            unknown = ~has_votes
            ambiguous = has_votes & (rival > self.threshold_.value)
        return FaceIdentities(self.classes_[first], best, unknown, self.classes_[second], rival, ambiguous)

    def predict(self, X: ArrayLike) -> NDArray[np.object_]:
        """Return the person of each of (n, d) faces, None where unknown: an object array of shape (n,)."""
        identities = self.identify(X)
        names = identities.persons.astype(object)
        names[identities.unknown] = None
        return names

    def _identified(self, similarities: NDArray[np.floating]) -> tuple[NDArray[Any], ...]:
        """Return first person, similarity, second person, similarity, and whether any face voted."""
        n, n_persons = len(similarities), len(self.classes_)
        rows = np.arange(n)
        nearest = np.full((n, n_persons), -1.0)
        for person in range(n_persons):
            nearest[:, person] = similarities[:, self._persons == person].max(1)
        votes = np.zeros_like(nearest)
        if self.threshold_ is not None:
            voters, values = highest(similarities, self.n_neighbors)
            weights = np.maximum(values - self.threshold_.value, 0)
            np.add.at(votes, (rows[:, None], self._persons[voters]), weights**2)
        has_votes = votes.max(1) > 0
        first = np.where(has_votes, votes.argmax(1), nearest.argmax(1))
        best = nearest[rows, first]
        others = nearest.copy()
        others[rows, first] = -1.0
        second = others.argmax(1) if n_persons > 1 else first
        return first, best, second, others[rows, second], has_votes


def _best_rate(n_examples: int, n_comparisons: int) -> float:
    """Return the lowest rate that so many examples can keep, rounded up so that asking for it succeeds."""
    if n_examples == 0:
        return 1.0
    best = -math.expm1(n_comparisons * math.log1p(-1 / (n_examples + 1)))
    return min(1.0, math.ceil(best * 1e4) / 1e4)
