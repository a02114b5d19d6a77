import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from nearsight.errors import InvalidParameterError
from nearsight.estimators.anomaly import knn_distances

rng = np.random.default_rng(2)
X = rng.normal(size=(1500, 6)).astype(np.float32)


def test_is_the_mean_distance_to_the_nearest_others() -> None:
    found = knn_distances(X, X, np.arange(len(X)))
    exact = NearestNeighbors(n_neighbors=4).fit(X).kneighbors(X)[0][:, 1:].mean(1)
    np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_a_part_of_the_rows_can_stand_for_all() -> None:
    own = np.where(np.arange(len(X)) < 300, np.arange(len(X)), -1)
    found = knn_distances(X, X[:300], own, n_neighbors=2)
    nearest = NearestNeighbors(n_neighbors=3).fit(X[:300]).kneighbors(X)[0]
    np.testing.assert_allclose(found[:300], nearest[:300, 1:].mean(1), rtol=1e-4)
    np.testing.assert_allclose(found[300:], nearest[300:, :2].mean(1), rtol=1e-4)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_rows(n: int) -> None:
    found = knn_distances(X[:n], X[:n], np.arange(n))
    assert len(found) == n
    assert (found > 0).sum() == (n if n == 2 else 0)


def test_rows_that_are_the_same() -> None:
    same = np.repeat(X[:1], 9, axis=0)
    assert knn_distances(same, same, np.arange(9)).tolist() == [0] * 9


def test_refuses_no_neighbors() -> None:
    with pytest.raises(InvalidParameterError, match="n_neighbors is 0"):
        knn_distances(X, X, np.arange(len(X)), n_neighbors=0)
