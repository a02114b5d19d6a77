from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from nearsight.errors import InvalidParameterError, MissingExtraError
from nearsight.estimators import umap_coordinates
from nearsight.estimators.clustering import GraphKMeans, kmeans
from nearsight.estimators.neighbors import unit_length
from nearsight.testing import EstimatorTests


def diffusion_kmeans(**options: Any) -> GraphKMeans:
    """Return the estimator that takes the same course wherever umap-learn is installed."""
    return GraphKMeans(coordinates="diffusion", **options)


class TestConformance(EstimatorTests):
    min_rows = 3

    @pytest.fixture
    def estimator(self) -> GraphKMeans:
        return diffusion_kmeans(n_clusters=3)

    def output(self, estimator: GraphKMeans, X: np.ndarray) -> np.ndarray:
        return estimator.predict(X)


def digits() -> np.ndarray:
    data = load_digits().data
    return unit_length(data - data.mean(0))


def test_better_than_k_means_on_the_vectors() -> None:
    X, y = digits(), load_digits().target
    labels = diffusion_kmeans(n_clusters=10).fit_predict(X)
    on_vectors = KMeans(10, n_init=5, random_state=0).fit_predict(X)
    score = normalized_mutual_info_score(y, labels)
    assert score > normalized_mutual_info_score(y, on_vectors) + 0.05
    assert (np.diff(np.bincount(labels)) <= 0).all()


def test_few_vectors_have_no_graph_and_are_clustered_as_they_are() -> None:
    X = np.repeat(np.eye(3, 8), 8, axis=0) + 0.1 * np.random.default_rng(0).normal(size=(24, 8))
    labels = diffusion_kmeans(n_clusters=3).fit_predict(X)
    assert adjusted_rand_score(labels, np.repeat(range(3), 8)) == 1.0


def test_of_too_many_rows_some_are_clustered_and_the_rest_assigned() -> None:
    X, y = digits(), load_digits().target
    fitted = diffusion_kmeans(n_clusters=10, max_rows=900, false_alarm_rate=0.05).fit(X)
    assert (fitted.labels_ >= 0).all()
    assert normalized_mutual_info_score(y, fitted.labels_) > 0.75
    assert (fitted.predict(X) < 0).mean() > 0.01


def test_a_sample_of_many_rows_finds_the_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    X = digits()
    whole = diffusion_kmeans(n_clusters=10).fit_predict(X)
    monkeypatch.setattr(kmeans, "_MOST_START_ROWS", 300)
    assert adjusted_rand_score(whole, diffusion_kmeans(n_clusters=10).fit_predict(X)) > 0.8


def test_with_a_rate_other_rows_belong_nowhere() -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(3, 40))

    def draw(n: int) -> np.ndarray:
        return np.repeat(centers, n, axis=0) + 0.4 * rng.normal(size=(3 * n, 40))

    found = diffusion_kmeans(n_clusters=3, false_alarm_rate=0.1).fit(draw(300))
    turned_away = (found.predict(draw(1000)) < 0).mean()
    assert abs(turned_away - 0.1) < 5 * np.sqrt(0.09 * (1 / 900 + 1 / 3000))
    assert (found.predict(rng.normal(size=(100, 40))) < 0).all()
    assert (diffusion_kmeans(n_clusters=3).fit(draw(300)).predict(rng.normal(size=(100, 40))) >= 0).all()
    # Too few rows to promise the rate: nobody is turned away.
    assert np.isinf(diffusion_kmeans(n_clusters=2, false_alarm_rate=0.01).fit(draw(3)).assigner_.limits).all()


def test_more_clusters_than_different_vectors() -> None:
    X = np.repeat(np.eye(2), 5, axis=0)
    labels = diffusion_kmeans(n_clusters=4).fit_predict(X)
    assert len(set(zip(labels.tolist(), X[:, 0].tolist(), strict=True))) == len(set(labels.tolist()))


