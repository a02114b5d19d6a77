"""Rows without a label: against the closed form and plain loops, and what they are good for."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as PlainRidge

from nearsight.errors import InvalidParameterError
from nearsight.estimators.classification import FewShotClassifier
from nearsight.estimators.classification.heads import DEFAULT_RIDGE
from nearsight.estimators.classification.unlabeled_rows import MAX_UNLABELED, fit_label_spreading
from nearsight.estimators.neighbors import unit_length

N_NEIGHBORS, ALPHA = 10, 0.5


def chains(n_each, *, n_classes=4, d=24, noise=0.15, seed=0):
    """Return rows along curved chains, and their classes: neighbors follow a chain, a line does not."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(np.random.default_rng(99).normal(size=(d, d)))[0]
    rows, y = [], np.repeat(np.arange(n_classes), n_each)
    for c in range(n_classes):
        t = rng.uniform(0, 0.9, n_each)[:, None]
        # From an end of its own towards a place that all chains share.
        rows.append((1 - t) * axes[2 * c] + t * axes[2 * c + 1] + 1.2 * t**2 * axes[-1])
    return np.concatenate(rows) + noise * rng.normal(size=(len(y), d)), y


def spread_slowly(rows, labels, n_classes):
    """The closed form of Zhou et al., (I - αS)⁻¹Y, by loops over pairs."""
    n = len(rows)
    weights = np.zeros((n, n))
    for i in range(n):
        near = sorted((j for j in range(n) if j != i), key=lambda j: -(rows[i] @ rows[j]))[:N_NEIGHBORS]
        for j in near:
            weights[i, j] = weights[j, i] = max(0.0, rows[i] @ rows[j]) ** 3
    degrees = np.sqrt(weights.sum(axis=1))
    first = np.zeros((n, n_classes))
    first[np.flatnonzero(labels >= 0), labels[labels >= 0]] = 1
    spread = np.linalg.inv(np.eye(n) - ALPHA * weights / np.outer(degrees, degrees)) @ first
    shares = spread / spread.sum(axis=1, keepdims=True)
    shares[labels >= 0] = first[labels >= 0]
    return shares


def test_the_probe_is_ridge_regression_on_the_shares_of_the_closed_form():
    X, y = chains(15, n_classes=3)
    rows = unit_length(X)
    is_example = np.arange(len(y)) % 5 == 0
    points, others = rows[is_example], rows[~is_example]
    probe, left_out = fit_label_spreading(points, y[is_example], 3, others)
    ordered = np.concatenate([points, others])
    labels = np.concatenate([y[is_example], np.full(len(others), -1)])
    wanted = PlainRidge(alpha=DEFAULT_RIDGE).fit(ordered, spread_slowly(ordered, labels, 3))
    np.testing.assert_allclose(probe.scores(rows), wanted.predict(rows), atol=2e-3)
    # The first fold hides the first example of each class: it is a row without a label, left out of the fit.
    hidden = np.searchsorted(y[is_example], np.arange(3))
    labels[hidden] = -1
    shares = spread_slowly(ordered, labels, 3)
    for example in hidden:
        rest = np.arange(len(ordered)) != example
        plain = PlainRidge(alpha=DEFAULT_RIDGE).fit(ordered[rest], shares[rest])
        np.testing.assert_allclose(left_out[example], plain.predict(ordered[[example]])[0], atol=2e-3)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("has_strangers", [False, True])
def test_rows_without_a_label_help_also_beside_strangers(k, has_strangers):
    plain, helped = [], []
    for seed in range(10):
        X, y = chains(60, seed=seed)
        known = y < 3 if has_strangers else y >= 0
        rng = np.random.default_rng(seed)
        examples = np.concatenate(
            [rng.choice(np.flatnonzero(y == c), k, replace=False) for c in np.unique(y[known])]
        )
        tested, wanted = chains(40, seed=1000 + seed)
        tested, wanted = tested[np.isin(wanted, y[known])], wanted[np.isin(wanted, y[known])]
        rest = np.setdiff1d(np.arange(len(y)), examples)
        plain.append((FewShotClassifier().fit(X[examples], y[examples]).predict(tested) == wanted).mean())
        classifier = FewShotClassifier().fit(X[examples], y[examples], X[rest])
        assert classifier.method_ == "label-spreading"
        helped.append((classifier.predict(tested) == wanted).mean())
    assert np.mean(helped) > np.mean(plain) + 0.03


