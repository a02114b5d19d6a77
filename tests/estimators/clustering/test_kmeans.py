import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from nearsight.errors import InvalidParameterError
from nearsight.estimators.clustering import SphericalKMeans, kmeans
from nearsight.estimators.neighbors import unit_length
from nearsight.testing import EstimatorTests


class TestConformance(EstimatorTests):
    min_rows = 3

    @pytest.fixture
    def estimator(self) -> SphericalKMeans:
        return SphericalKMeans(n_clusters=3)

    def output(self, estimator: SphericalKMeans, X: np.ndarray) -> np.ndarray:
        return estimator.predict(X)


def digits() -> np.ndarray:
    data = load_digits().data
    return unit_length(data - data.mean(0))


def test_as_good_as_scikit_learns_on_unit_vectors() -> None:
    X = digits()
    mine = SphericalKMeans(n_clusters=10).fit(X)
    theirs = KMeans(10, n_init=5, random_state=0).fit(X)
    centers = unit_length(theirs.cluster_centers_)
    assert mine.inertia_ <= 1.005 * float(1 - (X @ centers.T).max(1).mean())


def test_every_vector_is_with_its_nearest_center_and_every_center_is_a_mean() -> None:
    X = digits()
    found = SphericalKMeans(n_clusters=7).fit(X)
    np.testing.assert_array_equal(found.labels_, (X @ found.cluster_centers_.T).argmax(1))
    np.testing.assert_array_equal(found.labels_, found.predict(X))
    for c in range(7):
        np.testing.assert_allclose(
            unit_length(X[found.labels_ == c].mean(0)[None])[0], found.cluster_centers_[c], atol=1e-4
        )
    assert (np.diff(np.bincount(found.labels_)) <= 0).all()


def test_a_sample_of_many_rows_finds_the_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    X = digits()
    whole = SphericalKMeans(n_clusters=10).fit(X)
    monkeypatch.setattr(kmeans, "_MOST_START_ROWS", 300)
    assert SphericalKMeans(n_clusters=10).fit(X).inertia_ < 1.03 * whole.inertia_


def test_with_a_rate_other_rows_belong_nowhere() -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(3, 40))

    def draw(n: int) -> np.ndarray:
        return np.repeat(centers, n, axis=0) + 0.4 * rng.normal(size=(3 * n, 40))

    found = SphericalKMeans(n_clusters=3, false_alarm_rate=0.1).fit(draw(300))
    turned_away = (found.predict(draw(1000)) < 0).mean()
    assert abs(turned_away - 0.1) < 5 * np.sqrt(0.09 * (1 / 900 + 1 / 3000))
    assert (found.predict(rng.normal(size=(100, 40))) < 0).all()
    assert (SphericalKMeans(n_clusters=3).fit(draw(300)).predict(rng.normal(size=(100, 40))) >= 0).all()
    # Too few rows to promise the rate: nobody is turned away.
    assert np.isinf(SphericalKMeans(n_clusters=2, false_alarm_rate=0.01).fit(draw(3)).limits_).all()


def test_more_clusters_than_different_vectors() -> None:
    X = np.repeat(np.eye(2), 5, axis=0)
    labels = SphericalKMeans(n_clusters=4).fit_predict(X)
    assert len(set(zip(labels.tolist(), X[:, 0].tolist(), strict=True))) == len(set(labels.tolist()))


def test_lengths_do_not_matter_and_too_few_vectors_are_refused_by_number() -> None:
    X = digits()[:200]
    stretched = X * np.random.default_rng(0).uniform(0.1, 9, (200, 1))
    a, b = (SphericalKMeans(n_clusters=4).fit_predict(Z) for Z in (X, stretched))
    assert adjusted_rand_score(a, b) > 0.99
    with pytest.raises(InvalidParameterError, match="n_clusters=4; ask for at most 2"):
        SphericalKMeans(n_clusters=4).fit(X[:2])


@pytest.mark.slow
def test_progress_is_shown_where_asked_for(capsys):
    X = np.random.default_rng(0).normal(size=(6000, 32))
    shown = SphericalKMeans(n_clusters=50, progress=True).fit(X)
    told = capsys.readouterr().err
    assert "k-means" in told
    assert "iterations" in told
    silent = SphericalKMeans(n_clusters=50).fit(X)
    assert capsys.readouterr() == ("", "")
    np.testing.assert_array_equal(shown.labels_, silent.labels_)