def test_lengths_do_not_matter_and_too_few_vectors_are_refused_by_number() -> None:
    X = digits()[:200]
    stretched = X * np.random.default_rng(0).uniform(0.1, 9, (200, 1))
    a, b = (diffusion_kmeans(n_clusters=4).fit_predict(Z) for Z in (X, stretched))
    assert adjusted_rand_score(a, b) > 0.99
    with pytest.raises(InvalidParameterError, match="n_clusters=4; ask for at most 2"):
        diffusion_kmeans(n_clusters=4).fit(X[:2])


@pytest.mark.slow
def test_progress_is_shown_where_asked_for(capsys):
    X = np.random.default_rng(0).normal(size=(1500, 32))
    shown = diffusion_kmeans(n_clusters=20, progress=True).fit(X)
    told = capsys.readouterr().err
    assert "k-means" in told
    assert "starts" in told
    silent = diffusion_kmeans(n_clusters=20).fit(X)
    assert capsys.readouterr() == ("", "")
    np.testing.assert_array_equal(shown.labels_, silent.labels_)


def fake_umap(X: np.ndarray, distances: np.ndarray, rows: np.ndarray, **options: Any) -> np.ndarray:
    """Return coordinates that differ for equal rows, as UMAP's do."""
    assert distances.shape == rows.shape == (len(X), 15)
    return X[:, : options["n_components"]] + np.random.default_rng(0).normal(size=(len(X), 10))


def test_umap_is_used_where_it_is_installed_and_there_are_enough_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X = digits()[:300]
    monkeypatch.setattr(kmeans, "umap_coordinates", fake_umap)
    monkeypatch.setattr(kmeans, "is_umap_installed", lambda: True)
    monkeypatch.setattr(kmeans, "_MOST_UMAP_ROWS", 250)
    by_n_rows = {n: GraphKMeans(n_clusters=4).fit(X[:n]).coordinates_ for n in (20, 99, 100, 250, 251)}
    assert by_n_rows == {20: "vectors", 99: "diffusion", 100: "umap", 250: "umap", 251: "diffusion"}
    monkeypatch.setattr(kmeans, "is_umap_installed", lambda: False)
    assert GraphKMeans(n_clusters=4).fit(X[:220]).coordinates_ == "diffusion"


def test_umap_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(umap_coordinates, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"nearsight\[map\].*diffusion"):
        GraphKMeans(coordinates="umap").fit(digits()[:300])
    with pytest.raises(InvalidParameterError, match="coordinates"):
        GraphKMeans(coordinates="tsne").fit(digits()[:300])


def test_duplicates_are_in_one_cluster_by_umap_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "umap_coordinates", fake_umap)
    X = np.concatenate([digits()[:210], digits()[:100], digits()[:100]])
    labels = GraphKMeans(n_clusters=40, coordinates="umap").fit_predict(X)
    np.testing.assert_array_equal(labels[:100], labels[210:310])
    np.testing.assert_array_equal(labels[:100], labels[310:])
    # Of so few different rows there is no graph.
    few = GraphKMeans(n_clusters=2, coordinates="umap").fit(np.tile(digits()[:20], (20, 1)))
    assert few.coordinates_ == "diffusion"


@pytest.mark.slow
def test_umap_is_better_than_diffusion_and_the_same_each_time() -> None:
    pytest.importorskip("umap")
    X, y = digits()[:900], load_digits().target[:900]
    by = {name: GraphKMeans(n_clusters=10, coordinates=name).fit(X) for name in ("umap", "diffusion")}
    again = GraphKMeans(n_clusters=10, coordinates="umap").fit(X)
    np.testing.assert_array_equal(by["umap"].labels_, again.labels_)
    scores = {name: normalized_mutual_info_score(y, fitted.labels_) for name, fitted in by.items()}
    assert scores["umap"] > scores["diffusion"]
    # Later rows are assigned by vote among stored vectors: without UMAP.
    np.testing.assert_array_equal(by["umap"].predict(X), by["umap"].assigner_.assign(X))
