import numpy as np
import pytest

from nearsight.evaluation import Estimate, advised_dim, curve_dimensions, pca_curve
from nearsight.evaluation.metrics import Task, retrieval


def test_a_curve_ends_with_the_full_length_once():
    assert curve_dimensions(1280) == [16, 32, 64, 128, 256, 512, 1024, 1280]
    assert curve_dimensions(64) == [16, 32, 64]
    assert curve_dimensions(1280, below=33) == [16, 32, 1280]
    assert curve_dimensions(8) == [8]


def test_the_advised_dimension_is_the_shortest_within_one_standard_error():
    curve = [
        (16, Estimate(0.70, 0.68, 0.72, 9)),
        (64, Estimate(0.795, 0.77, 0.81, 9)),
        (512, Estimate(0.80, 0.78, 0.82, 9)),
    ]
    assert advised_dim(curve) == 64
    assert advised_dim(curve[:1]) == 16


def test_vectors_that_live_in_few_dimensions_need_no_more():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 9
    X = np.zeros((90, 40), np.float32)
    X[:, :8] = rng.standard_normal((9, 8))[y] + 0.1 * rng.standard_normal((90, 8))
    curve = pca_curve(X, Task.left_out(y, np.arange(90)), "map@10")
    assert [dim for dim, _ in curve] == [16, 32, 40]
    assert advised_dim(curve) == 16
    assert curve[-1][1].value == pytest.approx(
        retrieval(X, Task.left_out(y, np.arange(90))).values["map@10"].mean()
    )
