from unittest.mock import patch

import numpy as np
import pytest

from nearsight.analyses import pair_verification
from nearsight.analyses.gray_thumbnails import GrayThumbnails, read_edit_hashes
from nearsight.analyses.pair_verification import PairVerification
from nearsight.parallel import WorkerPool, worker_pool
from nearsight.verification import dense


@pytest.fixture
def thumbnails():
    """Three images, of which the second is the first with noise, and one without a thumbnail."""
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 255, (2, 12, 12)).repeat(8, axis=1).repeat(8, axis=2)
    pixels = np.stack([scenes[0], scenes[0] // 2 + 40, scenes[1], np.zeros((96, 96))]).astype(np.uint8)
    is_present = np.array([True, True, True, False])
    return GrayThumbnails(
        None, ["a", "b", "c", "d"], pixels, is_present, np.ones(4, np.float32), np.zeros(4, np.float32)
    )


def verification(thumbnails):
    return PairVerification(thumbnails, workers=WorkerPool(1), show_progress=False)


def test_pairs_in_any_order_and_pairs_without_a_thumbnail(thumbnails):
    agreements = verification(thumbnails)(np.array([0, 1, 0, 0]), np.array([1, 0, 2, 3]))
    assert agreements[0] == agreements[1] > dense.MATCH_AGREEMENT
    assert agreements[2] < dense.MATCH_AGREEMENT
    assert np.isnan(agreements[3])


def test_duplicates_are_aligned_once(thumbnails):
    compared = []
    original = dense.register

    def register(pixels, pairs, aspects):
        compared.extend(map(tuple, pairs.tolist()))
        return original(pixels, pairs, aspects)

    verify = verification(thumbnails)
    with patch.object(dense, "register", register):
        first = verify(np.array([0, 0]), np.array([2, 1]))
        assert compared == [(0, 2), (0, 1)]
        again = verify(np.array([1, 1]), np.array([0, 2]))
        transforms = verify.transforms(np.array([[0, 1]]))
    assert again[0] == first[1]
    # Not remembered, since nobody asks again about what hardly agrees: 0 and 2. Never asked: 1 and 2.
    assert compared == [(0, 2), (0, 1), (1, 2)]
    expected = original(thumbnails.pixels, np.array([[0, 1]]), thumbnails.aspects).transforms
    np.testing.assert_allclose(transforms, expected, atol=1e-5)


def test_no_pairs(thumbnails):
    verify = verification(thumbnails)
    assert verify(np.empty(0, np.int64), np.empty(0, np.int64)).shape == (0,)
    assert verify.transforms(np.empty((0, 2), np.int64)).shape == (0, 2, 3)


def test_hashes_are_those_of_all_images_at_once(thumbnails, monkeypatch):
    def hashes_of(pixels):
        return np.broadcast_to(pixels[None, :, 0, :63] > 127, (dense.N_HASHES, len(pixels), dense.HASH_SIGNS))

    monkeypatch.setattr("nearsight.analyses.gray_thumbnails._IMAGES_PER_HASHING", 3)
    monkeypatch.setattr(dense, "edit_hashes", hashes_of)
    hashes = read_edit_hashes(thumbnails, n_threads=2, show_progress=False)
    assert hashes.dtype == np.int8
    np.testing.assert_array_equal(hashes, hashes_of(thumbnails.pixels))


def many_thumbnails(n):
    rng = np.random.default_rng(1)
    scenes = rng.integers(0, 255, (n // 2, 12, 12)).repeat(8, axis=1).repeat(8, axis=2)
    noise = rng.integers(-9, 10, scenes.shape)
    pixels = np.clip(np.concatenate([scenes, scenes + noise]), 0, 255).astype(np.uint8)
    ids = [str(number) for number in range(n)]
    return GrayThumbnails(
        None,
        ids,
        pixels,
        np.arange(n) != 5,
        rng.uniform(0.7, 1.5, n).astype(np.float32),
        np.zeros(n, np.float32),
    )


@pytest.mark.slow
@pytest.mark.parametrize("can_start", [True, False])
def test_processes_find_what_threads_find(monkeypatch, can_start):
    thumbnails = many_thumbnails(40)
    left, right = np.triu_indices(40, 1)
    expected = verification(thumbnails)
    pairs = np.stack([left, right], axis=1)
    expected_agreements, expected_transforms = expected(left, right), expected.transforms(pairs)
    monkeypatch.setattr(pair_verification, "_MIN_PAIRS_FOR_PROCESSES", 1)
    monkeypatch.setattr(pair_verification, "_MIN_PAIRS_FOR_STARTED", 1)
    pools = []

    class Pool(worker_pool.WorkerProcesses):
        def __init__(self, *arguments, **options):
            pools.append(self)
            if not can_start:
                raise OSError("no memory")
            super().__init__(*arguments, **options)

    monkeypatch.setattr(worker_pool, "WorkerProcesses", Pool)
    with WorkerPool(2) as workers:
        verify = PairVerification(thumbnails, workers=workers, show_progress=False)
        np.testing.assert_array_equal(verify(left, right), expected_agreements)
        np.testing.assert_array_equal(verify.transforms(pairs), expected_transforms)
    assert pools
    assert all(pool.pids == [] for pool in pools if can_start)
