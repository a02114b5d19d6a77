"""Labels that are probably wrong."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import InvalidParameterError
from nearsight.estimators.classification import heads
from nearsight.estimators.classification.heads import Floats, Ints, Ridge
from nearsight.estimators.classification.temperature_scaling import fit_temperature, log_loss, softmax
from nearsight.estimators.neighbors import unit_length

#: Classes with fewer rows are not judged.
MIN_ROWS = 5
_N_NEIGHBORS = 10
# With fewer rows a class, on average, a classifier errs more often than a person who labels.
_ENOUGH_TO_COUNT = 50
_CERTAIN_MARGIN = -0.5
# Wrong labels are counted where at least so many are expected, and by at most so many margins.
_ENOUGH_ERRORS, _MAX_FLIPS = 10, 1_000_000


@dataclass(frozen=True, slots=True)
class LabelCut:
    """The first so many of the ranked rows, and what to expect of them.

    Attributes
    ----------
    name : {"very likely", "likely", "worth a look"}
        The first half of the expected number of wrong labels; as many as expected; all whose label is not the
        likeliest.
    n : int
        Rows, those of the cuts before included.
    precision : float or None
        Expected share of wrong labels among them, 0..1; None for no rows.
    recall : float
        Expected share of the wrong labels that are among them, 0..1.
    """

    name: str
    n: int
    precision: float | None
    recall: float


@dataclass(frozen=True)
class LabelErrors:
    """Labels, judged by a classifier that has not seen the row itself.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        In sorted order.
    y : ndarray of shape (n,), int
        The label of each row, by number of its class.
    probabilities : ndarray of shape (n, n_classes)
        Of each class, without the row itself.
    judged : ndarray of shape (n,), bool
        False for rows of classes with fewer than `MIN_ROWS` rows.
    n_expected : int
        Estimated number of wrong labels among the judged rows.
    flipped : ndarray of shape (m,)
        Sorted: the margins that judged rows would have if their labels were wrong; see `find_label_errors`.
    """

    classes: NDArray[Any]
    y: Ints
    probabilities: Floats
    judged: NDArray[np.bool_]
    n_expected: int
    flipped: Floats

    @property
    def cuts(self) -> list[LabelCut]:
        """The ranked rows in three cuts, each holding those before it."""
        ranked, margins = self.ranked, self.margins
        numbers = {
            "very likely": (self.n_expected + 1) // 2,
            "likely": self.n_expected,
            "worth a look": len(ranked),
        }
        cuts = []
        for name, n in numbers.items():
            n = min(n, len(ranked))
            recall = _share_below(self.flipped, margins[ranked[n - 1]]) if n else 0.0
            cuts.append(LabelCut(name, n, min(1.0, self.n_expected * recall / n) if n else None, recall))
        return cuts

    @property
    def predicted(self) -> Ints:
        """The likeliest class of each row, by number, (n,)."""
        columns: Ints = self.probabilities.argmax(axis=1)
        return columns

    @property
    def margins(self) -> Floats:
        """Probability of the row's label minus that of the likeliest other class, (n,), in -1..1."""
        rows = np.arange(len(self.y))
        others = self.probabilities.copy()
        own = others[rows, self.y]
        others[rows, self.y] = -1
        margins: Floats = own - others.max(axis=1)
        return margins

    @property
    def ranked(self) -> Ints:
        """The judged rows whose label is not the likeliest, the most probably wrong first."""
        margins = self.margins
        disputed = np.flatnonzero(self.judged & (margins < 0))
        order: Ints = disputed[np.argsort(margins[disputed], kind="stable")]
        return order

    @property
    def confusion(self) -> Ints:
        """Judged rows by label (rows) and likeliest class (columns), (n_classes, n_classes)."""
        table = np.zeros((len(self.classes),) * 2, np.intp)
        np.add.at(table, (self.y[self.judged], self.predicted[self.judged]), 1)
        return table


