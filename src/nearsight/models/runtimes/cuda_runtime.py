"""CUDA's runtime library: page-locked memory, from which a GPU copies fastest, and waiting for a GPU."""

import ctypes
import weakref
from functools import cache
from typing import Any

from numpy.typing import NDArray

# ONNX Runtime loads one of them.
_LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "cudart64_13.dll", "cudart64_12.dll")


def pin(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array, page-locked until it is deleted; as it is where CUDA refuses or is missing."""
    library = _library()
    address = array.ctypes.data
    if library is not None and library.cudaHostRegister(ctypes.c_void_p(address), array.nbytes, 0) == 0:
        weakref.finalize(array, library.cudaHostUnregister, ctypes.c_void_p(address))
    return array


def wait(device: int) -> None:
    """Wait for all that was begun on a GPU; return at once where CUDA's library is missing.

    Parameters
    ----------
    device : int
        Its number.

    Raises
    ------
    RuntimeError
        What was begun has failed.
    """
    library = _library()
    if library is not None:
        code = library.cudaSetDevice(device) or library.cudaDeviceSynchronize()
        if code:
            raise RuntimeError(f"the GPU has failed: CUDA error {code}")


@cache
def _library() -> Any:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.cudaHostRegister.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
        library.cudaHostUnregister.argtypes = (ctypes.c_void_p,)
        library.cudaSetDevice.argtypes = (ctypes.c_int,)
        return library
    return None
