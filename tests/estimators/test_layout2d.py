"""Maps: nothing moves, neighbors stay neighbors, and each shortcut is what a plain loop gives."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.manifold import trustworthiness as exact

from nearsight.errors import InvalidParameterError, MissingExtraError
from nearsight.estimators import layout2d, umap_coordinates
from nearsight.estimators.layout2d import Layout2D, place_rows, trustworthiness
from nearsight.testing import EstimatorTests


class TestConformance(EstimatorTests):
    @pytest.fixture
    def estimator(self):
        return Layout2D(method="pca")


def islands(n_each=25, n=4, d=16, seed=0):
    rng = np.random.default_rng(seed)
    X = np.repeat(np.random.default_rng(9).normal(size=(n, d)), n_each, axis=0)
    X = X + 0.15 * rng.normal(size=X.shape)
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32), np.repeat(np.arange(n), n_each)


@pytest.fixture(scope="module")
def fitted():
    pytest.importorskip("umap")
    X, _ = islands()
    # Two copies, which must share a place.
    return Layout2D(method="umap").fit(np.concatenate([X, X[:2]]))


def test_umap_keeps_neighbors(fitted):
    X, _ = islands()
    assert fitted.method_ == "umap"
    assert fitted.embedding_.shape == (102, 2)
    assert fitted.embedding_.dtype == np.float32
    assert trustworthiness(X, fitted.embedding_[:100]) > 0.85
    assert len(fitted.fitted_) == 100


def test_umap_gives_the_same_map_each_time(fitted):
    X, _ = islands()
    again = Layout2D(method="umap").fit(np.concatenate([X, X[:2]]))
    np.testing.assert_array_equal(again.embedding_, fitted.embedding_)


def test_what_was_laid_out_is_placed_where_it_is(fitted):
    X, _ = islands()
    np.testing.assert_allclose(fitted.transform(X), fitted.embedding_[:100], atol=1e-5)
    np.testing.assert_array_equal(fitted.embedding_[100:], fitted.embedding_[:2])


def test_new_rows_land_on_their_island_whatever_comes_with_them(fitted):
    old, y = islands()
    X, truth = islands(seed=3)
    before = fitted.embedding_.copy()
    places = fitted.transform(X)
    np.testing.assert_array_equal(fitted.embedding_, before)
    nearest = np.linalg.norm(places[:, None] - before[None, :100], axis=2).argmin(1)
    assert (y[nearest] == truth).mean() == 1
    np.testing.assert_allclose(fitted.transform(X[:1]), places[:1], atol=1e-4)
    both = trustworthiness(np.concatenate([old, X]), np.concatenate([before[:100], places]))
    assert both > 0.85


def test_more_rows_than_are_laid_out(fitted):
    X, _ = islands()
    made = Layout2D(method="umap", max_fitted_rows=60).fit(X)
    assert len(made.fitted_) == 60
    assert trustworthiness(X, made.embedding_) > 0.8


def test_a_place_is_the_weighted_geometric_median():
    rng = np.random.default_rng(4)
    points, weights = rng.normal(size=(5, 10, 2)), rng.uniform(0.1, 1, size=(5, 10))
    for found, at, w in zip(layout2d._geometric_medians(points, weights), points, weights, strict=True):

        def cost(x, at=at, w=w):
            return (w * np.linalg.norm(at - x, axis=1)).sum()

        best = minimize(cost, at.mean(0), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
        assert cost(found) <= best.fun + 1e-3


def test_a_minority_of_guides_elsewhere_does_not_pull_a_row_into_the_void():
    guides = np.tile([[1.0, 0.0]], (10, 1)) + 0.01 * np.random.default_rng(0).normal(size=(10, 2))
    places = np.array([[0.0, 0.0]] * 7 + [[100.0, 0.0]] * 3)
    [[x, _]] = place_rows([[1.0, 0.001]], guides, places)
    assert x < 1


def test_places_of_one_guide_and_of_none():
    np.testing.assert_array_equal(place_rows([[0.0, 1.0]], [[1.0, 0.0]], [[3.0, 4.0]]), [[3.0, 4.0]])
    for guides, places in (([], []), ([[1.0, 0.0]], [[1.0]])):
        with pytest.raises(InvalidParameterError, match="give at least one row"):
            place_rows([[1.0, 0.0]], np.reshape(guides, (-1, 2)), places)


def test_trustworthiness_is_that_of_scikit_learn():
    X, _ = islands()
    places = np.random.default_rng(0).normal(size=(100, 2))
    assert trustworthiness(X, places) == pytest.approx(exact(X, places, n_neighbors=10))
    assert trustworthiness(X, places) < 0.65
    assert trustworthiness(X, places, max_rows=50) == trustworthiness(X, places, max_rows=50)
    assert trustworthiness(X[:3], places[:3]) is None
    assert trustworthiness(X[:4], places[:4]) is not None


@pytest.mark.parametrize("n", [1, 2, 10])
def test_few_rows_are_laid_out_by_pca(n):
    X, _ = islands()
    made = Layout2D().fit(X[:n])
    assert made.method_ == "pca"
    assert np.isfinite(made.embedding_).all()


def test_all_the_same_rows_share_a_place():
    X, _ = islands()
    made = Layout2D().fit(np.repeat(X[:1], 30, axis=0))
    np.testing.assert_allclose(made.embedding_, 0, atol=1e-6)


def test_without_umap(monkeypatch):
    monkeypatch.setattr(umap_coordinates, "find_spec", lambda name: None)
    X, _ = islands()
    assert Layout2D().fit(X).method_ == "pca"
    with pytest.raises(MissingExtraError, match="pip install 'nearsight\\[map\\]'"):
        Layout2D(method="umap").fit(X)


@pytest.mark.parametrize(
    "options", [{"method": "tsne"}, {"n_neighbors": 1}, {"min_dist": 2}, {"max_fitted_rows": 9}]
)
def test_bad_parameters(options):
    with pytest.raises(InvalidParameterError, match=str(next(iter(options.values())))):
        Layout2D(**options).fit(islands()[0])


def test_progress_is_shown_where_asked_for(fitted, capsys):
    X, _ = islands()
    shown = Layout2D(method="umap", max_fitted_rows=60, progress=True).fit(X)
    told = capsys.readouterr()
    assert "laying out" in told.err
    assert "placing" in told.err
    assert told.out == ""
    silent = Layout2D(method="umap", max_fitted_rows=60).fit(X)
    assert capsys.readouterr() == ("", "")
    np.testing.assert_array_equal(shown.embedding_, silent.embedding_)
