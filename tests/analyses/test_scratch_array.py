import numpy as np
import pytest

from nearsight.analyses.scratch_array import scratch_array


@pytest.mark.parametrize("least_bytes", [0, 10**9])
def test_an_array_of_zeros_that_can_be_written(least_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = scratch_array((7, 3, 2), np.int16, least_bytes=least_bytes)
    assert isinstance(array, np.memmap) == (least_bytes == 0)
    assert array.shape == (7, 3, 2)
    assert array.dtype == np.int16
    assert not array.any()
    array[3] = 5
    assert array.sum() == 30
    # The file has no name (where the system can do that), so nothing is left behind.
    del array
    assert list(tmp_path.iterdir()) == []


def test_without_room_on_the_disk_the_array_is_in_memory(monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    array = scratch_array((4,), np.uint8, least_bytes=1)
    assert not isinstance(array, np.memmap)
    assert array.tolist() == [0, 0, 0, 0]


def test_without_a_temporary_folder_the_array_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert scratch_array((4,), np.uint8, least_bytes=1).tolist() == [0, 0, 0, 0]


def test_what_grows_with_a_collection_is_in_a_file_from_a_few_thousand_images_on():
    # Gray thumbnails of 2,000 images, and vectors of 5,000.
    for shape, dtype in (((2000, 96, 96), np.uint8), ((5000, 1280), np.float32)):
        assert isinstance(scratch_array(shape, dtype), np.memmap)
