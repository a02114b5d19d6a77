"""A linear map between two models' vectors, against refits and scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from nearsight.errors import InvalidParameterError
from nearsight.estimators.linear_map import MIN_PAIRS, cross_estimates, fit_linear_map
from nearsight.estimators.neighbors import unit_length


def pairs(n, noise, d=24, d_to=32, seed=0):
    """Vectors of two models that see the same 12 facts of an image, each with noise of its own."""
    rng = np.random.default_rng(seed)
    facts = rng.normal(size=(n, 12))
    X = facts @ np.random.default_rng(1).normal(size=(12, d)) + noise * rng.normal(size=(n, d))
    target = facts @ np.random.default_rng(2).normal(size=(12, d_to)) + noise * rng.normal(size=(n, d_to))
    return unit_length(X.astype(np.float32)), unit_length(target.astype(np.float32))


@pytest.mark.parametrize("n", [60, 400])
def test_the_map_is_a_ridge_regression(n):
    X, target = pairs(n, 0.5, d=100)
    fitted = fit_linear_map(X, target)
    centered = X - X.mean(axis=0)
    gram = centered @ centered.T if n < 100 else centered.T @ centered
    alpha = fitted.penalty * np.trace(gram) / len(gram)
    oracle = Ridge(alpha=alpha).fit(X.astype(float), target.astype(float))
    new = pairs(30, 0.5, d=100, seed=3)[0]
    np.testing.assert_allclose(fitted.transform(new), unit_length(oracle.predict(new)), atol=2e-4)


def test_the_penalty_grows_with_the_noise():
    penalties = [fit_linear_map(*pairs(300, noise)).penalty for noise in (0.02, 4.0)]
    assert penalties[0] < penalties[1]


def test_estimates_of_a_row_do_not_depend_on_its_own_target():
    X, target = pairs(80, 0.5)
    before = cross_estimates(X, target, 0.1)
    changed = target.copy()
    changed[7] = -changed[7]
    after = cross_estimates(X, changed, 0.1)
    np.testing.assert_array_equal(before[7], after[7])
    assert (before != after).any()


def test_the_transpose_orders_rows_as_the_estimates_do_before_their_lengths():
    X, target = pairs(200, 0.3)
    fitted = fit_linear_map(X, target)
    query = target[:1]
    products = ((X - fitted.mean) @ fitted.matrix + fitted.mean_to) @ query[0]
    np.testing.assert_array_equal(np.argsort(products), np.argsort(X @ fitted.transpose(query)[0]))


def test_too_few_pairs_are_refused():
    X, target = pairs(MIN_PAIRS - 1, 0.1)
    with pytest.raises(InvalidParameterError, match="49 images have vectors of both models; .* needs 50"):
        fit_linear_map(X, target)
    with pytest.raises(InvalidParameterError, match="one row of each"):
        fit_linear_map(X, target[1:])
