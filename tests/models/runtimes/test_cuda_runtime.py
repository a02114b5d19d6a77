"""Page-locked memory, and waiting, where CUDA is there."""

import gc

import numpy as np
import pytest

from nearsight.models.runtimes import cuda_runtime


class Library:
    def __init__(self, code):
        self.code, self.pinned, self.released = code, [], []

    def cudaHostRegister(self, address, n_bytes, flags):  # noqa: N802 - CUDA's name
        self.pinned.append((address.value, n_bytes))
        return self.code

    def cudaHostUnregister(self, address):  # noqa: N802
        self.released.append(address.value)

    def cudaSetDevice(self, number):  # noqa: N802
        self.device = number
        return 0

    def cudaDeviceSynchronize(self):  # noqa: N802
        return self.code


@pytest.mark.parametrize("code", [0, 2])
def test_it_is_released_with_the_array(monkeypatch, code):
    library = Library(code)
    monkeypatch.setattr(cuda_runtime, "_library", lambda: library)
    array = np.empty((2, 3), np.uint8)
    assert cuda_runtime.pin(array) is array
    [(address, n_bytes)] = library.pinned
    assert (address, n_bytes) == (array.ctypes.data, 6)
    del array
    gc.collect()
    # What CUDA refused is not its to release.
    assert library.released == ([address] if code == 0 else [])


def test_without_cuda_it_is_the_usual_memory(monkeypatch):
    monkeypatch.setattr(cuda_runtime, "_LIBRARIES", ("no-such-library.so",))
    cuda_runtime._library.cache_clear()
    array = np.ones(3)
    assert cuda_runtime.pin(array) is array
    cuda_runtime.wait(0)
    cuda_runtime._library.cache_clear()


def test_a_gpu_that_has_failed(monkeypatch):
    library = Library(0)
    monkeypatch.setattr(cuda_runtime, "_library", lambda: library)
    cuda_runtime.wait(1)
    assert library.device == 1
    library.code = 700
    with pytest.raises(RuntimeError, match="CUDA error 700"):
        cuda_runtime.wait(1)