def test_where_left_out_examples_become_less_likely_the_rows_are_not_used():
    X, y = chains(40, noise=0.02)
    # All between the classes: what spreads over them is wrong.
    rng = np.random.default_rng(5)
    others = X[rng.permutation(len(X))] + X[rng.permutation(len(X))]
    classifier = FewShotClassifier().fit(X, y, others)
    assert {"label-spreading", "probe", "prototype", "neighbors"} == set(classifier.left_out_)
    losses = {method: facts["log_loss"] for method, facts in classifier.left_out_.items()}
    assert classifier.method_ == min(losses, key=losses.__getitem__) != "label-spreading"


def test_the_answer_does_not_depend_on_the_order_of_the_rows_and_novelty_not_on_the_rows():
    X, y = chains(30)
    examples = np.flatnonzero(np.arange(len(y)) % 10 == 0)
    rest = np.setdiff1d(np.arange(len(y)), examples)
    fitted = FewShotClassifier().fit(X[examples], y[examples], X[rest])
    turned = FewShotClassifier().fit(X[examples], y[examples], X[rest[::-1]])
    np.testing.assert_allclose(fitted.predict_proba(X), turned.predict_proba(X), atol=1e-9)
    plain = FewShotClassifier().fit(X[examples], y[examples])
    np.testing.assert_array_equal(fitted.novelty(X), plain.novelty(X))
    assert (fitted.n_unlabeled_, plain.n_unlabeled_) == (len(rest), 0)


def test_a_saved_classifier_gives_the_same_probabilities():
    X, y = chains(20)
    classifier = FewShotClassifier().fit(X[::10], y[::10].astype(str), X)
    again = FewShotClassifier.from_arrays(classifier.to_arrays())
    np.testing.assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))
    np.testing.assert_array_equal(again.novelty(X), classifier.novelty(X))
    assert (again.method_, again.n_unlabeled_) == ("label-spreading", len(X))


def test_few_rows_equal_rows_and_rows_of_zeros():
    X, y = chains(4)
    for others in (X[:1], np.repeat(X[:1], 30, axis=0), np.zeros((3, X.shape[1])), -X):
        p = FewShotClassifier().fit(X, y, others).predict_proba(X)
        assert np.isfinite(p).all()
        np.testing.assert_allclose(p.sum(axis=1), 1)
    one_class = FewShotClassifier().fit(X[:4], y[:4], X)
    assert one_class.predict(X).tolist() == [0] * len(X)
    none = FewShotClassifier(method="label-spreading").fit(X, y, X[:0])
    assert none.method_ == "probe"


def test_of_too_many_rows_evenly_spaced_ones_are_used():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2 * MAX_UNLABELED + 1, 2))
    classifier = FewShotClassifier().fit(X[:4], [0, 0, 1, 1], X)
    assert 0 < classifier.n_unlabeled_ <= MAX_UNLABELED


def test_methods_that_lack_or_do_not_use_the_rows_say_so():
    X, y = chains(3)
    with pytest.raises(InvalidParameterError, match="needs rows without a label"):
        FewShotClassifier(method="label-spreading").fit(X, y)
    with pytest.raises(InvalidParameterError, match="'probe', which uses no rows without a label"):
        FewShotClassifier(method="probe").fit(X, y, X)
    with pytest.raises(ValueError, match="features"):
        FewShotClassifier().fit(X, y, X[:, :5])
    with pytest.raises(ValueError, match="NaN"):
        FewShotClassifier().fit(X, y, np.full_like(X, np.nan))
