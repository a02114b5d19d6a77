"""How far a vector lies from those of good examples."""

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

Method = Literal["mahalanobis", "knn"]

_N_FOLDS = 5


class VectorAnomaly(OutlierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn is untyped
    """Score vectors by how far they lie from those of good examples.

    *Method*. ``mahalanobis``: Rippel et al. 2020 (arXiv 2005.14140, section III): one Gaussian for all good
    vectors; the distance to its mean in units of its covariance. Each number is scaled by its standard
    deviation first, and the correlation matrix is shrunk to the identity by the oracle approximating rule
    (Chen et al. 2010, arXiv 0907.4698, equation 23) where they use Ledoit and Wolf's: one pass is enough.
    ``knn``: mean Euclidean distance to the nearest good vectors (Ramaswamy et al. 2000; Bergman et al. 2020,
    arXiv 2002.10445), out of a `Coreset` of them.

    The threshold of `predict` is conformal: scores of five-fold cross-fitting (Vovk 2015, arXiv 1208.0806)
    go to `calibrate.from_good`, and the model that answers is fitted on all rows, which makes it no more
    alarming. Rows given to `partial_fit` are scored before they are learned, and join those scores.

    Parameters
    ----------
    method : {"mahalanobis", "knn"}
    n_neighbors : int, default 3
        Neighbors averaged by ``knn``.
    false_alarm_rate : float or None, default 0.1
        Share of good examples that `predict` may call outliers; None for scores alone, without the
        fivefold work of a threshold.
    max_rows : int, default 5000
        Rows that ``knn`` remembers.
    random_state : int, RandomState or None
        Chooses the folds and the coreset.

    Attributes
    ----------
    threshold_ : Threshold or None
        On `-score_samples`; None where there are too few rows for the rate.
    offset_ : float
        `decision_function` is `score_samples` less this; scikit-learn's sign.
    n_samples_seen_ : int

    Notes
    -----
    ``mahalanobis`` keeps d x d numbers and costs n d² to fit, d³ once, d² a row to score; ``knn`` keeps
    max_rows x d and costs max_rows x d a row. Without rows it refuses; one is enough for scores: every
    distance is then measured from it, with the identity for a covariance. Duplicate rows count as often as
    they come; all-identical rows score 0.
    NaN and infinity are refused.

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
        """Learn from good examples only.

        Parameters
        ----------
        X : array of shape (n, d), float
            n at least 1.

        Raises
        ------
        InvalidParameterError
            A parameter out of its range.
        """
        self._check()
        rows = self._rows(X)
        rng = check_random_state(self.random_state)
        self._seed = int(rng.randint(2**31 - 1))
        scores = self._cross_fitted(rows, rng) if self.false_alarm_rate is not None else np.empty(0)
        self._start(rows.shape[1])
        self._learn(rows)
        self._calibrate(scores)
        return self

    def partial_fit(self, X: ArrayLike, y: Any = None) -> "VectorAnomaly":
        """Learn from more good examples, in memory that does not grow with them.

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
            self._start(rows.shape[1])
        scores = np.empty(0) if first else self._distances(rows)
        self._learn(rows)
        # The latest stand for what is to come.
        self._calibrate(np.concatenate([self._good_scores, scores])[-self.max_rows :])
        return self

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return how normal each row is: minus its distance, so that higher is more normal.

        Returns
        -------
        ndarray of shape (n,), float64
            At most 0.
        """
        check_is_fitted(self)
        return -self._distances(self._rows(X, reset=False))

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return `score_samples` less the threshold: below 0 is an outlier.

        Raises
        ------
        CalibrationError
            There were too few good examples for the rate; the message says how many it needs.
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
        """Return 1 for each row that could be good, -1 for each that is too far from the good ones."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what was learned as plain data and arrays; `from_state` makes it whole again."""
        check_is_fitted(self)
        facts = {
            "params": self.get_params(deep=False),
            "n_samples_seen": self.n_samples_seen_,
            "seed": self._seed,
        }
        arrays: dict[str, NDArray[Any]] = {"good_scores": self._good_scores}
        if self.method == "knn":
            rows = self._coreset.rows
            facts["coreset"] = self._coreset.facts()
            return facts, {**arrays, "rows": rows}
        return facts, {**arrays, "mean": self._mean, "scatter": self._scatter}

    @classmethod
    def from_state(cls, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "VectorAnomaly":
        """Return what `state` described."""
        found = cls(**facts["params"])
        found._seed = int(facts["seed"])
        found.n_samples_seen_ = int(facts["n_samples_seen"])
        if found.method == "knn":
            found._coreset = Coreset.restored(arrays["rows"], facts["coreset"])
            found.n_features_in_ = arrays["rows"].shape[1]
        else:
            found._mean, found._scatter = arrays["mean"], arrays["scatter"]
            found.n_features_in_ = len(found._mean)
            found._scale, found._precision = _precision(found._scatter, found.n_samples_seen_, found._mean)
        found._calibrate(np.asarray(arrays["good_scores"], np.float64))
        return found

    def _rows(self, X: ArrayLike, *, reset: bool = True) -> NDArray[np.float64]:
        rows: NDArray[np.float64] = validate_data(self, X, reset=reset, dtype=np.float64)
        return rows

    def _check(self) -> None:
        if self.method not in ("mahalanobis", "knn"):
            raise InvalidParameterError(f"method is {self.method!r}; it must be 'mahalanobis' or 'knn'")
        for name in ("n_neighbors", "max_rows"):
            if getattr(self, name) < 1:
                raise InvalidParameterError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def _cross_fitted(self, X: NDArray[np.float64], rng: np.random.RandomState) -> NDArray[np.float64]:
        if len(X) < 2 or len(X) < required_examples(self.false_alarm_rate or 0.5):
            return np.empty(0)
        scores = np.empty(len(X))
        for held in np.array_split(rng.permutation(len(X)), min(_N_FOLDS, len(X))):
            self._start(X.shape[1])
            self._learn(np.delete(X, held, axis=0))
            scores[held] = self._distances(X[held])
        return scores

    def _calibrate(self, scores: NDArray[np.float64]) -> None:
        self._good_scores = scores
        rate = self.false_alarm_rate
        enough = rate is not None and len(scores) >= required_examples(rate)
        self.threshold_: Threshold | None = (
            from_good(scores, false_alarm_rate=rate) if rate is not None and enough else None
        )
        self.offset_ = -self.threshold_.value if self.threshold_ else -np.inf

    def _start(self, d: int) -> None:
        self.n_samples_seen_ = 0
        if self.method == "knn":
            self._coreset = Coreset(self.max_rows, random_state=self._seed)
        else:
            self._mean, self._scatter = np.zeros(d), np.zeros((d, d))

    def _learn(self, X: NDArray[np.float64]) -> None:
        n, m = self.n_samples_seen_, len(X)
        self.n_samples_seen_ = n + m
        if self.method == "knn":
            self._coreset.add(X.astype(np.float32))
            return
        # Chan et al. 1983: the moments of two groups together.
        center = X.mean(0)
        step = center - self._mean
        between = np.outer(step, step) * (n * m / (n + m))
        # Not in place: the arrays of a state belong to whoever asked for it.
        self._scatter = self._scatter + (X - center).T @ (X - center) + between
        self._mean = self._mean + step * (m / (n + m))
        self._scale, self._precision = _precision(self._scatter, n + m, self._mean)

    def _distances(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._to_neighbors(X) if self.method == "knn" else self._to_mean(X)

    def _to_neighbors(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = self._coreset.rows.astype(np.float64)
        k = min(self.n_neighbors, len(rows))
        distances = np.empty(len(X))
        # Row by row: a product of matrices rounds by their shape, and a score must not depend on its batch.
        for i, x in enumerate(X):
            away = ((rows - x) ** 2).sum(1)
            distances[i] = np.sqrt(np.partition(away, k - 1)[:k]).mean()
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
    """Return each number's scale, and the inverse of the shrunken correlation matrix."""
    d = len(scatter)
    variance = np.diag(scatter) / n
    if not variance.any():
        # One example, or many of the same: no direction is more usual than another.
        return np.maximum(np.abs(mean), 1.0) if n > 1 else np.ones(d), np.eye(d)
    # A number that never varied is judged by the typical scale of those that do.
    floor = 1e-6 * np.median(variance[variance > 0])
    scale = np.sqrt(np.where(variance > floor, variance, max(floor, np.finfo(float).tiny)))
    correlation = scatter / n / np.outer(scale, scale)
    mu = np.trace(correlation) / d
    power = float((correlation**2).mean())
    bottom = (n + 1) * (power - mu**2 / d)
    rho = min(1.0, (power + mu**2) / bottom) if bottom > 0 else 1.0
    # Never exactly singular, whatever rounding does.
    rho = max(rho, 1e-6)
    return scale, np.linalg.inv((1 - rho) * correlation + rho * mu * np.eye(d))
