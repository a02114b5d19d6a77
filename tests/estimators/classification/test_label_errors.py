"""`find_label_errors`: against refits without each row, and on labels that were made wrong."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from nearsight.errors import InvalidParameterError
from nearsight.estimators.classification import find_label_errors
from nearsight.estimators.classification.label_errors import (
    MIN_ROWS,
    _expected_errors,
    _left_out_probabilities,
)


def groups(n_each=30, n_classes=5, spread=0.15, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(n_classes, 24)) / np.sqrt(24)
    X = np.repeat(centers, n_each, axis=0) + spread * rng.normal(size=(n_each * n_classes, 24))
    return X / np.linalg.norm(X, axis=1, keepdims=True), np.repeat(np.arange(n_classes), n_each)


def flipped(y, share, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(y), round(share * len(y)), replace=False)
    wrong = y.copy()
    wrong[rows] = (y[rows] + rng.integers(1, y.max() + 1, len(rows))) % (y.max() + 1)
    return wrong, rows


def test_wrong_labels_are_ranked_first_and_counted():
    X, y = groups()
    wrong, rows = flipped(y, 0.06)
    errors = find_label_errors(X, wrong)
    assert set(errors.ranked[: len(rows)]) == set(rows)
    assert abs(errors.n_expected - len(rows)) <= 1
    assert (errors.classes[errors.predicted[rows]] == y[rows]).all()
    assert errors.confusion.sum() == len(y)
    assert np.trace(errors.confusion) == len(y) - len(errors.ranked)


def test_clean_labels_are_not_accused():
    X, y = groups(spread=0.06)
    errors = find_label_errors(X, y)
    assert errors.n_expected == 0
    assert len(errors.ranked) == 0
    assert (errors.margins > 0).all()


def test_right_labels_are_hardly_accused_where_there_are_few():
    """Ten rows a class that overlap: the confident joint alone would count the classifiers' own errors."""
    accused, joint, n = 0, 0, 0
    for seed in range(6):
        X, y = groups(n_each=10, n_classes=8, spread=0.4, seed=seed)
        errors = find_label_errors(X, y)
        accused += errors.n_expected
        joint += _expected_errors(errors.probabilities, errors.y)
        n += len(y)
    assert joint > 0.04 * n
    assert accused < 0.5 * joint


def test_no_row_votes_for_itself():
    """The probabilities of a row do not depend on its own label: the oracle is a refit without it."""
    X, y = groups(n_each=8, n_classes=3, spread=0.4)
    X = X - X.mean(axis=0)
    full = _left_out_probabilities(X, y, 3)
    row = 5
    for label in range(3):
        changed = y.copy()
        changed[row] = label
        # Temperatures and the penalty are of all rows, so that only the order of the scores is free of them.
        assert _left_out_probabilities(X, changed, 3)[row].argmax() == full[row].argmax()
    others = np.delete(np.arange(len(y)), row)
    for ridge in (0.1, 1.0):
        from nearsight.estimators.classification.heads import Ridge as Solver

        refit = Ridge(alpha=ridge).fit(X[others], np.eye(3)[y[others]]).predict(X[row : row + 1])[0]
        np.testing.assert_allclose(Solver(X).left_out(np.eye(3)[y], ridge)[row], refit, atol=1e-9)


def test_small_classes_are_not_judged():
    X, y = groups(n_classes=3)
    keep = np.flatnonzero((y < 2) | (np.arange(len(y)) % 30 < MIN_ROWS - 1))
    errors = find_label_errors(X[keep], y[keep])
    assert not errors.judged[y[keep] == 2].any()
    assert errors.judged[y[keep] < 2].all()
    assert not set(errors.ranked) & set(np.flatnonzero(y[keep] == 2))


def test_the_confident_joint_by_hand():
    # Limits: class 0 (0.9 + 0.8 + 0.1) / 3 = 0.6, class 1 (0.7 + 0.9) / 2 = 0.8. Row 2 is labeled 0 and
    # counts as 1; row 3 is confident of nothing. So 1 of the 3 counted rows of class 0 is wrong.
    p1 = np.array([0.1, 0.2, 0.9, 0.7, 0.9])
    assert _expected_errors(np.column_stack([1 - p1, p1]), np.array([0, 0, 0, 1, 1])) == 1


def test_what_cannot_be_checked_is_refused():
    X, y = groups(n_classes=2)
    with pytest.raises(InvalidParameterError, match="1 of 1 classes have 5 images or more"):
        find_label_errors(X, np.zeros(len(X)))
    with pytest.raises(InvalidParameterError, match="n labels"):
        find_label_errors(X, y[1:])
    X[0, 0] = np.nan
    with pytest.raises(InvalidParameterError, match="finite"):
        find_label_errors(X, y)


def overlapping(seed, n_each=100, n_classes=6):
    """Return classes that no classifier can tell apart wholly, with right labels."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(n_classes), n_each)
    return np.eye(n_classes, 12)[y] + 0.42 * rng.normal(size=(len(y), 12)), y


def test_what_a_cut_expects_is_what_it_holds():
    """Of classes that overlap, with labels that are wrong at random: by naive counts over many sets."""
    expected, held, n_errors, n_joint = [], [], [], []
    for seed in range(12):
        X, y = overlapping(seed)
        wrong, rows = flipped(y, 0.08, seed)
        errors = find_label_errors(X, wrong)
        names = [cut.name for cut in errors.cuts]
        assert names == ["very likely", "likely", "worth a look"]
        numbers = [cut.n for cut in errors.cuts]
        assert numbers == sorted(numbers)
        assert numbers[-1] == len(errors.ranked)
        expected.append([(cut.precision, cut.recall) for cut in errors.cuts])
        first = [errors.ranked[:n] for n in numbers]
        held.append([(np.isin(f, rows).mean(), np.isin(rows, f).mean()) for f in first])
        n_errors.append(errors.n_expected)
        n_joint.append(_expected_errors(errors.probabilities, errors.y))
    np.testing.assert_allclose(np.mean(expected, axis=0), np.mean(held, axis=0), atol=0.12)
    assert np.mean(n_errors) == pytest.approx(len(rows), rel=0.25)
    # The confident joint alone counts what overlaps as wrong.
    assert np.mean(n_joint) > 1.5 * len(rows)


def test_right_labels_of_classes_that_overlap_are_not_called_wrong():
    errors = [find_label_errors(*overlapping(seed)) for seed in range(6)]
    assert np.mean([len(e.ranked) for e in errors]) > 40
    joint = [_expected_errors(e.probabilities, e.y) for e in errors]
    assert np.mean([e.n_expected for e in errors]) < np.mean(joint) / 3


def test_a_flipped_label_has_the_margin_that_is_foretold():
    X, y = groups()
    errors = find_label_errors(X, y)
    p = errors.probabilities
    naive = [p[i, c] - np.delete(p[i], c).max() for i in range(len(y)) for c in range(5) if c != errors.y[i]]
    np.testing.assert_allclose(errors.flipped, np.sort(naive))
