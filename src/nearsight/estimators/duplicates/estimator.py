"""Near-duplicates as an estimator: propose candidate pairs, verify them, group them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import validate_data

from nearsight.errors import InvalidParameterError
from nearsight.estimators.conformal.threshold import check_rate
from nearsight.estimators.duplicates.calibration import (
    NO_CANDIDATE_SCORE,
    best_scores,
    calibrated,
    calibrated_on_distinct,
    expected_rate,
    n_unconnected,
)
from nearsight.estimators.duplicates.proposals import Hashes, pair_cosines, propose
from nearsight.estimators.duplicates.star_clusters import star_groups
from nearsight.estimators.neighbors import EXACT_ROWS, unit_length
from nearsight.parameters import require_number, require_whole

#: From two arrays of m rows to a score for each pair: the higher, the more certain a duplicate; NaN: not one.
PairVerifier = Callable[[NDArray[np.int64], NDArray[np.int64]], ArrayLike]

#: From k sorted rows and the (m, 2) duplicate pairs among them to a quality for each row: higher is better.
QualityFunction = Callable[[NDArray[np.int64], NDArray[np.int64]], ArrayLike]


class NearDuplicates(ClusterMixin, BaseEstimator):
    """Find rows that are near-duplicates of each other, by similarity and a second, independent score.

    *Method*: the nearest neighbors of each row by cosine are candidates (`candidate_pairs`). So are its
    nearest neighbors by `hashes`, which find duplicates where all vectors are alike. A candidate by one of
    the two must not be too unlike by the other. `verify` scores the
    candidates by data that is independent of the vectors; pairs above the threshold are duplicates. A group
    forms around its row of the highest quality; every other row is a duplicate of that row, or of most of the
    rows that are (`star_groups`).

    With `false_alarm_rate`, the threshold is calibrated on these rows by split conformal prediction: each row
    is one query, its score the best of its candidates. Rows with a duplicate are not good examples, but which
    ones they are is unknown; so rows that score `certain_score` or more are left out, and the number of good
    rows among them is estimated from the scores below (`conformal.from_contaminated`). If the scores do not
    fall off there, as in a burst of shots, the rate is refused. Duplicates that score less than
    `certain_score` push the threshold up, and fewer duplicates are found. If some rows are known to have no
    duplicate among each other (`distinct_where`), the threshold is calibrated on them instead
    (`conformal.from_nonmatching_pairs`). They were compared with each other only, and later with all rows, so
    the number of comparisons is corrected; rows connected by scores of at least `certain_score` count as one.

    Parameters
    ----------
    threshold : float, default 0.95
        Pairs above it are duplicates: a score of `verify`, or the cosine without it. With `false_alarm_rate`,
        it applies only if fewer rows than that share have any candidate.
    false_alarm_rate : float, optional
        In (0, 1): the share of rows without a duplicate that may be given one.
    certain_score : float, optional
        Most pairs that score this or more are duplicates. By default no row is left out of the calibration,
        and without a rate `expected_rate_` is unknown.
    min_similarity : float, default 0.5
        In -1..1: the lowest cosine of a candidate by vectors.
    min_hash_similarity : float, default -1
        In -1..1: the lowest cosine of hashes, of any variants, of a candidate by vectors. A row without a
        hash is like all others.
    n_neighbors : int, default 10
        Candidates of each row, at least 1.
    verify : callable, optional
        From two int64 arrays of rows to a score for each pair.
    exact_rows : int, default 20000
        Beyond so many rows, neighbors are searched by parts; see `neighbors.nearest_neighbors`.
    random_state : int, optional
        Draws the sample that parts are fitted on. With the default, 0, results are reproducible.
    n_threads : int, optional
        Of the searches for candidates; by default all cores. The result does not depend on it.
    progress : bool or None, default False
        Whether `fit` shows the searches' progress on stderr.

    Attributes
    ----------
    pairs_ : ndarray of shape (m, 2), int64
        The duplicate pairs, the lower row first; sorted.
    similarities_ : ndarray of shape (m,), float32
        Their cosines, in -1..1.
    scores_ : ndarray of shape (m,), float32
        Their scores by `verify`, or their cosines.
    labels_ : ndarray of shape (n,), int64
        The group of each row; -1 for rows without a duplicate.
    kept_ : ndarray of shape (n_groups,), int64
        The row of the highest quality in each group.
    threshold_ : float
        The threshold that was used.
    calibration_ : Threshold or None
        Its calibration, with `false_alarm_rate`.
    expected_rate_ : float or None
        The expected share of rows without a duplicate that are given one at this threshold, by the
        calibration, or by how scores fall off below `certain_score` (`conformal.expected_exceedances`). None
        without both.

    Notes
    -----
    Costs n² d operations up to `exact_rows` rows, then about 8 n^1.5 d (`neighbors.nearest_neighbors`); as
    much for each hash up to 5,000 rows, then some microseconds (`hash_pairs`); and one call of `verify` for
    at most n × `n_neighbors` candidates, and 20 n with hashes. Memory beside X: a copy of
    it where it is not of unit length, and 12 bytes a candidate.

    No rows are refused, as in scikit-learn; one has no duplicate; two are compared. NaN and infinity are
    refused. Duplicate rows, and rows that are all the same, have a cosine of 1 and are duplicates if `verify`
    agrees. A row of zeros has no direction and no duplicate.

    Examples
    --------
    >>> import numpy as np
    >>> from nearsight.estimators.duplicates import NearDuplicates
    >>> X = np.random.default_rng(0).normal(size=(5, 16))
    >>> X[3] = X[1] + 0.01
    >>> duplicates = NearDuplicates().fit(X)
    >>> duplicates.labels_.tolist(), duplicates.kept_.tolist()
    ([-1, 0, -1, 0, -1], [1])
    """

    def __init__(
        self,
        *,
        threshold: float = 0.95,
        false_alarm_rate: float | None = None,
        certain_score: float | None = None,
        min_similarity: float = 0.5,
        min_hash_similarity: float = -1.0,
        n_neighbors: int = 10,
        verify: PairVerifier | None = None,
        exact_rows: int = EXACT_ROWS,
        random_state: int | None = 0,
        n_threads: int | None = None,
        progress: bool | None = False,
    ) -> None:
        self.threshold = threshold
        self.false_alarm_rate = false_alarm_rate
        self.certain_score = certain_score
        self.min_similarity = min_similarity
        self.min_hash_similarity = min_hash_similarity
        self.n_neighbors = n_neighbors
        self.verify = verify
        self.exact_rows = exact_rows
        self.random_state = random_state
        self.n_threads = n_threads
        self.progress = progress

    def fit(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        quality: ArrayLike | QualityFunction | None = None,
        splits: ArrayLike | None = None,
        hashes: ArrayLike | None = None,
        edited_hashes: ArrayLike | None = None,
        distinct_where: ArrayLike | None = None,
    ) -> "NearDuplicates":
        """Find the duplicates among the rows of X.

        Parameters
        ----------
        X : array of shape (n, d), float
            Vectors of any length; directions are compared.
        y : ignored
        quality : array of shape (n,), float, or callable, optional
            The row of the highest quality is kept; of equal rows, the first. A callable gets the k rows with
            duplicates and their (m, 2) pairs and returns k numbers, for qualities that are costly to compute.
        splits : array of shape (n,), int, optional
            Only pairs across splits (0, 1, ...) are searched, such as a training and a test set; rows of
            split -1 are left out.
        hashes : array of shape (n_variants, n, e), float or int, optional
            Another description of each row, such as a perceptual hash in signs (-1 and 1), in one or more
            variants (such as that of the mirror image). The 10 rows whose first variant is nearest to any
            variant of a row are candidates if their cosine is at least 0.6; below 0.82, that of their vectors
            must be at least 0.4, and below 0.74, 0.5. A row of zeros has no hash.
        edited_hashes : array of shape (n_edits, n, e), float or int, optional
            The hashes of edits of each row that barely change its vector, such as crops. As `hashes`, but
            candidates by these alone need `min_similarity` where the cosine of their hashes is below 0.74.
        distinct_where : array of shape (n,), bool, optional
            Rows that have no duplicate among each other; the threshold is calibrated on them.

        Raises
        ------
        InvalidParameterError
            A parameter is out of its range, or an array has the wrong shape.
        CalibrationError
            There are too few rows for the rate, and the message says how many are needed; or too many rows
            are alike without being duplicates: give `distinct_where`, or a higher rate.
        """
        self._check()
        vectors = unit_length(validate_data(self, X, dtype=np.float32), copy=False)
        n = len(vectors)
        row_splits = None if splits is None else _row_values("splits", splits, n, np.int64)
        row_hashes = _row_hashes(n, hashes, edited_hashes)
        distinct = self._distinct_rows(n, distinct_where)
        search = partial(
            propose,
            n_neighbors=self.n_neighbors,
            min_similarity=self.min_similarity,
            min_hash_similarity=self.min_hash_similarity,
            exact_rows=self.exact_rows,
            random_state=self.random_state,
            n_threads=self.n_threads,
            progress=self.progress,
        )
        pairs, similarities = search(vectors, splits=row_splits, hashes=row_hashes)
        own_pairs = np.empty((0, 2), np.int64)
        if len(distinct):
            own_pairs, _ = search(vectors[distinct], hashes=_hashes_of(row_hashes, distinct))
        scores, own_scores = np.split(
            self._scores(vectors, np.concatenate([pairs, distinct[own_pairs]])), [len(pairs)]
        )
        searched = np.ones(n, bool) if row_splits is None else row_splits >= 0
        best = best_scores(n, pairs, scores)[searched]
        self.calibration_ = None
        if self.false_alarm_rate is not None and distinct_where is None:
            self.calibration_ = calibrated(best, self.false_alarm_rate, self.certain_score)
        elif self.false_alarm_rate is not None:
            n_compared = n_unconnected(n, pairs, scores, self.certain_score) - np.count_nonzero(~searched)
            self.calibration_ = calibrated_on_distinct(
                len(distinct),
                own_pairs,
                own_scores,
                false_alarm_rate=self.false_alarm_rate,
                certain_score=self.certain_score,
                n_compared=n_compared,
            )
        self.threshold_ = float(self.threshold)
        # If fewer rows than the rate have any candidate, the calibrated threshold is below all candidates.
        if self.calibration_ and self.calibration_.value > NO_CANDIDATE_SCORE:
            self.threshold_ = self.calibration_.value
        self.expected_rate_ = expected_rate(best, self.threshold_, self.calibration_, self.certain_score)
        accepted = scores > self.threshold_
        self.pairs_, self.similarities_ = pairs[accepted], similarities[accepted]
        self.scores_ = scores[accepted]

        def are_duplicates(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
            above: NDArray[np.bool_] = (
                self._scores(vectors, np.stack([left, right], axis=1)) > self.threshold_
            )
            return above

        qualities = self._qualities(n, quality)
        self.labels_, self.kept_ = star_groups(n, self.pairs_, qualities, are_duplicates)
        return self

    def _distinct_rows(self, n: int, distinct_where: ArrayLike | None) -> NDArray[np.int64]:
        if distinct_where is None:
            return np.empty(0, np.int64)
        if self.false_alarm_rate is None:
            raise InvalidParameterError(
                "distinct_where names the rows that a rate is calibrated on; give false_alarm_rate as well"
            )
        return np.flatnonzero(_row_values("distinct_where", distinct_where, n, bool))

    def _qualities(self, n: int, quality: ArrayLike | QualityFunction | None) -> NDArray[np.float64]:
        if callable(quality):
            rows, qualities = np.unique(self.pairs_), np.zeros(n)
            qualities[rows] = _row_values("quality", quality(rows, self.pairs_), len(rows), np.float64)
            return qualities
        return np.zeros(n) if quality is None else _row_values("quality", quality, n, np.float64)

    def _scores(self, vectors: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of pairs by `verify`, or their cosines."""
        if self.verify is None or not len(pairs):
            return pair_cosines(vectors, pairs)
        left, right = pairs.T
        scores = np.asarray(self.verify(left, right), np.float32)
        if scores.shape != left.shape:
            raise InvalidParameterError(
                f"verify returned an array of shape {scores.shape} for {len(left)} pairs; it must return one"
                " score each"
            )
        # A pair that could not be compared is not a duplicate.
        return np.nan_to_num(scores, nan=NO_CANDIDATE_SCORE, posinf=np.inf, neginf=NO_CANDIDATE_SCORE)

    def _check(self) -> None:
        for name in ("n_neighbors", "exact_rows"):
            require_whole(name, getattr(self, name))
        for name in ("min_similarity", "min_hash_similarity"):
            value = getattr(self, name)
            require_number(name, value)
            if not -1 <= value <= 1:
                raise InvalidParameterError(f"{name} is {value}; a cosine lies between -1 and 1")
        if self.false_alarm_rate is not None:
            check_rate("false_alarm_rate", self.false_alarm_rate)


