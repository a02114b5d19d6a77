"""Maps in closed form, beside scikit-learn's discriminant analysis and the formula written out."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from nearsight.errors import InvalidParameterError
from nearsight.training.closed_form import ONLY_BETWEEN, ClassScatter


def clouds(n_per_class, d, n_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(0, 2, (n_classes, d))
    mixing = rng.normal(0, 1, (d, d))
    X = np.concatenate([center + rng.normal(0, 1, (n_per_class, d)) @ mixing for center in centers])
    return X + 7, np.repeat(np.arange(n_classes), n_per_class)


def test_without_the_rest_it_is_linear_discriminant_analysis():
    X, y = clouds(40, 12)
    scatter, shrinkage = ClassScatter(X, y), 1e-6
    # scikit-learn shrinks the covariance between classes, too, so it is compared without shrinkage.
    reference = LinearDiscriminantAnalysis(solver="eigen").fit(X, y).transform(X)
    expected = pdist(reference) * np.sqrt((len(X) - 4) / len(X))
    mapped = scatter.whitened(scatter.coordinates(X), shrinkage).stretched(ONLY_BETWEEN)
    assert mapped.shape == (len(X), 3)
    np.testing.assert_allclose(pdist(mapped), expected, rtol=1e-2)
    np.testing.assert_allclose(
        pdist(scatter.map(shrinkage=shrinkage, stretch=ONLY_BETWEEN, dim=3).apply(X)), expected, rtol=1e-2
    )


@pytest.mark.parametrize("n_per_class", [40, 3])
@pytest.mark.parametrize("stretch", [0.0, 1.0, 3.0])
def test_it_whitens_within_classes_and_stretches_between_them(n_per_class, stretch):
    X, y = clouds(n_per_class, 12)
    means = np.stack([X[y == k].mean(axis=0) for k in range(4)])
    residuals = X - means[y]
    within = residuals.T @ residuals / (len(X) - 4)
    shrunk = 0.7 * within + 0.3 * np.trace(within) / 12 * np.eye(12)
    values, vectors = np.linalg.eigh(shrunk)
    whitening = vectors / np.sqrt(values) @ vectors.T
    between = np.linalg.svd((means - X.mean(axis=0)) @ whitening, full_matrices=False)[2][:3]
    expected = pdist((X - X.mean(axis=0)) @ whitening @ (np.eye(12) + stretch * between.T @ between))
    scatter = ClassScatter(X, y)
    mapped = scatter.whitened(scatter.coordinates(X), 0.3).stretched(stretch)
    np.testing.assert_allclose(pdist(mapped), expected, rtol=1e-3)
    full = scatter.map(shrinkage=0.3, stretch=stretch, dim=min(12, len(X) - 1))
    np.testing.assert_allclose(pdist(full.apply(X)), expected, rtol=1e-3)
    spread = full.apply(X).var(axis=0)
    assert (np.diff(spread) <= 1e-4 * spread[0]).all()


@pytest.mark.parametrize("n_per_class", [40, 8])
@pytest.mark.parametrize("stretch", [0.0, 3.0, ONLY_BETWEEN])
def test_the_shortened_map_is_that_of_all_axes(n_per_class, stretch):
    # Written out with symmetric roots, every eigenvector and float64: more vectors than numbers, and fewer.
    X, y = clouds(n_per_class, 60, n_classes=6)
    means = np.stack([X[y == k].mean(axis=0) for k in range(6)])
    residuals = X - means[y]
    within = residuals.T @ residuals / (len(X) - 6)
    values, vectors = np.linalg.eigh(0.7 * within + 0.3 * np.trace(within) / 60 * np.eye(60))
    whitening = vectors / np.sqrt(values) @ vectors.T
    between = np.linalg.svd((means - X.mean(axis=0)) @ whitening, full_matrices=False)[2][:5]
    factor = np.eye(60) + stretch * between.T @ between if np.isfinite(stretch) else between.T
    mapped = (X - X.mean(axis=0)) @ whitening @ factor
    axes = np.linalg.eigh(mapped.T @ mapped)[1].T[::-1]
    dim = 4 if np.isinf(stretch) else 20
    expected = mapped @ axes[:dim].T
    found = ClassScatter(X, y).map(shrinkage=0.3, stretch=stretch, dim=dim).apply(X)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    # An axis may point to either side.
    signs = np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=3e-6)


def test_beyond_the_fitted_vectors_the_map_is_the_whole_whitening():
    X, y = clouds(4, 40)
    others = np.random.default_rng(1).normal(0, 3, (30, 40))
    scatter = ClassScatter(X, y)
    expected = pdist(scatter.whitened(scatter.coordinates(others), 0.3).stretched(1.0))
    whole = scatter.map(shrinkage=0.3, stretch=1.0, dim=40).apply(others)
    np.testing.assert_allclose(pdist(whole), expected, rtol=1e-3)
    inside = scatter.map(shrinkage=0.3, stretch=1.0, dim=15).apply(others)
    np.testing.assert_allclose(np.abs(inside), np.abs(whole[:, :15]), atol=1e-3)
    assert pdist(inside).mean() < 0.9 * expected.mean()


@pytest.mark.parametrize("n_per_class", [40, 3])
def test_cosines_are_those_of_the_stretched_vectors_and_float32_hardly_differs(n_per_class):
    X, y = clouds(n_per_class, 12)
    stretches, queries, gallery = (0.0, 1.0, 3.0, ONLY_BETWEEN), np.array([5, 0, 11]), np.arange(1, len(X))
    scatter, short = ClassScatter(X, y), ClassScatter(X, y, np.float32)
    points = scatter.whitened(scatter.coordinates(X), 0.3)
    of_short = short.whitened(short.coordinates(X), 0.3)
    found = zip(
        stretches,
        points.cosines(queries, gallery, stretches),
        of_short.cosines(queries, gallery, stretches),
        strict=True,
    )
    for stretch, cosines, rounded in found:
        mapped = points.stretched(stretch)
        np.testing.assert_allclose(cosines, 1 - cdist(mapped[queries], mapped[gallery], "cosine"), atol=1e-5)
        np.testing.assert_allclose(cosines, rounded, atol=1e-4)


def test_what_cannot_be_learned_from_is_refused():
    with pytest.raises(InvalidParameterError, match="2 classes, the largest with 1 images"):
        ClassScatter(np.eye(2), [0, 1])
    with pytest.raises(InvalidParameterError, match="dim is 4; it must be between 1 and 3"):
        ClassScatter(*clouds(9, 12)).map(shrinkage=0.3, stretch=ONLY_BETWEEN, dim=4)
