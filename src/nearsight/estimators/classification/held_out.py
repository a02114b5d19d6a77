"""How often a classifier is right on rows that it has not seen, and whether it is as sure as it is right."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from nearsight.estimators.classification.few_shot import FewShotClassifier
from nearsight.parameters import require_whole

#: Fewer rows say nothing of use: of 8 that are all right, the share may be 0.63.
MIN_JUDGED = 8
#: Fewer rows say nothing about probabilities.
MIN_CALIBRATION = 20

Calibration = Literal["too_few", "fits", "too_sure", "too_cautious"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows that were labeled because they are difficult, and so are missing among those without a label.

    Attributes
    ----------
    n_total : int
        Rows in all, labeled or not.
    n_labeled : int
        Rows with a label, the judged ones among them.
    right : ndarray of shape (n,), bool
        Whether the rows that were not drawn at random are right, by classifiers that were not fitted on them.
    """

    n_total: int
    n_labeled: int
    right: NDArray[np.bool_]

    def of_unlabeled(self, share: float) -> float:
        """Return the share of right rows without a label where that of rows drawn at random is `share`.

        *Method*: all rows that were not drawn at random are right in `share`; those of them that have a label
        are known, and the rest is what has none.

        Examples
        --------
        >>> Selection(100, 20, np.array([True, False] * 5)).of_unlabeled(0.8)
        0.8375
        """
        n_rest = self.n_total - self.n_labeled
        if n_rest < 1:
            return share
        n_drawn = self.n_labeled - len(self.right)
        rest = (self.n_total - n_drawn) * share - int(self.right.sum())
        return float(min(1.0, max(0.0, rest / n_rest)))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What classifiers made of rows that they were not fitted on.

    Attributes
    ----------
    right : ndarray of shape (n,), bool
        Whether the predicted class was the row's own.
    probabilities : ndarray of shape (n,), float
        Of the predicted class, in 0..1.
    selection : Selection, optional
        The rows that were labeled because they are difficult. Then the accuracy is that of rows without a
        label, which are easier than rows drawn at random.
    """

    right: NDArray[np.bool_]
    probabilities: NDArray[np.float64]
    selection: Selection | None = None

    @property
    def accuracy(self) -> float | None:
        """The share of rows without a label that should be right; None with fewer than `MIN_JUDGED`."""
        return self._corrected(float(self.right.mean())) if len(self.right) >= MIN_JUDGED else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy (Clopper and Pearson 1934, exact); None where there is none."""
        if len(self.right) < MIN_JUDGED:
            return None
        low, high = share_interval(int(self.right.sum()), len(self.right))
        return self._corrected(low), self._corrected(high)

    def _corrected(self, share: float) -> float:
        return share if self.selection is None else self.selection.of_unlabeled(share)

    @property
    def mean_probability(self) -> float | None:
        """How sure the classifier is on average; None with fewer than `MIN_CALIBRATION` rows."""
        return float(self.probabilities.mean()) if len(self.right) >= MIN_CALIBRATION else None

    @property
    def calibration(self) -> Calibration:
        """Whether the mean probability lies in the interval of the accuracy, above or below it."""
        if self.mean_probability is None:
            return "too_few"
        # Both of the judged rows, which are not those without a label.
        low, high = share_interval(int(self.right.sum()), len(self.right))
        if self.mean_probability > high:
            return "too_sure"
        return "too_cautious" if self.mean_probability < low else "fits"


def share_interval(n_right: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a share (Clopper and Pearson 1934).

    Examples
    --------
    >>> low, high = share_interval(9, 10)
    >>> round(low, 3), round(high, 3)
    (0.555, 0.997)
    """
    interval = binomtest(n_right, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def judge_held_out(
    X: ArrayLike, y: ArrayLike, rows: ArrayLike, *, n_folds: int = 10, **parameters: Any
) -> HeldOut:
    """Judge `FewShotClassifier` on some of the rows, each by a fit on the others.

    *Method*: cross-validation in which only `rows` are divided into folds; all other rows are fitted on each
    time. Method, temperature and threshold are chosen anew for each fold, so that nothing of a judged row
    has a part in its own judgment. If `rows` are drawn at random, the accuracy is that of rows which are not
    labeled yet, for nearly as many labels as there are.

    Parameters
    ----------
    X : array of shape (n, d), float
    y : array of shape (n,)
        Their classes.
    rows : array of shape (m,), int
        Which rows to judge.
    n_folds : int, default 10
        At least 2; with fewer rows, each is judged alone.
    **parameters
        Of `FewShotClassifier`.

    Returns
    -------
    HeldOut
        In the order of `rows`. A row whose class has no other row counts as wrong.

    Raises
    ------
    InvalidParameterError
        `n_folds` is below 2.

    Notes
    -----
    Costs `n_folds` times `FewShotClassifier.fit`. Near-duplicates of a judged row are not kept apart from it:
    where images come in series, the accuracy is that of more images of the same series.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.repeat(np.eye(2, 8), 30, axis=0) + 0.1 * rng.normal(size=(60, 8))
    >>> held_out = judge_held_out(X, np.repeat(["cat", "dog"], 30), np.arange(0, 60, 3))
    >>> held_out.accuracy, held_out.calibration
    (1.0, 'fits')
    """
    require_whole("n_folds", n_folds, least=2)
    vectors, labels, judged = np.asarray(X), np.asarray(y), np.asarray(rows, np.intp)
    right = np.zeros(len(judged), bool)
    probabilities = np.zeros(len(judged))
    for fold in range(min(n_folds, len(judged))):
        places = np.arange(fold, len(judged), n_folds)
        fitted = np.setdiff1d(np.arange(len(labels)), judged[places])
        if not len(fitted):
            continue
        classifier = FewShotClassifier(**parameters).fit(vectors[fitted], labels[fitted])
        shares = classifier.predict_proba(vectors[judged[places]])
        right[places] = classifier.classes_[shares.argmax(axis=1)] == labels[judged[places]]
        probabilities[places] = shares.max(axis=1)
    return HeldOut(right, probabilities)
