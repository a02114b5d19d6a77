"""Identify faces by the most similar enrolled person; the answer may be "unknown".

Vectors are compared by cosine. The threshold is never a fixed number: it is calibrated for a stated false
match rate, on a background population of faces of different persons, or on the enrolled faces.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from nearsight.errors import CalibrationError
from nearsight.estimators.conformal import Threshold, from_good
from nearsight.estimators.conformal.threshold import check_rate
from nearsight.estimators.faces.impostor_quantiles import DEFAULT_FALSE_MATCH_RATE, ImpostorQuantiles
from nearsight.estimators.neighbors import similarity_blocks, unit_length

#: Settings of the guard, chosen on one half of the background population.
GUARD_RATE, GUARD_PERSONS = 0.03, 20
# So few persons with one image each cannot show that a bank's photographs are unlike the background;
# `caution_` says so.
_FEW_PERSONS, _FEW_IMAGES = 50, 2
# Comparisons of enrolled faces with other persons that the guard looks at.
_MAX_COMPARISONS = 5_000_000
# No threshold is used that only keeps a higher rate than this.
_WORST_RATE = 0.1


@dataclass(frozen=True, slots=True)
class FaceIdentities:
    """The persons that faces were identified as, row by row.

    Attributes
    ----------
    persons : ndarray of shape (n,)
        The most similar enrolled person; also where the face is unknown.
    similarity : ndarray of shape (n,), float64
        Cosine to the mean of that person's faces, in -1..1; higher is closer.
    unknown : ndarray of shape (n,), bool
        No enrolled person is similar enough.
    rivals : ndarray of shape (n,)
        The second most similar person; the first again where there is no other.
    rival_similarity : ndarray of shape (n,), float64
        Cosine to the mean of the rival's faces; -1 where there is no rival.
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
    """Name faces by the most similar enrolled person, or call them unknown.

    *Method*: nearest class mean (Mensink et al. 2013, doi 10.1109/TPAMI.2013.83) by cosine: a person is the
    mean of the unit vectors of the enrolled faces, scaled to unit length.

    With `impostor_quantiles`, the threshold is that of a background population for so many persons and
    images (`ImpostorQuantiles.threshold`). The persons of a bank may be more alike than the background: then
    the threshold is raised by d × N / (N + 20), where d is how much the 97th percentile of the comparisons of
    enrolled faces with other persons exceeds that of the background, and N is the number of persons. It is
    never lowered. A lower rate never gives a lower threshold.

    Without `impostor_quantiles`, or for a rate that they do not reach, it is split conformal
    (`nearsight.estimators.conformal`) on the enrolled faces: each is compared with the means of all *other*
    persons, as an unknown face would be. Faces of one person are alike, so each person is one example, with
    the highest of its similarities; about 1/r persons are needed for a rate r.

    Parameters
    ----------
    false_match_rate : float, default 0.01
        In (0, 1): the share of faces of persons who are not enrolled that may be given a name.
    impostor_quantiles : ImpostorQuantiles, optional
        Of the same model.

    Attributes
    ----------
    threshold_ : Threshold or None
        A known face is more similar than its `value` to some enrolled person. If no data can keep the rate,
        the threshold with the lowest rate that can be kept; if that rate is above 10 %, None, and every face
        is unknown.
    reason_ : str
        Why `threshold_` keeps a higher rate than stated, or is None; empty otherwise.
    caution_ : str
        Why the realized rate may be higher than the stated one although `threshold_` keeps it for faces like
        those of the background; empty otherwise.
    guard_ : float
        By how much the threshold was raised because the enrolled persons are more alike than the background.
    classes_ : ndarray
        The persons, sorted.

    Notes
    -----
    With n faces of N persons, `fit` costs n × N × d, and identifying m faces m × N × d, in memory linear in
    n. A duplicate face counts twice in the mean of its person; one face under two names makes both persons
    `ambiguous`. If all faces are the same, every face is unknown, unless there is one person. Rows need not
    have unit length; a row of zeros is similar to nobody. No rows, NaN and infinity are refused. One face,
    two, or many of one person cannot calibrate a threshold by themselves: without `impostor_quantiles` every
    face is unknown, and `reason_` says why.

    Where the rate does not hold: in a small bank of one group of similar people the realized rate is higher,
    since the guard has too few persons to see it; at 0.1 %, two to three times the stated rate was measured.
    With one image of each of 10 to 30 persons, up to twice the stated rate was measured on small gray
    photographs, and with three images at most 1.2 times (`benchmarks/faces.py`); `caution_` says so.

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
        false_match_rate: float = DEFAULT_FALSE_MATCH_RATE,
        impostor_quantiles: ImpostorQuantiles | None = None,
    ) -> None:
        self.false_match_rate = false_match_rate
        self.impostor_quantiles = impostor_quantiles

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
        check_rate("false_match_rate", self.false_match_rate)
        faces, y = validate_data(self, X, y, dtype=[np.float32, np.float64])
        faces = unit_length(faces)
        self.classes_, persons = np.unique(y, return_inverse=True)
        self._means = mean_faces(faces, persons, len(self.classes_))
        self.guard_, self.caution_ = 0.0, ""
        self.threshold_, self.reason_ = self._calibrated(faces, persons)
        return self

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: `fit` needs labels."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _calibrated(
        self, faces: NDArray[np.floating], persons: NDArray[np.integer]
    ) -> tuple[Threshold | None, str]:
        """Return the threshold, and why it is None or keeps a higher rate than stated."""
        rate = self.false_match_rate
        own_scores, others = _impostor_scores(faces, persons, self._means)
        candidates: list[Threshold] = []
        if self.impostor_quantiles is not None:
            shipped = self._from_quantiles(self.impostor_quantiles, np.bincount(persons), others)
            if shipped.false_alarm_rate <= rate:
                self.caution_ = _caution(len(self.classes_), len(faces))
                return shipped, ""
            candidates.append(shipped)
        # Never below the shipped one: a lower rate must not give a lower threshold.
        least = candidates[0].value if candidates else -1.0
        try:
            own = from_good(own_scores, false_alarm_rate=rate)
            return replace(own, value=max(own.value, least)), ""
        except CalibrationError as error:
            reason = str(error)
        if len(own_scores):
            # Rounded up, so that so many persons can keep it.
            lowest = math.ceil(1e4 / (len(own_scores) + 1)) / 1e4
            own = from_good(own_scores, false_alarm_rate=lowest)
            candidates.append(replace(own, value=max(own.value, least)))
        best = min(candidates, key=lambda threshold: threshold.false_alarm_rate, default=None)
        if best is None or best.false_alarm_rate > _WORST_RATE:
            return None, f"every face is unknown: {reason}"
        return best, f"the false match rate is {best.false_alarm_rate:g} instead of the stated one: {reason}"

    def _from_quantiles(
        self, quantiles: ImpostorQuantiles, n_enrolled: NDArray[np.integer], others: NDArray[np.float64]
    ) -> Threshold:
        """Return the threshold of the background, raised by the guard."""
        shipped = quantiles.threshold(self.false_match_rate, n_enrolled)
        if not len(others):
            return shipped
        n_faces, n_persons = int(n_enrolled.sum()), len(n_enrolled)
        usual = quantiles.mixture_at_rate(GUARD_RATE, n_enrolled, n_faces - n_enrolled)
        excess = max(0.0, float(np.quantile(others, 1 - GUARD_RATE)) - usual)
        self.guard_ = excess * n_persons / (n_persons + GUARD_PERSONS)
        return replace(shipped, value=shipped.value + self.guard_)

    def identify(self, X: ArrayLike) -> FaceIdentities:
        """Return the persons of (n, d) faces, their similarities, and their rivals."""
        check_is_fitted(self)
        queries = unit_length(validate_data(self, X, reset=False, dtype=[np.float32, np.float64]))
        blocks = [_nearest_two(similarities) for _, similarities in similarity_blocks(queries, self._means)]
        first, best, second, rival = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        limit = math.inf if self.threshold_ is None else self.threshold_.value
        unknown = ~(best > limit)
        return FaceIdentities(
            self.classes_[first], best, unknown, self.classes_[second], rival, ~unknown & (rival > limit)
        )

    def similarities(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the cosine of each of (m, d) faces to the mean face of each person: (m, n_persons)."""
        check_is_fitted(self)
        faces = unit_length(validate_data(self, X, reset=False, dtype=[np.float32, np.float64]))
        values: NDArray[np.float64] = faces @ self._means.T
        return values

    def predict(self, X: ArrayLike) -> NDArray[np.object_]:
        """Return the person of each of (n, d) faces, None where unknown: an object array of shape (n,)."""
        identities = self.identify(X)
        names = identities.persons.astype(object)
        names[identities.unknown] = None
        return names


