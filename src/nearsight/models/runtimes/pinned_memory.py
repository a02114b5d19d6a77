"""Page-locked memory, from which a GPU copies at twice the speed, by CUDA's runtime library."""

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


@cache
def _library() -> Any:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.cudaHostRegister.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
        library.cudaHostUnregister.argtypes = (ctypes.c_void_p,)
        return library
    return None
