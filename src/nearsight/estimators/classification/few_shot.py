"""A classifier for one to some thousands of examples a class, with "unknown" as an answer."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.classification import heads
from nearsight.estimators.classification.heads import Floats, Head, Ints, Neighbors, Probe, Prototypes, Ridge
from nearsight.estimators.classification.temperature_scaling import (
    calibration_error,
    fit_temperature,
    log_loss,
    softmax,
)
from nearsight.estimators.classification.unlabeled_rows import MAX_UNLABELED, fit_label_spreading
from nearsight.estimators.conformal import Threshold, from_good
from nearsight.estimators.neighbors import unit_length
from nearsight.estimators.stored_parameters import present_parameters

Rows = NDArray[np.bool_]

METHODS = ("auto", "prototype", "neighbors", "probe", "label-spreading")
# Mean examples a class, not counting classes of one, from which cross-validation chooses the method; with
# fewer, on images of clothes, its choice was worse than the rule.
_ENOUGH_TO_CHOOSE = 20
# The same for the temperature, which is one number only.
_ENOUGH_TO_TEMPER = 3
# Neighbors cost n²; "auto" does not try them with more examples than this.
_MOST_FOR_NEIGHBORS = 5_000
_BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class _Probed:
    """The probe, which the novelty needs with every head."""

    head: Probe
    left_out: Floats


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A fitted head, and the leave-one-out scores of its examples."""

    method: str
    head: Head
    left_out: Floats


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Learn classes from a few examples each, with calibrated probabilities and "unknown" as an answer.

    *Method*: three heads on centered unit vectors (Wang et al. 2019, arXiv 1911.04623, section 3: "CL2N", the
    center being that of the examples): nearest prototype (Snell et al. 2017, arXiv 1703.05175), weighted
    nearest neighbors, and a linear probe with an L2 penalty, here by least squares, because its left-out
    scores are exact at no cost. With 20 examples a class or more, on average, leave-one-out log loss chooses
    among them and their settings. With fewer, a rule: prototypes for one example a class, else the probe with
    a fixed penalty. Given rows without a label, the probe learns from them, too, by label spreading
    (`unlabeled_rows`): with less than 3 examples a class always, else where that makes left-out examples
    likelier. Probabilities: temperature scaling on left-out scores, or a fixed temperature with
    less than 3 examples a class. "Unknown": the novelty of a row is its distance (1 - cosine) to the nearest
    class mean, plus half of 1 - its highest linear score; the threshold is split conformal on the novelty of
    the examples, each left out (`conformal.from_good`).

    Parameters
    ----------
    method : {"auto", "prototype", "neighbors", "probe", "label-spreading"}, default "auto"
        Which head; with "auto", the examples choose. The last one needs rows without a label.
    false_alarm_rate : float, default 0.05
        In (0, 1): the share of images of known classes that may be called unknown.
    confidence : float, optional
        In (0, 1): see `conformal.required_examples`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        In sorted order.
    method_ : str
        The head that is used.
    chosen_by_ : {"cross-validation", "rule", "you"}
        Who chose it.
    left_out_ : dict of str to dict
        By method tried: ``accuracy``, ``log_loss`` (nats) and ``calibration_error`` of examples left out;
        empty with less than 3 examples a class.
    temperature_ : float
        Scores are multiplied by it before the softmax.
    threshold_ : Threshold or None
        Of `novelty`; None if there are too few examples for the rate: then nothing is called unknown.
    why_no_threshold_ : str
        How many examples the rate needs; empty if there is a threshold.
    n_unlabeled_ : int
        Rows without a label that it was given.
    n_features_in_ : int

    Notes
    -----
    `fit` costs n d min(n, d) time for n examples, and n² d more for "neighbors", which "auto" leaves out
    above 5,000 examples; for label spreading, n counts the rows without a label, too; `predict` costs d
    times the number of classes a row (with neighbors, of examples). 0 rows are refused. One class: every
    row gets it, and only `unknown` tells. One example a class: chosen by rule; a threshold then compares
    each example with the other classes, so that hardly anything is unknown. NaN and infinity are refused.
    A row of zeros is alike to none. Duplicate examples make the classifier too sure of itself, as if they
    were seen more often. Identical vectors of several classes: probabilities are the classes' shares.
    Nothing is random.

    Left-out scores come from one example fewer than predictions do, and the rate is promised for images
    that come like the examples did: classes in the same shares, and no series of one object.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> centers = rng.normal(size=(3, 32))
    >>> X = np.repeat(centers, 10, axis=0) + 0.3 * rng.normal(size=(30, 32))
    >>> classifier = FewShotClassifier().fit(X, np.repeat(["cat", "dog", "emu"], 10))
    >>> classifier.predict(centers).tolist(), classifier.chosen_by_
    (['cat', 'dog', 'emu'], 'rule')
    >>> classifier.unknown(np.concatenate([centers, -centers])).tolist()
    [False, False, False, True, True, True]
    """

    def __init__(
        self, *, method: str = "auto", false_alarm_rate: float = 0.05, confidence: float | None = None
    ) -> None:
        self.method = method
        self.false_alarm_rate = false_alarm_rate
        self.confidence = confidence

    def fit(self, X: ArrayLike, y: ArrayLike, unlabeled: ArrayLike | None = None) -> "FewShotClassifier":
        """Fit on examples.

        Parameters
        ----------
        X : array of shape (n, d), float
            Scaled to unit length here.
        y : array of shape (n,)
            Their classes: texts or whole numbers.
        unlabeled : array of shape (n_unlabeled, d), float, optional
            Other rows of the same kind, to learn from without a label; some may be in none of the classes. Of
            more than 10,000, evenly spaced ones are used.

        Raises
        ------
        InvalidParameterError
            `method` is none of those there are, or needs rows without a label, or does not use them; or a
            rate lies outside (0, 1).
        ValueError
            No rows, NaN or infinity, or not one class for each row.
        """
        if self.method not in METHODS:
            raise InvalidParameterError(f"method is {self.method!r}; choose one of {', '.join(METHODS)}")
        if (unlabeled is None) == (self.method == "label-spreading") and self.method != "auto":
            raise InvalidParameterError(
                "the method label-spreading needs rows without a label: fit(X, y, unlabeled)"
                if unlabeled is None
                else f"method is {self.method!r}, which uses no rows without a label;"
                " choose auto or label-spreading"
            )
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        # Twice, because scikit-learn takes classes of one example each for a regression, and warns.
        check_classification_targets(np.repeat(self.classes_, 2))
        m = len(self.classes_)
        raw = unit_length(rows)
        means, alike = heads.fit_prototypes(raw, numbers, m)
        self._means = means.means
        # The mean of the class means, since one class may have most of the examples.
        self._center = self._means.mean(axis=0) if m > 1 else np.zeros(raw.shape[1])
        points = unit_length(raw - self._center)
        counted = np.bincount(numbers)[numbers] > 1
        each = counted.sum() / m if m > 1 else 0.0
        probe = _probe(points, numbers, m, counted if each >= _ENOUGH_TO_CHOOSE else None)
        self._probe = probe.head
        others = self._unlabeled(unlabeled)
        self.n_unlabeled_ = len(others)
        self._choose(points, numbers, probe, counted, each, others)
        self._calibrate(_novelty(alike, probe.left_out))
        return self

    def _unlabeled(self, unlabeled: ArrayLike | None) -> Floats:
        """Return the rows without a label as the points that they are compared as."""
        if unlabeled is None:
            return np.empty((0, self.n_features_in_))
        rows = validate_data(self, unlabeled, reset=False, dtype=np.float64, ensure_min_samples=0)
        step = max(1, -(-len(rows) // MAX_UNLABELED))
        return unit_length(unit_length(rows[::step]) - self._center)

    def _choose(
        self, points: Floats, y: Ints, probe: _Probed, counted: Rows, each: float, others: Floats
    ) -> None:
        """Take the head that is asked for, that the examples choose, or that the rule says."""
        m = len(self.classes_)
        by_data = each >= _ENOUGH_TO_CHOOSE
        candidates: list[_Candidate] = []
        wanted, can_spread = {self.method}, len(others) > 0 and m > 1
        if self.method == "label-spreading" and not can_spread:
            wanted = {"probe"}
        if self.method == "auto":
            wanted = {"probe", "prototype"} if by_data else {"probe" if each > 1 else "prototype"}
            wanted |= {"neighbors"} if by_data and len(points) <= _MOST_FOR_NEIGHBORS else set()
        if "probe" in wanted:
            candidates.append(_Candidate("probe", probe.head, probe.left_out))
        if "prototype" in wanted:
            candidates.append(_Candidate("prototype", *heads.fit_prototypes(points, y, m)))
        if "neighbors" in wanted:
            candidates.append(_neighbors(points, y, m, counted if by_data else None))
        if can_spread:
            fitted = fit_label_spreading(points, y, m, others)
            # The first one is used where there are too few examples to compare.
            candidates.insert(0, _Candidate("label-spreading", *fitted))
        self.chosen_by_ = "you" if self.method != "auto" else "cross-validation" if by_data else "rule"
        best = candidates[0]
        self.temperature_ = _temperature_by_rule(best.method, m)
        self.left_out_: dict[str, dict[str, float]] = {}
        if each >= _ENOUGH_TO_TEMPER:
            judged = {c.method: _judged(c.left_out[counted], y[counted]) for c in candidates}
            self.left_out_ = {method: facts for method, (facts, _) in judged.items()}
            best = min(candidates, key=lambda c: self.left_out_[c.method]["log_loss"])
            self.temperature_ = judged[best.method][1]
        self.method_ = best.method
        self._head = best.head

    def _calibrate(self, scores: Floats) -> None:
        self.threshold_: Threshold | None = None
        self.why_no_threshold_ = ""
        try:
            self.threshold_ = from_good(
                scores, false_alarm_rate=self.false_alarm_rate, confidence=self.confidence
            )
        except CalibrationError as error:
            self.why_no_threshold_ = str(error)

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Return the (n, n_classes) probabilities of the classes, given that it is one of them."""
        scores = self._blockwise(X, self._scores_of)
        return softmax(self.temperature_ * scores)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likeliest class of each row, whether or not the row is `unknown`."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def novelty(self, X: ArrayLike) -> Floats:
        """Return the novelty of each row, (n,); higher is less like any class."""
        return self._blockwise(X, self._novelty_of)[:, 0]

    def unknown(self, X: ArrayLike) -> NDArray[np.bool_]:
        """Return which rows are probably in no class, (n,); none if there is no `threshold_`."""
        scores = self.novelty(X)
        return np.zeros(len(scores), bool) if self.threshold_ is None else self.threshold_.exceeded(scores)

    def _scores_of(self, raw: Floats) -> Floats:
        return self._head.scores(unit_length(raw - self._center))

    def _novelty_of(self, raw: Floats) -> Floats:
        linear = self._probe.scores(unit_length(raw - self._center))
        return _novelty(raw @ self._means.T, linear)[:, None]

    def _blockwise(self, X: ArrayLike, score: Callable[[Floats], Floats]) -> Floats:
        """Score rows in double precision, without a copy of all of them in it."""
        check_is_fitted(self, "classes_")
        rows = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        starts = range(0, len(rows), _BLOCK_ROWS)
        return np.concatenate(
            [
                score(unit_length(np.asarray(rows[start : start + _BLOCK_ROWS], np.float64)))
                for start in starts
            ]
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the fitted classifier as arrays, for a file without pickle; see `from_arrays`.

        Raises
        ------
        InvalidParameterError
            The classes are not texts.
        """
        check_is_fitted(self, "classes_")
        if self.classes_.dtype.kind != "U":
            raise InvalidParameterError(
                f"the classes are of type {self.classes_.dtype}; only classes that are texts can be saved:"
                " give str labels to fit"
            )
        facts = {
            "parameters": self.get_params(),
            "method": self.method_,
            "chosen_by": self.chosen_by_,
            "left_out": self.left_out_,
            "temperature": self.temperature_,
            "threshold": self.threshold_.to_dict() if self.threshold_ else None,
            "why_no_threshold": self.why_no_threshold_,
            "ridge": self._probe.ridge,
            "n_unlabeled": self.n_unlabeled_,
            "k": self._head.k if isinstance(self._head, Neighbors) else 0,
        }
        arrays: dict[str, NDArray[Any]] = {
            "facts": np.array(json.dumps(facts)),
            "classes": self.classes_,
            "centre": self._center,
            "means": self._means,
            "weights": self._probe.weights,
            "bias": self._probe.bias,
        }
        if isinstance(self._head, Prototypes):
            arrays["prototypes"] = self._head.means
        elif isinstance(self._head, Neighbors):
            arrays |= {"examples": self._head.examples, "y": self._head.y}
        elif self._head is not self._probe:
            arrays |= {"spread_weights": self._head.weights, "spread_bias": self._head.bias}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "FewShotClassifier":
        """Return the classifier that `to_arrays` was called on, with the same predictions.

        Raises
        ------
        InvalidParameterError
            The arrays are not those of a classifier.
        """
        try:
            facts = json.loads(str(arrays["facts"]))
            classifier = cls(**present_parameters(facts["parameters"]))
            classifier.classes_, classifier._center, classifier._means = (
                arrays["classes"],
                arrays["centre"],
                arrays["means"],
            )
            classifier._probe = Probe(arrays["weights"], arrays["bias"], facts["ridge"])
            classifier._head = classifier._probe
            if facts["method"] == "prototype":
                classifier._head = Prototypes(arrays["prototypes"])
            elif facts["method"] in ("neighbors", "neighbours"):  # the older spelling of 0.1
                classifier._head = Neighbors(
                    arrays["examples"], arrays["y"], facts["k"], len(classifier.classes_)
                )
            elif facts["method"] == "label-spreading":
                classifier._head = Probe(arrays["spread_weights"], arrays["spread_bias"], heads.DEFAULT_RIDGE)
            classifier.n_unlabeled_ = facts.get("n_unlabeled", 0)  # files of earlier versions have none
            classifier.method_ = "neighbors" if facts["method"] == "neighbours" else facts["method"]
            classifier.chosen_by_ = facts["chosen_by"]
            classifier.left_out_, classifier.temperature_ = facts["left_out"], facts["temperature"]
            classifier.threshold_ = Threshold.from_dict(facts["threshold"]) if facts["threshold"] else None
            classifier.why_no_threshold_ = facts["why_no_threshold"]
            classifier.n_features_in_ = len(classifier._center)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidParameterError(f"these are not the arrays of a classifier: {error!r}") from error
        return classifier


def _probe(points: Floats, y: Ints, m: int, counted: Rows | None) -> _Probed:
    """Fit the probe; its penalty is chosen by the examples that count, or by rule."""
    solver, targets = Ridge(points), np.eye(m)[y]
    ridge = heads.DEFAULT_RIDGE
    if counted is not None:
        ridge = min(
            heads.RIDGES,
            key=lambda r: _judged(solver.left_out(targets, r)[counted], y[counted])[0]["log_loss"],
        )
    return _Probed(solver.probe(targets, ridge), solver.left_out(targets, ridge))


def _neighbors(points: Floats, y: Ints, m: int, counted: Rows | None) -> _Candidate:
    if counted is None:
        return _Candidate("neighbors", *heads.fit_neighbors(points, y, m, heads.DEFAULT_N_NEIGHBORS))
    fits = [heads.fit_neighbors(points, y, m, k) for k in heads.N_NEIGHBORS]
    best = min(fits, key=lambda pair: _judged(pair[1][counted], y[counted])[0]["log_loss"])
    return _Candidate("neighbors", *best)


def _temperature_by_rule(method: str, m: int) -> float:
    """Return what fitted one or two examples a class best, on photographs of clothes and of faces."""
    if method == "label-spreading":
        return max(8.0, 0.8 * m)
    return 1.0 if method == "neighbors" else min(10.0, m + 1.0) * (2.0 if method == "probe" else 1.0)


def _judged(scores: Floats, y: Ints) -> tuple[dict[str, float], float]:
    """Return how good scores of left-out examples are, and the temperature that fits them."""
    temperature = fit_temperature(scores, y)
    p = softmax(temperature * scores)
    right = p.argmax(axis=1) == y
    facts = {
        "accuracy": float(right.mean()),
        "log_loss": log_loss(scores, y, temperature),
        "calibration_error": calibration_error(p.max(axis=1), right),
    }
    return facts, temperature


def _novelty(alike: Floats, linear: Floats) -> Floats:
    scores: Floats = 1 - alike.max(axis=1) + 0.5 * (1 - linear.max(axis=1))
    return scores