def _hashes_of(hashes: Hashes | None, rows: NDArray[np.int64]) -> Hashes | None:
    return None if hashes is None else (hashes[0][:, rows], hashes[1][:, rows])


def _row_hashes(n: int, hashes: ArrayLike | None, edited: ArrayLike | None) -> Hashes | None:
    if hashes is None:
        if edited is not None:
            raise InvalidParameterError("edited_hashes are compared with hashes; give hashes as well")
        return None
    plain = _hash_array("hashes", hashes, n)
    if not len(plain):
        raise InvalidParameterError(f"hashes has shape {plain.shape}; give at least one variant")
    return plain, plain[:0] if edited is None else _hash_array("edited_hashes", edited, n, plain.shape[2])


def _hash_array(name: str, values: ArrayLike, n: int, e: int | None = None) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 3 or array.shape[1] != n or e not in (None, array.shape[2]):
        expected = f"n = {n}" if e is None else f"n = {n} and e = {e}"
        raise InvalidParameterError(
            f"{name} has shape {array.shape}; it must be (n_variants, n, e) with {expected}"
        )
    if array.dtype.kind not in "iu" and not np.isfinite(array).all():
        raise InvalidParameterError(
            f"{name} holds NaN or infinity; give finite numbers, or zeros for a row without a hash"
        )
    return array


def _row_values(name: str, values: ArrayLike, n: int, dtype: Any) -> NDArray[Any]:
    array = np.asarray(values, dtype)
    if array.shape != (n,):
        raise InvalidParameterError(f"{name} has shape {array.shape}; give one number a row, ({n},)")
    if np.isnan(array).any():
        raise InvalidParameterError(f"{name} holds NaN; give every row a number")
    return array
