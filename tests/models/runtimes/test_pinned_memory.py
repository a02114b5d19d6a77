"""Page-locked memory, where CUDA is there."""

import gc

import numpy as np
import pytest

from nearsight.models.runtimes import pinned_memory


class Library:
    def __init__(self, code):
        self.code, self.pinned, self.released = code, [], []

    def cudaHostRegister(self, address, n_bytes, flags):  # noqa: N802 - CUDA's name
        self.pinned.append((address.value, n_bytes))
        return self.code

    def cudaHostUnregister(self, address):  # noqa: N802
        self.released.append(address.value)


@pytest.mark.parametrize("code", [0, 2])
def test_it_is_released_with_the_array(monkeypatch, code):
    library = Library(code)
    monkeypatch.setattr(pinned_memory, "_library", lambda: library)
    array = np.empty((2, 3), np.uint8)
    assert pinned_memory.pin(array) is array
    [(address, n_bytes)] = library.pinned
    assert (address, n_bytes) == (array.ctypes.data, 6)
    del array
    gc.collect()
    # What CUDA refused is not its to release.
    assert library.released == ([address] if code == 0 else [])


def test_without_cuda_it_is_the_usual_memory(monkeypatch):
    monkeypatch.setattr(pinned_memory, "_LIBRARIES", ("no-such-library.so",))
    pinned_memory._library.cache_clear()
    array = np.ones(3)
    assert pinned_memory.pin(array) is array
    pinned_memory._library.cache_clear()
