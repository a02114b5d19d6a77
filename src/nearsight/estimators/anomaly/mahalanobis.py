"""Vectors scored by their distance to those of good examples."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.anomaly.coreset import Coreset
from nearsight.estimators.conformal import Threshold, from_good, required_examples
from nearsight.estimators.stored_parameters import present_parameters
from nearsight.parameters import require_whole

Method = Literal["mahalanobis", "knn"]

_N_FOLDS = 5


class VectorAnomaly(OutlierMixin, BaseEstimator):
    """Score vectors by their distance to those of good examples.

    *Method*. ``mahalanobis``: Rippel et al. 2020 (arXiv 2005.14140, section III): the Mahalanobis distance to
    one Gaussian of all good vectors. Deviations: each feature is scaled by its standard deviation first, and
    the correlation matrix is shrunk to the identity by oracle approximating shrinkage (Chen et al. 2010,
    arXiv 0907.4698, equation 23) instead of Ledoit and Wolf's, so that one pass is enough.
    ``knn``: mean Euclidean distance to the nearest good vectors (Ramaswamy et al. 2000; Bergman et al. 2020,
    arXiv 2002.10445). Deviation: the good vectors are a `Coreset`.

    The threshold of `predict` is conformal (`conformal.from_good`), on the scores of five-fold cross-fitting
    (Vovk 2015, arXiv 1208.0806). The final model is fitted on all rows, which only lowers scores. Rows given
    to `partial_fit` are scored before they are learned, and their scores join the calibration.

    Parameters
    ----------
    method : {"mahalanobis", "knn"}
    n_neighbors : int, default 3
        Neighbors averaged by ``knn``.
    false_alarm_rate : float or None, default 0.1
        In (0, 1): the share of good examples that `predict` may call outliers. None fits no threshold, for
        a fifth of the time.
    max_rows : int, default 5000
        Size of the coreset of ``knn``.
    random_state : int, RandomState or None
        Chooses the folds and the coreset.

    Attributes
    ----------
    threshold_ : Threshold or None
        On `-score_samples`; None if there are too few rows for the rate.
    offset_ : float
        `decision_function` is `score_samples` - `offset_`, as in scikit-learn.
    n_samples_seen_ : int

    Notes
    -----
    ``mahalanobis`` stores d × d numbers and costs n d² to fit, d³ once, and d² a row to score; ``knn`` stores
    max_rows × d numbers and costs as much a row. No rows are refused; one is enough for scores: it is the
    mean, and the covariance is the identity. Duplicate rows count as often as they come; rows that are all
    the same score 0. NaN and infinity are refused.

    Examples
    --------
    >>> import numpy as np
    >>> good = np.random.default_rng(0).normal(size=(200, 4))
    >>> detector = VectorAnomaly().fit(good)
    >>> detector.predict([[0, 0, 0, 0], [9, 9, 9, 9]]).tolist()
    [1, -1]
    """

    def __init__(
        self,
        *,
        method: Method = "mahalanobis",
        n_neighbors: int = 3,
        false_alarm_rate: float | None = 0.1,
        max_rows: int = 5000,
        random_state: Any = 0,
    ) -> None:
        self.method = method
        self.n_neighbors = n_neighbors
        self.false_alarm_rate = false_alarm_rate
        self.max_rows = max_rows
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> "VectorAnomaly":
        """Fit on good examples only.

        Parameters
        ----------
        X : array of shape (n, d), float
            n at least 1.

        Raises
        ------
        InvalidParameterError
            A parameter is out of its range.
        """
        self._check()
        rows = self._rows(X)
        rng = check_random_state(self.random_state)
        self._seed = int(rng.randint(2**31 - 1))
        scores = self._cross_fitted(rows, rng) if self.false_alarm_rate is not None else np.empty(0)
        self._reset(rows.shape[1])
        self._update(rows)
        self._calibrate(scores)
        return self

    def partial_fit(self, X: ArrayLike, y: Any = None) -> "VectorAnomaly":
        """Fit on more good examples, in bounded memory.

        Parameters
        ----------
        X : array of shape (n, d), float
        """
        first = not hasattr(self, "n_samples_seen_")
        rows = self._rows(X, reset=first)
        if first:
            self._check()
            self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            self._good_scores = np.empty(0)
            self._reset(rows.shape[1])
        scores = np.empty(0) if first else self._distances(rows)
        self._update(rows)
        # The latest scores are most like those to come.
        self._calibrate(np.concatenate([self._good_scores, scores])[-self.max_rows :])
        return self

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return minus the distance of each row: higher is more normal.

        Returns
        -------
        ndarray of shape (n,), float64
            At most 0.
        """
        check_is_fitted(self)
        return -self._distances(self._rows(X, reset=False))

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return `score_samples` - `offset_`: below 0 is an outlier.

        Raises
        ------
        CalibrationError
            There are too few good examples for the rate; the message says how many it needs.
        """
        scores = self.score_samples(X)
        if self.threshold_ is None:
            n, rate = len(self._good_scores), self.false_alarm_rate
            if rate is None:
                raise CalibrationError(
                    "false_alarm_rate is None, so there is no threshold; state a rate, or use score_samples"
                )
            raise CalibrationError(
                f"a false-alarm rate of {rate:g} needs at least {required_examples(rate)} scores of good"
                f" examples; there are {n}. Give more, or ask for a higher rate"
            )
        return scores - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return 1 for each normal row, -1 for each outlier."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the fitted estimator as plain data and arrays; see `from_state`."""
        check_is_fitted(self)
        facts = {
            "params": self.get_params(deep=False),
            "n_samples_seen": self.n_samples_seen_,
            "seed": self._seed,
        }
        arrays: dict[str, NDArray[Any]] = {"good_scores": self._good_scores}
        if self.method == "knn":
            rows = self._coreset.rows
            facts["coreset"] = self._coreset.state()
            return facts, {**arrays, "rows": rows}
        return facts, {**arrays, "mean": self._mean, "scatter": self._scatter}

    @classmethod
    def from_state(cls, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "VectorAnomaly":
        """Return the estimator that `state` was called on."""
        estimator = cls(**present_parameters(facts["params"]))
        estimator._seed = int(facts["seed"])
        estimator.n_samples_seen_ = int(facts["n_samples_seen"])
        if estimator.method == "knn":
            estimator._coreset = Coreset.from_state(arrays["rows"], facts["coreset"])
            estimator.n_features_in_ = arrays["rows"].shape[1]
        else:
            estimator._mean, estimator._scatter = arrays["mean"], arrays["scatter"]
            estimator.n_features_in_ = len(estimator._mean)
            estimator._scale, estimator._precision = _precision(
                estimator._scatter, estimator.n_samples_seen_, estimator._mean
            )
        estimator._calibrate(np.asarray(arrays["good_scores"], np.float64))
        return estimator

    def _rows(self, X: ArrayLike, *, reset: bool = True) -> NDArray[np.float64]:
        rows: NDArray[np.float64] = validate_data(self, X, reset=reset, dtype=np.float64)
        return rows

    def _check(self) -> None:
        if self.method not in ("mahalanobis", "knn"):
            raise InvalidParameterError(f"method is {self.method!r}; it must be 'mahalanobis' or 'knn'")
        for name in ("n_neighbors", "max_rows"):
            require_whole(name, getattr(self, name))

    def _cross_fitted(self, X: NDArray[np.float64], rng: np.random.RandomState) -> NDArray[np.float64]:
        if len(X) < 2 or len(X) < required_examples(self.false_alarm_rate or 0.5):
            return np.empty(0)
        scores = np.empty(len(X))
        for held_out in np.array_split(rng.permutation(len(X)), min(_N_FOLDS, len(X))):
            self._reset(X.shape[1])
            self._update(np.delete(X, held_out, axis=0))
            scores[held_out] = self._distances(X[held_out])
        return scores

    def _calibrate(self, scores: NDArray[np.float64]) -> None:
        self._good_scores = scores
        rate = self.false_alarm_rate
        enough = rate is not None and len(scores) >= required_examples(rate)
        self.threshold_: Threshold | None = (
            from_good(scores, false_alarm_rate=rate) if rate is not None and enough else None
        )
        self.offset_ = -self.threshold_.value if self.threshold_ else -np.inf

    def _reset(self, d: int) -> None:
        self.n_samples_seen_ = 0
        if self.method == "knn":
            self._coreset = Coreset(self.max_rows, random_state=self._seed)
        else:
            self._mean, self._scatter = np.zeros(d), np.zeros((d, d))

    def _update(self, X: NDArray[np.float64]) -> None:
        n, m = self.n_samples_seen_, len(X)
        self.n_samples_seen_ = n + m
        if self.method == "knn":
            self._coreset.add(X.astype(np.float32))
            return
        # Chan et al. 1983: the moments of two samples together.
        mean = X.mean(0)
        step = mean - self._mean
        between = np.outer(step, step) * (n * m / (n + m))
        # Not in place: `state` returns these arrays.
        self._scatter = self._scatter + (X - mean).T @ (X - mean) + between
        self._mean = self._mean + step * (m / (n + m))
        self._scale, self._precision = _precision(self._scatter, n + m, self._mean)

    def _distances(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._to_neighbors(X) if self.method == "knn" else self._to_mean(X)

    def _to_neighbors(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = self._coreset.rows.astype(np.float64)
        k = min(self.n_neighbors, len(rows))
        distances = np.empty(len(X))
        # Row by row: matrix products round by their shape, and a score must not depend on its batch.
        for i, x in enumerate(X):
            squared = ((rows - x) ** 2).sum(1)
            distances[i] = np.sqrt(np.partition(squared, k - 1)[:k]).mean()
        return distances

    def _to_mean(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        distances = np.empty(len(X))
        for i, x in enumerate(X):
            z = (x - self._mean) / self._scale
            distances[i] = np.sqrt(max(float(z @ (self._precision @ z)), 0.0))
        return distances


def _precision(
    scatter: NDArray[np.float64], n: int, mean: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scale of each feature, and the inverse of the shrunken correlation matrix."""
    d = len(scatter)
    variance = np.diag(scatter) / n
    if not variance.any():
        # One example, or duplicates of one.
        return np.maximum(np.abs(mean), 1.0) if n > 1 else np.ones(d), np.eye(d)
    # A constant feature gets a small part of the typical scale of the others.
    floor = 1e-6 * np.median(variance[variance > 0])
    scale = np.sqrt(np.where(variance > floor, variance, max(floor, np.finfo(float).tiny)))
    correlation = scatter / n / np.outer(scale, scale)
    mu = np.trace(correlation) / d
    power = float((correlation**2).mean())
    denominator = (n + 1) * (power - mu**2 / d)
    rho = min(1.0, (power + mu**2) / denominator) if denominator > 0 else 1.0
    # Never singular by rounding.
    rho = max(rho, 1e-6)
    return scale, np.linalg.inv((1 - rho) * correlation + rho * mu * np.eye(d))
