import numpy as np
import pytest
from sklearn.covariance import OAS, EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.anomaly import VectorAnomaly
from nearsight.testing import EstimatorTests

rng = np.random.default_rng(5)


class TestMahalanobis(EstimatorTests):
    min_rows = 1

    @pytest.fixture
    def estimator(self) -> VectorAnomaly:
        return VectorAnomaly()

    def output(self, estimator, X):
        return estimator.score_samples(X)


class TestKnn(TestMahalanobis):
    @pytest.fixture
    def estimator(self) -> VectorAnomaly:
        return VectorAnomaly(method="knn")


def test_is_the_mahalanobis_distance_where_nothing_needs_shrinking() -> None:
    X = rng.normal(size=(20_000, 4)) @ (np.eye(4) + 0.2 * rng.normal(size=(4, 4)))
    found = -VectorAnomaly(false_alarm_rate=None).fit(X).score_samples(X[:50])
    exact = np.sqrt(EmpiricalCovariance().fit(X).mahalanobis(X[:50]))
    np.testing.assert_allclose(found, exact, rtol=0.02)


def test_shrinks_the_correlations_as_scikit_learn_does() -> None:
    X = rng.normal(size=(40, 30)) @ rng.normal(size=(30, 30))
    scaled = (X - X.mean(0)) / X.std(0)
    exact = np.sqrt(OAS(assume_centered=True).fit(scaled).mahalanobis(scaled))
    found = -VectorAnomaly(false_alarm_rate=None).fit(X).score_samples(X)
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_knn_is_the_mean_distance_to_the_nearest() -> None:
    X, asked = rng.normal(size=(200, 5)).astype(np.float32), rng.normal(size=(20, 5))
    found = -VectorAnomaly(method="knn", n_neighbors=3).fit(X).score_samples(asked)
    exact = NearestNeighbors(n_neighbors=3).fit(X).kneighbors(asked)[0].mean(1)
    np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.parametrize("method", ["mahalanobis", "knn"])
def test_a_stream_teaches_what_all_at_once_does(method: str) -> None:
    X = rng.normal(3, size=(300, 6))
    whole = VectorAnomaly(method=method, false_alarm_rate=None).fit(X)
    stream = VectorAnomaly(method=method, false_alarm_rate=None)
    for part in np.array_split(X, 7):
        stream.partial_fit(part)
    np.testing.assert_allclose(stream.score_samples(X), whole.score_samples(X), atol=1e-6)
    assert stream.n_samples_seen_ == 300


def test_knn_remembers_no_more_than_it_may() -> None:
    stream = VectorAnomaly(method="knn", max_rows=50, false_alarm_rate=None)
    for _ in range(20):
        stream.partial_fit(rng.normal(size=(40, 3)))
    assert len(stream._coreset.rows) <= 50


@pytest.mark.parametrize("method", ["mahalanobis", "knn"])
def test_the_stated_rate_is_kept_over_many_draws(method: str) -> None:
    alarms, n = 0, 0
    for seed in range(30):
        draw = np.random.default_rng(seed).normal(size=(160, 8)) ** 3
        detector = VectorAnomaly(method=method, false_alarm_rate=0.1).fit(draw[:60])
        alarms += int((detector.predict(draw[60:]) == -1).sum())
        n += 100
    # Each threshold has luck of its own, with a spread of .04: a mean over 30, 3 standard errors of that.
    # Below the rate there is more room, because what answers has learned more than what was calibrated.
    assert 0.05 <= alarms / n <= 0.1 + 3 * 0.04 / np.sqrt(30)


def test_says_how_many_examples_a_threshold_needs() -> None:
    detector = VectorAnomaly(false_alarm_rate=0.01).fit(rng.normal(size=(50, 3)))
    assert (detector.score_samples(rng.normal(size=(3, 3))) < 0).all()
    with pytest.raises(CalibrationError, match="99"):
        detector.predict(rng.normal(size=(3, 3)))
    # Scored before they are learned, more rows become examples.
    detector.partial_fit(rng.normal(size=(120, 3)))
    assert detector.threshold_ is not None
    with pytest.raises(CalibrationError, match="state a rate"):
        VectorAnomaly(false_alarm_rate=None).fit(rng.normal(size=(50, 3))).predict([[0, 0, 0]])


def test_refuses_parameters_out_of_range() -> None:
    for bad in ({"method": "lof"}, {"n_neighbors": 0}, {"max_rows": 0}):
        with pytest.raises(InvalidParameterError, match=next(iter(bad))):
            VectorAnomaly(**bad).fit(np.eye(3))


@pytest.mark.parametrize("method", ["mahalanobis", "knn"])
def test_its_state_is_all_of_it(method: str) -> None:
    X = rng.normal(size=(80, 4)).astype(np.float32)
    fitted = VectorAnomaly(method=method, max_rows=30).fit(X)
    again = VectorAnomaly.from_state(*fitted.state())
    np.testing.assert_allclose(fitted.score_samples(X), again.score_samples(X), rtol=1e-9)
    assert fitted.threshold_ == again.threshold_
    more = rng.normal(size=(40, 4)).astype(np.float32)
    np.testing.assert_allclose(
        fitted.partial_fit(more).score_samples(X), again.partial_fit(more).score_samples(X), rtol=1e-9
    )
