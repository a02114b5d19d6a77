"""Reads the tensors of a legacy torch checkpoint, without torch and without running code in it.

The format (torch.save before 1.6) is four pickles in a row, then the raw storages: a magic number, a
protocol number, facts about the writer's machine, the object, and the list of storage keys. A pickle may name
any function to call; this reader allows only the few below, and replaces them by its own.
"""

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True, slots=True)
class _StorageType:
    """Replaces ``torch.FloatStorage`` and similar; an instance, so that a pickle cannot call it."""

    dtype: str


@dataclass(slots=True)
class _Storage:
    dtype: str
    n_values: int
    values: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view into a storage that is read later."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def to_array(self) -> NDArray[Any]:
        values = self.storage.values
        if values is None:
            raise ValueError("a tensor's numbers are missing")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        negative = min((self.offset, *self.shape, *self.strides)) < 0
        if negative or (0 not in self.shape and last >= values.size):
            raise ValueError(f"a tensor of shape {self.shape} reaches outside its storage")
        if 0 in self.shape:
            return np.zeros(self.shape, values.dtype)
        steps = [step * values.itemsize for step in self.strides]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps, writeable=False)
        return np.ascontiguousarray(view).reshape(self.shape)


class _Unpickler(pickle.Unpickler):
    """Allows ordered dicts and tensors; refuses any other name in a pickle before it is looked up."""

    def __init__(self, file: BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

        def rebuild(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
            if not isinstance(storage, _Storage):
                raise ValueError("a tensor without a storage")
            return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))

        # New for each file: a pickle can set attributes on these objects.
        self._allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): rebuild,
            **{("torch", name): _StorageType(dtype) for name, dtype in _DTYPES.items()},
        }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return self._allowed[module_name, global_name]
        except KeyError:
            _refuse(f"it names {module_name}.{global_name}, which weights do not need")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _device, n_values, *views = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(views):
            _refuse(f"it refers to something that is not a plain storage: {pid!r:.80}")
        return self.storages.setdefault(str(key), _Storage(storage_type.dtype, int(n_values)))


def read_checkpoint(data: bytes) -> dict[str, NDArray[Any]]:
    """Read the state dict of a legacy torch checkpoint.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    dict of str to ndarray
        Tensors by name, contiguous, in the file's order and dtypes.

    Raises
    ------
    WeightsError
        The file is damaged, has another format, or names anything but tensors and dicts. No code in it was
        run.
    """
    file = BytesIO(data)
    try:
        if _load(file) != _MAGIC or _load(file) != _PROTOCOL:
            _refuse("it does not start like a legacy torch checkpoint")
        _load(file)  # byte order and sizes of the writer's machine: always little-endian in practice
        reader = _Unpickler(file)
        state = reader.load()
        _fill(reader.storages, _load(file), file)
        if not isinstance(state, Mapping):
            _refuse("it holds no mapping of names to tensors")
        return {str(k): v.to_array() for k, v in state.items() if isinstance(v, _Tensor)}
    except WeightsError:
        raise
    # A damaged pickle can raise any exception, also MemoryError.
    except Exception as error:
        raise WeightsError(
            f"The weights cannot be read as a legacy torch checkpoint ({type(error).__name__}: {error}); "
            "install their package again."
        ) from error


def _load(file: BytesIO) -> Any:
    return _Unpickler(file).load()


def _fill(storages: Mapping[str, _Storage], keys: list[str], file: BytesIO) -> None:
    for key in keys:
        storage = storages[str(key)]
        n_values = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(storage.dtype)
        raw = file.read(n_values * dtype.itemsize)
        if n_values != storage.n_values or len(raw) != n_values * dtype.itemsize:
            raise ValueError(f"storage {key} is cut short")
        storage.values = np.frombuffer(raw, dtype)


def _refuse(reason: str) -> NoReturn:
    raise WeightsError(
        f"The weights are not a plain torch checkpoint: {reason}. No code in the file was run; "
        "install their package again."
    )
