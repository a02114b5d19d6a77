"""Local features, and the arrangement they agree on."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearsight.errors import MissingExtraError
from nearsight.verification import sift

from sample_images import texture


def gray(seed: int = 0) -> np.ndarray:
    return np.asarray(texture(seed=seed).convert("L"))


def test_keypoints() -> None:
    found = sift.find_keypoints(gray(), 50)
    # A few more than asked for share the last one's contrast: one place in two directions.
    assert 50 <= len(found) <= 60
    assert found.xy.shape == (len(found), 2)
    assert found.descriptors.shape == (len(found), 128)
    assert found.descriptors.dtype == np.uint8
    assert found.descriptors.max(axis=1).min() > 0
    assert (found.xy >= 0).all()
    assert (found.xy < [240, 180]).all()
    again = sift.find_keypoints(gray(), 50)
    np.testing.assert_array_equal(found.descriptors, again.descriptors)
    np.testing.assert_array_equal(found.xy, again.xy)


@pytest.mark.parametrize("shape", [(1, 1), (1, 600), (600, 2), (200, 300)])
def test_nothing_stands_out(shape: tuple[int, int]) -> None:
    found = sift.find_keypoints(np.full(shape, 200, np.uint8), 50)
    assert len(found) == 0
    assert found.xy.shape == (0, 2)
    assert found.descriptors.shape == (0, 128)


def test_a_view_of_pixels_is_as_good_as_a_copy() -> None:
    mirrored = gray()[:, ::-1]
    np.testing.assert_array_equal(
        sift.find_keypoints(mirrored, 50).descriptors, sift.find_keypoints(mirrored.copy(), 50).descriptors
    )


def test_each_thread_has_a_detector_of_its_own() -> None:
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(sift._detector, 50).result()
    assert sift._detector(50) is not other
    assert sift._detector(50) is sift._detector(50)
    assert sift._detector(50) is not sift._detector(51)


def test_threads_see_the_same() -> None:
    alone = [sift.find_keypoints(gray(seed), 50).descriptors for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: sift.find_keypoints(gray(i % 4), 50).descriptors, range(16)))
    for i, descriptors in enumerate(found):
        np.testing.assert_array_equal(descriptors, alone[i % 4])


@given(st.integers(0, 2**32 - 1))
def test_root_sift(seed: int) -> None:
    descriptors = np.random.default_rng(seed).integers(0, 256, (3, 128), np.uint8)
    descriptors[1] = 0
    found = sift.root_sift(descriptors)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[1], 0)
    for i in (0, 2):
        whole = [int(v) for v in descriptors[i]]
        np.testing.assert_allclose(found[i], [(v / sum(whole)) ** 0.5 for v in whole], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found[[0, 2]], axis=1), 1, rtol=1e-5)


def test_the_transform_is_fitted_among_outliers() -> None:
    rng = np.random.default_rng(3)
    here = rng.uniform(0, 600, (60, 2)).astype(np.float32)
    turn = 0.5 * np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    there = (here @ turn.T + (40, -10)).astype(np.float32)
    there[:30] = rng.uniform(0, 600, (30, 2))
    inliers, transform = sift.fit_similarity_transform(here, there, 2.0)
    assert inliers[30:].all()
    assert inliers[:30].sum() <= 1
    np.testing.assert_allclose(transform, np.c_[turn, (40, -10)], atol=1e-3)


def test_too_few_agree_on_nothing() -> None:
    for n in (0, 1):
        points = np.zeros((n, 2), np.float32)
        inliers, transform = sift.fit_similarity_transform(points, points, 2.0)
        assert inliers.shape == (n,)
        assert transform is None
    same = np.zeros((5, 2), np.float32)
    inliers, transform = sift.fit_similarity_transform(same, same, 2.0)
    assert transform is None or np.isfinite(transform).all()


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match="pip install 'nearsight\\[sift\\]'"):
        sift.require()