def find_label_errors(X: ArrayLike, y: ArrayLike) -> LabelErrors:
    """Judge each label by the other rows.

    *Method*: the mean of two classifiers' probabilities, a linear probe and the vote of 10 neighbors, each
    row left out of its own (exact, without a second fit; see `heads`). Rows are ranked by the margin between
    their label and the likeliest other class.

    Out-of-sample evidence says how many labels are wrong. The probabilities of a row do not depend on its own
    label, so they tell, exactly, the margin that it would have under any other label. Of such flipped labels,
    a share r has margins of at most t; if E labels are wrong, and are so at random, at least E r rows have
    them. So E is at most the number of such rows divided by r, for each t (as Storey 2002 bounds the share of
    true nulls); the least of these over the deciles of the flipped margins is taken, and no more than is off
    the diagonal of the confident joint (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068, section 3.1).
    With fewer than 50 rows a class, on average, it is also at most the number of rows that both classifiers
    give to the same other class, with a margin of -0.5 or less: the joint would count what the classifiers
    cannot know yet. A row that has an exact duplicate with the same wrong label is supported by it: look for
    duplicates, too.

    Parameters
    ----------
    X : array of shape (n, d), float
        Scaled to unit length here.
    y : array of shape (n,)
        Labels.

    Raises
    ------
    InvalidParameterError
        Shapes do not agree, a number is not finite, or fewer than two classes have `MIN_ROWS` rows.

    Notes
    -----
    Costs n² d time, and n × n_classes numbers.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.repeat(np.eye(3, 16), 20, axis=0) + 0.1 * rng.normal(size=(60, 16))
    >>> y = np.repeat(["cat", "dog", "emu"], 20)
    >>> y[7] = "emu"
    >>> errors = find_label_errors(X, y)
    >>> errors.ranked.tolist(), errors.n_expected, str(errors.classes[errors.predicted[7]])
    ([7], 1, 'cat')
    """
    rows, labels = np.asarray(X, np.float64), np.asarray(y)
    if rows.ndim != 2 or labels.shape != (len(rows),) or not np.isfinite(rows).all():
        raise InvalidParameterError(
            f"X has shape {rows.shape} and y {labels.shape}; give finite numbers of shape (n, d) and n labels"
        )
    classes, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if (counts >= MIN_ROWS).sum() < 2:
        raise InvalidParameterError(
            f"{int((counts >= MIN_ROWS).sum())} of {len(classes)} classes have {MIN_ROWS} images or more;"
            " labels can be checked where at least two have: label more images"
        )
    raw = unit_length(rows)
    points = unit_length(raw - heads.fit_prototypes(raw, numbers, len(classes))[0].means.mean(axis=0))
    linear, near = _left_out_parts(points, numbers, len(classes))
    probabilities = (linear + near) / 2
    judged = (counts >= MIN_ROWS)[numbers]
    flipped = _flipped_margins(probabilities[judged], numbers[judged])
    n_joint = _expected_errors(probabilities[judged], numbers[judged])
    errors = LabelErrors(classes, numbers, probabilities, judged, n_joint, flipped)
    errors = replace(
        errors, n_expected=min(n_joint, _bounded_errors(errors.margins[judged], flipped, n_joint))
    )
    if judged.sum() >= _ENOUGH_TO_COUNT * (counts >= MIN_ROWS).sum():
        return errors
    agreed = (linear.argmax(axis=1) == near.argmax(axis=1)) & (errors.margins <= _CERTAIN_MARGIN) & judged
    return replace(errors, n_expected=min(errors.n_expected, int(agreed.sum())))


def _flipped_margins(probabilities: Floats, y: Ints) -> Floats:
    """Return the margin of each row under each label but its own, sorted; of a sample of rows if many."""
    n_classes = probabilities.shape[1]
    step = max(1, len(y) * n_classes // _MAX_FLIPS)
    p, y = probabilities[::step], y[::step]
    rows = np.arange(len(y))
    two = np.sort(p, axis=1)[:, -2:]
    margins = p - two[:, 1:]
    margins[rows, p.argmax(axis=1)] = two[:, 1] - two[:, 0]
    is_other = np.ones(p.shape, bool)
    is_other[rows, y] = False
    flipped: Floats = np.sort(margins[is_other])
    return flipped


def _share_below(flipped: Floats, margin: float) -> float:
    return float(np.searchsorted(flipped, margin, side="right") / len(flipped))


def _bounded_errors(margins: Floats, flipped: Floats, n_joint: int) -> int:
    """Return the least upper bound of the number of wrong labels."""
    # Few errors may have no margin as low as that of one flipped label in ten.
    shares = [share for share in np.arange(1, 10) / 10 if share * n_joint >= _ENOUGH_ERRORS]
    limits = [t for t in np.quantile(flipped, shares) if t < 0] + [-np.finfo(float).tiny]
    found = [(margins <= t).sum() / max(_share_below(flipped, t), 1e-9) for t in limits]
    return round(float(min(found)))


def _left_out_probabilities(points: Floats, y: Ints, n_classes: int) -> Floats:
    linear, near = _left_out_parts(points, y, n_classes)
    return (linear + near) / 2


def _left_out_parts(points: Floats, y: Ints, n_classes: int) -> tuple[Floats, Floats]:
    """Return the probabilities by the linear probe, and those by the neighbors."""
    solver, targets = Ridge(points), np.eye(n_classes)[y]
    candidates = [solver.left_out(targets, ridge) for ridge in heads.RIDGES]
    temperatures = [fit_temperature(scores, y) for scores in candidates]
    losses = [log_loss(scores, y, t) for scores, t in zip(candidates, temperatures, strict=True)]
    best = int(np.argmin(losses))
    linear = softmax(temperatures[best] * candidates[best])
    votes = heads.fit_neighbors(points, y, n_classes, _N_NEIGHBORS)[1]
    near = softmax(fit_temperature(votes, y) * votes)
    return linear, near


def _expected_errors(probabilities: Floats, y: Ints) -> int:
    """Return the number off the diagonal of the confident joint, scaled to the rows of each class."""
    n_classes = probabilities.shape[1]
    counts = np.bincount(y, minlength=n_classes)
    own = probabilities[np.arange(len(y)), y]
    # A class is confident of a row at the mean confidence in its own rows.
    limits = np.bincount(y, own, n_classes) / np.maximum(counts, 1)
    limits[counts == 0] = np.inf
    confident = np.where(probabilities >= limits, probabilities, -1.0)
    chosen = confident.argmax(axis=1)
    is_counted = confident.max(axis=1) >= 0
    joint = np.zeros((n_classes, n_classes))
    np.add.at(joint, (y[is_counted], chosen[is_counted]), 1)
    totals = joint.sum(axis=1)
    shares = 1 - np.divide(np.diag(joint), totals, out=np.ones(n_classes), where=totals > 0)
    return round(float((shares * counts).sum()))
