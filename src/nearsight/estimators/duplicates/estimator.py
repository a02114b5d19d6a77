"""Near-duplicates as an estimator."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import validate_data

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.conformal import Threshold, from_background, from_good, from_mixed, unseen_alarms
from nearsight.estimators.duplicates.candidate_pairs import EXACT_ROWS, near_pairs
from nearsight.estimators.duplicates.star_grouping import star_groups

#: Given rows (m,) and (m,): how surely the two of each pair are the same; higher is surer, NaN is never.
Confirm = Callable[[NDArray[np.int64], NDArray[np.int64]], ArrayLike]

#: Given rows (k,), sorted, and the (m, 2) pairs of them that are the same: a number for each row, higher for
#: what is better kept.
Quality = Callable[[NDArray[np.int64], NDArray[np.int64]], ArrayLike]

# How rows look, and how edits of them would.
Looks = tuple[NDArray[Any], NDArray[Any]]

# Candidates of each row by its look, and the cosine that they have at least: of 63 signs, 50 are the same.
_LOOK_NEIGHBORS, _LEAST_LOOK = 10, 0.6

# Each row has many looks; from so many rows on, cells find as many copies (99 of 100) in a fifth of the time.
_EXACT_LOOKS = 5_000

# Rows whose products are computed together.
_ROWS = 65_536

# What a row without any candidate scores: less than any pair.
_NOTHING_LIKE_IT = -1.0


class NearDuplicates(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Finds rows that are copies of one another: alike, and confirmed by a second signal.

    *Method*: each row's nearest neighbors by cosine are candidates (`near_pairs`), and so are its nearest
    by `looks`, where they are given: vectors miss copies where all rows are alike. `confirm` scores
    them by something that knows nothing of the vectors; pairs above the threshold are the same. Groups are
    formed around the row of the highest quality, and every other was confirmed against that very row, or
    against most of those that were (`star_groups`).

    With `false_alarm_rate`, the threshold is learned on these data by split conformal prediction: each row is
    one question, its score the best among its candidates. Rows that have a copy are no good examples, and
    are not known; so those that score `surely` or more are left out, and how many good ones that leaves out
    is told by how the others' scores fall off below it (`calibrate.from_mixed`). Where they do not fall off,
    as among the shots of a burst, the rate is refused. Copies that score less than `surely` push the
    threshold up, and fewer are found. Where some rows are known to have no copy among each other
    (`distinct`), the threshold is learned on them instead (`calibrate.from_background`). Each of them was
    compared with those only, and rows are compared with all: a question is so many comparisons as there are
    more rows, those that hang together above `surely` counted as one.

    Parameters
    ----------
    threshold : float, default 0.95
        Pairs above it are the same: a score of `confirm`, or the cosine where there is none. With
        `false_alarm_rate`, it is used only where fewer rows than that share have any candidate.
    false_alarm_rate : float, optional
        In (0, 1): the share of rows without a copy that may be given one.
    surely : float, optional
        See above; by default no row is left out, and what rows that are alike but no copies score is not
        told (`expected_rate_`).
    min_similarity : float, default 0.5
        In -1..1: the cosine below which a pair is no candidate by its vectors.
    n_neighbors : int, default 10
        Candidates of each row, at least 1.
    confirm : callable, optional
        Called with two int64 arrays of row numbers.
    exact_rows : int, default 20000
        Beyond so many rows, neighbors are looked for in the nearest cells only.
    random_state : int, optional
        Chooses what cells are learned on. Default 0: the same data give the same answer.

    Attributes
    ----------
    pairs_ : ndarray of shape (m, 2), int64
        Rows that are the same, the lower first; sorted.
    similarities_ : ndarray of shape (m,), float32
        Their cosines, in -1..1.
    scores_ : ndarray of shape (m,), float32
        What `confirm` said, or the cosines.
    labels_ : ndarray of shape (n,), int64
        Number of the group, -1 for rows without a copy.
    kept_ : ndarray of shape (n_groups,), int64
        The row of each group that is best kept.
    threshold_ : float
        A pair above it is the same.
    calibration_ : Threshold or None
        What is known of it, with `false_alarm_rate`.
    expected_rate_ : float or None
        The share of rows without a copy that are given one at this threshold, as reckoned: by the
        calibration, or by how scores fall off below `surely` (`calibrate.unseen_alarms`). None without both.

    Notes
    -----
    n²d operations up to `exact_rows` rows, then 8 n^1.5 d; the same for each look, by cells beyond 5,000;
    and a call of `confirm` for each of n times `n_neighbors` candidates at most. Memory beside X: a copy of
    it where it is not of unit length, and 12 bytes a candidate.

    Without rows it refuses, by scikit-learn's rule; one has no copy; two are compared. NaN and infinity are
    refused. Rows that repeat, or are all the same, have a cosine of 1 and are copies if `confirm` agrees. A
    row of zeros has no direction and no copy.

    Examples
    --------
    >>> import numpy as np
    >>> from nearsight.estimators.duplicates import NearDuplicates
    >>> X = np.random.default_rng(0).normal(size=(5, 16))
    >>> X[3] = X[1] + 0.01
    >>> found = NearDuplicates().fit(X)
    >>> found.labels_.tolist(), found.kept_.tolist()
    ([-1, 0, -1, 0, -1], [1])
    """

    def __init__(
        self,
        *,
        threshold: float = 0.95,
        false_alarm_rate: float | None = None,
        surely: float | None = None,
        min_similarity: float = 0.5,
        n_neighbors: int = 10,
        confirm: Confirm | None = None,
        exact_rows: int = EXACT_ROWS,
        random_state: int | None = 0,
    ) -> None:
        self.threshold = threshold
        self.false_alarm_rate = false_alarm_rate
        self.surely = surely
        self.min_similarity = min_similarity
        self.n_neighbors = n_neighbors
        self.confirm = confirm
        self.exact_rows = exact_rows
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        quality: ArrayLike | Quality | None = None,
        sides: ArrayLike | None = None,
        looks: ArrayLike | None = None,
        edited_looks: ArrayLike | None = None,
        distinct: ArrayLike | None = None,
    ) -> "NearDuplicates":
        """Find the copies among the rows of X.

        Parameters
        ----------
        X : array of shape (n, d), float
            Vectors of any length; directions are compared.
        y : ignored
        quality : array of shape (n,), float, or callable, optional
            Which copy to keep: higher is better. Of equal rows, the first. A callable is given the rows (k,)
            that have copies and the pairs that are the same, and returns a number for each row, where that is
            costly to know for all.
        sides : array of shape (n,), int, optional
            Look only for pairs that lie on different sides (0, 1, ...), such as a training and a test set;
            rows of side -1 are left out.
        looks : array of shape (n_ways, n, e), float or int, optional
            Another description of each row, such as a perceptual hash in signs (-1 and 1), in one or more
            ways (such as its mirror image's). The 10 rows whose first way is nearest to any of a row's ways
            are candidates if their cosine is at least 0.6. A row of zeros has no look.
        edited_looks : array of shape (n_edits, n, e), float or int, optional
            How edits of each row would look that its vector bears, such as crops. As `looks`, but a pair that
            only they propose needs `min_similarity`, too.
        distinct : array of shape (n,), bool, optional
            Rows of which no two are the same; the rate of false alarms is learned on them.

        Raises
        ------
        InvalidParameterError
            A parameter is out of its range, or an array has another length.
        CalibrationError
            There are too few rows for that rate of false alarms, and the message says how many are needed; or
            too many are alike without being the same.
        """
        self._check()
        unit = _unit(validate_data(self, X, dtype=np.float32))
        n = len(unit)
        sides_ = None if sides is None else _checked("sides", sides, n, np.int64)
        ways = _ways(n, looks, edited_looks)
        pairs, similarities = self._candidates(unit, sides_, ways)
        scores = similarities if self.confirm is None else self._confirmed(*pairs.T)
        asked = np.ones(n, bool) if sides_ is None else sides_ >= 0
        best = _best(n, pairs, scores)[asked]
        if distinct is None:
            self.calibration_ = self._calibrated(best)
        else:
            known = np.flatnonzero(_checked("distinct", distinct, n, bool))
            n_others = self._n_apart(n, pairs, scores) - np.count_nonzero(~asked)
            self.calibration_ = self._calibrated_on(known, unit, ways, n_others)
        self.threshold_ = float(self.threshold)
        # Where so few rows have a candidate that all may be wrong, the calibration has nothing to say.
        if self.calibration_ and self.calibration_.value > _NOTHING_LIKE_IT:
            self.threshold_ = self.calibration_.value
        self.expected_rate_ = self._expected_rate(best)
        same = scores > self.threshold_
        self.pairs_, self.similarities_, self.scores_ = pairs[same], similarities[same], scores[same]
        worth = np.zeros(n)
        if callable(quality):
            rows = np.unique(self.pairs_)
            worth[rows] = _checked("quality", quality(rows, self.pairs_), len(rows), np.float64)
        elif quality is not None:
            worth = _checked("quality", quality, n, np.float64)

        def judge(here: NDArray[np.int64], there: NDArray[np.int64]) -> NDArray[np.bool_]:
            score = _cosines(unit, here, there) if self.confirm is None else self._confirmed(here, there)
            same: NDArray[np.bool_] = score > self.threshold_
            return same

        self.labels_, self.kept_ = star_groups(n, self.pairs_, worth, judge)
        return self

    def _candidates(
        self, unit: NDArray[np.float32], sides: NDArray[np.int64] | None, looks: Looks | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the pairs to confirm, the lower row first and sorted, and their cosines."""
        search = partial(near_pairs, exact_rows=self.exact_rows, random_state=self.random_state)
        pairs, similarities = search(
            unit, n_neighbors=self.n_neighbors, min_similarity=self.min_similarity, sides=sides
        )
        if looks is None:
            return pairs, similarities
        plain, edited = looks
        by_look = partial(
            search,
            _unit(plain[0].astype(np.float32)),
            n_neighbors=_LOOK_NEIGHBORS,
            min_similarity=_LEAST_LOOK,
            sides=sides,
            exact_rows=min(self.exact_rows, _EXACT_LOOKS),
        )
        found = [pairs, by_look(ways=plain[1:])[0]]
        if len(edited):
            # Among so many ways much is alike by chance.
            more, _ = by_look(ways=edited)
            found.append(more[_cosines(unit, *more.T) >= self.min_similarity])
        pairs = np.unique(np.concatenate(found), axis=0)
        return pairs, _cosines(unit, *pairs.T)

    def _confirmed(self, here: NDArray[np.int64], there: NDArray[np.int64]) -> NDArray[np.float32]:
        if not len(here) or self.confirm is None:
            return np.empty(0, np.float32)
        scores = np.asarray(self.confirm(here, there), np.float32)
        if scores.shape != here.shape:
            raise InvalidParameterError(
                f"confirm gave an array of shape {scores.shape} for {len(here)} pairs; it must give one each"
            )
        # Whatever could not be compared is not confirmed.
        return np.nan_to_num(scores, nan=_NOTHING_LIKE_IT, posinf=np.inf, neginf=_NOTHING_LIKE_IT)

    def _calibrated(self, best: NDArray[np.float64]) -> Threshold | None:
        """Learn the threshold from the best score of each row, of which some have a copy."""
        if self.false_alarm_rate is None:
            return None
        if self.surely is None:
            return from_good(best, false_alarm_rate=self.false_alarm_rate)
        try:
            return from_mixed(best, false_alarm_rate=self.false_alarm_rate, **_ends(best, self.surely))
        except CalibrationError as error:
            way = "Good ones are rows without a copy: name some of which no two are the same (distinct)"
            raise CalibrationError(f"{error}. {way}") from error

    def _calibrated_on(
        self, rows: NDArray[np.int64], unit: NDArray[np.float32], looks: Looks | None, n_others: int
    ) -> Threshold:
        """Learn the threshold from rows of which no two are the same."""
        if self.false_alarm_rate is None:
            raise InvalidParameterError(
                "distinct says what a rate of false alarms is learned on; give false_alarm_rate as well"
            )
        seen = None if looks is None else (looks[0][:, rows], looks[1][:, rows])
        pairs, similarities = self._candidates(unit[rows], None, seen)
        scores = similarities if self.confirm is None else self._confirmed(*rows[pairs].T)
        return from_background(
            _best(len(rows), pairs, scores),
            false_alarm_rate=self.false_alarm_rate,
            n_comparisons=max(1.0, n_others / max(1, self._n_apart(len(rows), pairs, scores))),
            examples="distinct ones",
        )

    def _n_apart(self, n: int, pairs: NDArray[np.int64], scores: NDArray[np.float32]) -> int:
        """Return how many rows there are, those that surely hang together counted as one."""
        sure = pairs[scores >= (np.inf if self.surely is None else self.surely)]
        graph = coo_array((np.ones(len(sure), bool), sure.T), (n, n))
        return int(connected_components(graph, directed=False, return_labels=False))

    def _expected_rate(self, best: NDArray[np.float64]) -> float | None:
        if self.calibration_ and self.threshold_ == self.calibration_.value:
            return self.calibration_.expected_rate
        if self.surely is None:
            return None
        ends = _ends(best, self.surely)
        n = int((best < self.surely).sum()) + unseen_alarms(best, self.surely, **ends)
        return min(1.0, unseen_alarms(best, self.threshold_, **ends) / max(1, n))

    def _check(self) -> None:
        if self.n_neighbors < 1 or self.exact_rows < 1:
            raise InvalidParameterError(
                f"n_neighbors is {self.n_neighbors}, exact_rows is {self.exact_rows}; each must be 1 or more"
            )
        if not -1 <= self.min_similarity <= 1:
            raise InvalidParameterError(
                f"min_similarity is {self.min_similarity}; a cosine lies between -1 and 1"
            )


def _best(n: int, pairs: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the score of each row's best pair."""
    best = np.full(n, _NOTHING_LIKE_IT)
    for column in pairs.T:
        np.maximum.at(best, column, scores)
    return best


def _ends(best: NDArray[np.float64], surely: float) -> dict[str, float]:
    """Return where copies begin, and where scores end: at 1, as cosines do, unless `confirm` gives others."""
    return {"surely": surely, "highest": max(1.0, surely + 1e-6, best.max(initial=0))}


def _unit(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of unit length; the array itself where they are."""
    lengths = np.sqrt(np.einsum("nd,nd->n", X, X, dtype=np.float64))
    if (np.abs(lengths - 1) < 1e-4).all():
        return X
    lengths[lengths == 0] = 1
    unit: NDArray[np.float32] = (X / lengths[:, None]).astype(np.float32)
    return unit


def _cosines(
    unit: NDArray[np.float32], here: NDArray[np.int64], there: NDArray[np.int64]
) -> NDArray[np.float32]:
    cosines = np.empty(len(here), np.float32)
    for at in range(0, len(here), _ROWS):
        part = slice(at, at + _ROWS)
        np.einsum("nd,nd->n", unit[here[part]], unit[there[part]], out=cosines[part])
    return cosines


def _ways(n: int, looks: ArrayLike | None, edited: ArrayLike | None) -> Looks | None:
    if looks is None:
        if edited is not None:
            raise InvalidParameterError("edited_looks are compared with looks; give looks as well")
        return None
    plain = _look("looks", looks, n)
    if not len(plain):
        raise InvalidParameterError(f"looks has shape {plain.shape}; it must have at least one way")
    return plain, plain[:0] if edited is None else _look("edited_looks", edited, n, plain.shape[2])


def _look(name: str, values: ArrayLike, n: int, e: int | None = None) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 3 or array.shape[1] != n or e not in (None, array.shape[2]):
        asked = f"n being {n}" if e is None else f"n being {n} and e {e}"
        raise InvalidParameterError(f"{name} has shape {array.shape}; it must be (n_ways, n, e), {asked}")
    if array.dtype.kind not in "iu" and not np.isfinite(array).all():
        raise InvalidParameterError(
            f"{name} holds NaN or infinity; give every row numbers, or zeros for no look"
        )
    return array


def _checked(name: str, values: ArrayLike, n: int, dtype: Any) -> NDArray[Any]:
    array = np.asarray(values, dtype)
    if array.shape != (n,):
        raise InvalidParameterError(f"{name} has shape {array.shape}; it must be one number a row, ({n},)")
    if np.isnan(array).any():
        raise InvalidParameterError(f"{name} holds NaN; give every row a number")
    return array
