"""Vectors in the binary format of pgvector: a count of numbers, and the numbers, in network order."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.errors import VectorError

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"


def _dtype(type_: pa.DataType) -> np.dtype[np.void]:
    numbers = ">f2" if type_.value_type == pa.float16() else ">f4"
    return np.dtype([("dim", ">i2"), ("unused", ">i2"), ("numbers", numbers, (type_.list_size,))])


def matrix(column: pa.ChunkedArray, dim: int) -> NDArray[np.float32]:
    """Return a column of vectors as (n, dim)."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = chunks[0] if len(chunks) == 1 else np.concatenate([*chunks, np.empty(0, np.float32)])
    flat = flat.astype(np.float32, copy=False)
    return flat.reshape(-1, dim)


def stored(X: NDArray[np.float32], type_: pa.DataType) -> NDArray[np.floating]:
    """Return vectors as numbers of the stored type, for `copy_rows`.

    Raises
    ------
    VectorError
        A number is beyond what the type can hold.
    """
    # In the order of this machine: a conversion into another one is several times slower.
    with np.errstate(over="ignore"):
        cast: NDArray[np.floating] = X.astype(np.float16 if type_.value_type == pa.float16() else np.float32)
    if not np.isfinite(cast).all():
        raise VectorError(
            "a vector holds a number beyond 65,504, which float16 cannot; keep such vectors in float32"
        )
    return cast


def copy_rows(numbers: Sequence[int], X: NDArray[np.floating], type_: pa.DataType) -> bytes:
    """Return rows of (bigint, vector) for COPY in its binary format; X is as `stored` returns it."""
    vector = _dtype(type_)
    record = np.dtype(
        [("fields", ">i2"), ("width", ">i4"), ("number", ">i8"), ("length", ">i4"), ("vector", vector)]
    )
    rows = np.zeros(len(X), record)
    rows["fields"], rows["width"], rows["number"] = 2, 8, numbers
    rows["length"] = vector.itemsize
    rows["vector"]["dim"] = type_.list_size
    rows["vector"]["numbers"] = X
    return COPY_HEADER + rows.tobytes() + COPY_END


def read(values: Sequence[bytes], type_: pa.DataType) -> pa.Array:
    """Return vectors from the binary format as an array of float32 lists."""
    X = np.frombuffer(b"".join(values), _dtype(type_))["numbers"].astype(np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), type_.list_size)


def text(vector: NDArray[np.float32]) -> str:
    """Return a vector as the text of a literal."""
    return f"[{','.join(map(repr, vector.tolist()))}]"
