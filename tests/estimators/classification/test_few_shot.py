"""Few-shot labels: each shortcut against the plain loop it stands for, and promises kept on fresh data."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as PlainRidge

from nearsight.errors import InvalidParameterError
from nearsight.estimators.classification import FewShotClassifier, heads
from nearsight.estimators.classification.temperature_scaling import (
    calibration_error,
    fit_temperature,
    log_loss,
    softmax,
)
from nearsight.estimators.conformal import required_examples
from nearsight.estimators.neighbors import unit_length
from nearsight.testing import EstimatorTests


def blobs(n_each, n_classes=4, d=24, noise=0.25, seed=0):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(n_classes, d))
    X = np.repeat(centers, n_each, axis=0) + noise * np.sqrt(d) * rng.normal(size=(n_each * n_classes, d))
    return X, np.repeat([f"class {i}" for i in range(n_classes)], n_each)


class TestConformance(EstimatorTests):
    needs_labels = True

    @pytest.fixture(params=["auto", "prototype", "neighbors", "probe"])
    def estimator(self, request):
        return FewShotClassifier(method=request.param)


@pytest.mark.parametrize("shape", [(12, 40), (60, 7)])
def test_left_out_by_the_probe_is_what_a_fit_without_the_row_predicts(shape):
    rng = np.random.default_rng(1)
    points, y = rng.normal(size=shape), np.arange(shape[0]) % 3
    solver, targets = heads.Ridge(points), np.eye(3)[y]
    for ridge in (0.1, 3.0):
        wanted = []
        for i in range(len(points)):
            rest = np.arange(len(points)) != i
            plain = PlainRidge(alpha=ridge).fit(points[rest], np.eye(3)[y[rest]])
            wanted.append(plain.predict(points[i : i + 1])[0])
        np.testing.assert_allclose(solver.left_out(targets, ridge), wanted, atol=1e-8)
        whole = PlainRidge(alpha=ridge).fit(points, np.eye(3)[y])
        np.testing.assert_allclose(
            solver.probe(targets, ridge).scores(points), whole.predict(points), atol=1e-8
        )


def test_left_out_by_prototypes_and_neighbors_is_what_a_fit_without_the_row_scores():
    X, numbers = blobs(6)
    points, y = unit_length(X), np.unique(numbers, return_inverse=True)[1]
    _, by_means = heads.fit_prototypes(points, y, 4)
    _, by_votes = heads.fit_neighbors(points, y, 4, 5)
    for i in range(len(points)):
        rest = np.arange(len(points)) != i
        means, _ = heads.fit_prototypes(points[rest], y[rest], 4)
        votes, _ = heads.fit_neighbors(points[rest], y[rest], 4, 5)
        np.testing.assert_allclose(by_means[i], means.scores(points[i : i + 1])[0], atol=1e-9)
        np.testing.assert_allclose(by_votes[i], votes.scores(points[i : i + 1])[0], atol=1e-9)


def test_votes_are_those_of_a_plain_loop():
    X, numbers = blobs(5, n_classes=3)
    points, y = unit_length(X), np.unique(numbers, return_inverse=True)[1]
    head, _ = heads.fit_neighbors(points, y, 3, 4)
    query = unit_length(np.random.default_rng(5).normal(size=(1, points.shape[1])))
    order = sorted(range(len(points)), key=lambda i: -float(query[0] @ points[i]))[:4]
    votes = np.full(3, 0.01)
    for i in order:
        votes[y[i]] += np.exp(10 * (query[0] @ points[i] - query[0] @ points[order[0]]))
    np.testing.assert_allclose(head.scores(query)[0], np.log(votes / votes.sum()))


def test_one_example_left_out_leaves_a_class_at_a_right_angle():
    points = np.eye(3)
    _, left_out = heads.fit_prototypes(points, np.arange(3), 3)
    np.testing.assert_array_equal(left_out, np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("n_each", "chosen_by", "methods"),
    [
        (1, "rule", {"prototype"}),
        (2, "rule", {"probe"}),
        (8, "rule", {"probe"}),
        (25, "cross-validation", {"probe", "prototype", "neighbors"}),
    ],
)
def test_the_data_choose_where_there_are_enough(n_each, chosen_by, methods):
    model = FewShotClassifier().fit(*blobs(n_each))
    assert model.chosen_by_ == chosen_by
    assert model.method_ in methods
    assert set(model.left_out_) == (methods if n_each > 2 else set())
    if chosen_by == "cross-validation":
        assert model.method_ == min(model.left_out_, key=lambda m: model.left_out_[m]["log_loss"])


def test_asked_for_is_taken():
    for method in ("prototype", "neighbors", "probe"):
        model = FewShotClassifier(method=method).fit(*blobs(25))
        assert (model.method_, model.chosen_by_) == (method, "you")


def test_probabilities_mean_what_they_say_on_fresh_data():
    X, y = blobs(20, noise=0.55)
    fresh, truth = blobs(500, noise=0.55, seed=1)
    for method in ("auto", "prototype", "neighbors", "probe"):
        model = FewShotClassifier(method=method).fit(X, y)
        p = model.predict_proba(fresh)
        np.testing.assert_allclose(p.sum(1), 1)
        right = model.classes_[p.argmax(1)] == truth
        assert 0.4 < right.mean() < 0.99
        assert calibration_error(p.max(1), right) < 0.09, method


def test_the_rate_of_false_alarms_is_kept_on_fresh_data_and_strangers_are_found():
    rate, rates, found = 0.1, [], []
    strangers = np.random.default_rng(7).normal(size=(200, 24))
    for seed in range(30):
        model = FewShotClassifier(false_alarm_rate=rate).fit(*blobs(15, noise=0.4, seed=seed))
        fresh, _ = blobs(100, noise=0.4, seed=1000 + seed)
        rates.append(model.unknown(fresh).mean())
        found.append(model.unknown(strangers).mean())
    # Left-out scores come from one example fewer: the rate may be below, not above.
    assert 0.05 < np.mean(rates) < 0.12
    assert np.mean(found) > 3 * np.mean(rates)


def test_too_few_examples_make_no_promise():
    X, y = blobs(3)
    assert len(y) < required_examples(0.05)
    model = FewShotClassifier().fit(X, y)
    assert model.threshold_ is None
    assert "at least 19 good examples; there are 12" in model.why_no_threshold_
    assert not model.unknown(-X).any()


def test_one_class_is_known_or_not():
    X, _ = blobs(30, n_classes=1)
    model = FewShotClassifier().fit(X, ["cat"] * 30)
    assert set(model.predict(-X)) == {"cat"}
    assert (model.predict_proba(X) == 1).all()
    assert model.unknown(-X).all()
    assert model.unknown(X).mean() < 0.2


def test_classes_of_different_sizes_and_one_alone():
    X, y = blobs(10)
    rows = np.r_[0:10, 10:13, 20:21]
    model = FewShotClassifier().fit(X[rows], y[rows])
    assert (model.predict(X[20:21]) == "class 2").all()


def test_a_row_of_zeros_is_like_none():
    X, y = blobs(10, noise=0.3)
    model = FewShotClassifier().fit(X, y)
    assert model.unknown(np.zeros((1, X.shape[1])))[0]
    assert np.isfinite(model.predict_proba(np.zeros((1, X.shape[1])))).all()


@pytest.mark.parametrize("method", ["prototype", "neighbors", "probe"])
@pytest.mark.parametrize("n_each", [1, 10])
def test_arrays_keep_every_answer(tmp_path, method, n_each):
    X, y = blobs(n_each)
    model = FewShotClassifier(method=method, false_alarm_rate=0.2).fit(X, y)
    np.savez(tmp_path / "model.npz", **model.to_arrays())
    with np.load(tmp_path / "model.npz", allow_pickle=False) as arrays:
        again = FewShotClassifier.from_arrays(arrays)
    fresh, _ = blobs(3, seed=5)
    np.testing.assert_array_equal(model.predict_proba(fresh), again.predict_proba(fresh))
    np.testing.assert_array_equal(model.unknown(fresh), again.unknown(fresh))
    assert again.threshold_ == model.threshold_
    assert again.left_out_ == model.left_out_
    assert again.get_params() == model.get_params()


def test_what_cannot_be_kept_or_read():
    X, _ = blobs(5)
    with pytest.raises(InvalidParameterError, match="only classes that are texts"):
        FewShotClassifier().fit(X, np.repeat([0, 1, 2, 3], 5)).to_arrays()
    with pytest.raises(InvalidParameterError, match="not the arrays of a classifier"):
        FewShotClassifier.from_arrays({"facts": np.array("{}")})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"method": "magic"}, "method is 'magic'; choose one of auto"), ({"false_alarm_rate": 0}, "rate is 0")],
)
def test_bad_parameters(options, message):
    with pytest.raises(InvalidParameterError, match=message):
        FewShotClassifier(**options).fit(*blobs(5))


def test_temperature_is_where_the_loss_is_least():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    scores = np.eye(3)[y] * 0.5 + rng.normal(size=(400, 3)) * 0.4
    best = fit_temperature(scores, y)
    grid = np.geomspace(0.02, 500, 400)
    losses = [log_loss(scores, y, t) for t in grid]
    assert log_loss(scores, y, best) <= min(losses) + 1e-9
    assert best == pytest.approx(grid[int(np.argmin(losses))], rel=0.05)


def test_all_right_promises_no_certainty():
    scores = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    p = softmax(fit_temperature(scores, np.array([0, 1, 2, 0, 1, 2])) * scores)
    assert p.max() == pytest.approx(7 / 8, abs=0.01)


def test_calibration_error_is_that_of_a_plain_loop():
    rng = np.random.default_rng(3)
    p = rng.uniform(size=50)
    right = rng.uniform(size=50) < p**2
    order = np.argsort(p)
    total = sum(abs(p[rows].sum() - right[rows].sum()) for rows in np.array_split(order, 10))
    assert calibration_error(p, right) == pytest.approx(total / 50)


@pytest.mark.parametrize(("p", "right", "bins"), [([], [], 1), ([0.5], [True, False], 1), ([0.5], [True], 0)])
def test_bad_questions_about_calibration(p, right, bins):
    with pytest.raises(InvalidParameterError, match="must be of one length"):
        calibration_error(p, right, n_bins=bins)


def test_many_classes_of_one_example_each_are_no_regression():
    X = np.eye(30)
    # A warning would be an error here.
    classifier = FewShotClassifier().fit(X, [f"person {n}" for n in range(30)])
    assert classifier.predict(X[:2]).tolist() == ["person 0", "person 1"]
