"""Vectors that are read from a file are those of the array that was written."""

import os

import numpy as np
import pytest

from nearsight.errors import StorageError
from nearsight.store.memory import vectors
from nearsight.store.memory.vectors import FileVectors, HeldVectors, in_file

N, DIM = 50, 7

pytestmark = pytest.mark.skipif(not hasattr(os, "preadv"), reason="the system cannot read at an offset")


@pytest.fixture
def array():
    return np.random.default_rng(0).standard_normal((N, DIM)).astype(np.float32)


@pytest.fixture
def path(array, tmp_path):
    array.tofile(tmp_path / "vectors.f32")
    return tmp_path / "vectors.f32"


@pytest.mark.parametrize("is_large", [False, True])
def test_both_ways_give_the_same_numbers(array, path, is_large, monkeypatch):
    monkeypatch.setattr(vectors, "_ROWS_PER_READ", 8)
    own = in_file(path, N, DIM, is_large=is_large)
    assert isinstance(own, FileVectors if is_large else HeldVectors)
    assert own.shape == (N, DIM)
    for positions in ([], [4], [3, 3], [49, 0, 7, 7, 12], list(range(10, 30)), [5, 4, 3]):
        assert (own.take(np.array(positions, np.int64)) == array[positions]).all()
    assert (own.block(0, N) == array).all()
    assert own.block(5, 5).shape == (0, DIM)
    np.testing.assert_allclose(own.products(array[3]), array @ array[3], rtol=1e-5)


def test_a_file_that_another_process_deletes_stays_readable(array, path):
    own = in_file(path, N, DIM, is_large=True)
    path.unlink()
    assert (own.take(np.array([48, 1])) == array[[48, 1]]).all()


def test_a_file_that_was_cut(path):
    own = in_file(path, N, DIM, is_large=True)
    os.truncate(path, 40 * DIM * 4 + 8)
    assert own.block(0, 40).shape == (40, DIM)
    for read in (lambda: own.take(np.array([2, 40])), lambda: own.block(30, 50)):
        with pytest.raises(StorageError, match="was cut; delete"):
            read()