def _caution(n_persons: int, n_faces: int) -> str:
    if n_persons >= _FEW_PERSONS or n_faces >= _FEW_IMAGES * n_persons:
        return ""
    return (
        f"Only {n_faces} images of {n_persons} persons are enrolled, too few to check the false match rate on"
        " your photographs: twice the stated rate is possible. Enroll three images of each person."
    )


def mean_faces(
    faces: NDArray[np.floating], persons: NDArray[np.integer], n_persons: int
) -> NDArray[np.float64]:
    """Return the mean of the unit vectors of each person, scaled to unit length.

    Parameters
    ----------
    faces : ndarray of shape (n, d), unit length
    persons : ndarray of shape (n,), int
        Number of each face's person, below `n_persons`.
    n_persons : int

    Examples
    --------
    >>> mean_faces(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.array([0, 0, 1]), 2).round(3).tolist()
    [[0.707, 0.707], [0.0, 1.0]]
    """
    sums = np.zeros((n_persons, faces.shape[1]))
    np.add.at(sums, persons, faces)
    return unit_length(sums)


def _impostor_scores(
    faces: NDArray[np.floating], persons: NDArray[np.integer], means: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compare each face with the means of the other persons.

    Returns
    -------
    best : ndarray of shape (n_persons,)
        For each person, the highest similarity of its faces.
    others : ndarray
        All similarities, or those of evenly spaced faces where there are too many. Both are empty if there
        is only one person.
    """
    n, n_persons = len(faces), len(means)
    if n_persons < 2:
        return np.empty(0), np.empty(0)
    step = math.ceil(n * n_persons / _MAX_COMPARISONS)
    best, others = np.full(n_persons, -np.inf), []
    for block, similarities in similarity_blocks(faces, means):
        own = persons[block][:, None] == np.arange(n_persons)
        others.append(similarities[::step][~own[::step]])
        np.maximum.at(best, persons[block], np.where(own, -np.inf, similarities).max(1))
    return best, np.concatenate(others)


def _nearest_two(similarities: NDArray[np.floating]) -> tuple[NDArray[Any], ...]:
    """Return the column and value of the highest and of the second highest number of each row."""
    rows = np.arange(len(similarities))
    first = similarities.argmax(1)
    best = similarities[rows, first].astype(np.float64)
    if similarities.shape[1] == 1:
        return first, best, first, np.full(len(rows), -1.0)
    others = similarities.copy()
    others[rows, first] = -np.inf
    second = others.argmax(1)
    return first, best, second, others[rows, second].astype(np.float64)
