"""Rows as Qdrant's points: their keys, their payloads, and Arrow tables of them."""

import base64
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_KEYS = uuid.UUID("5d0c9a52-6f0f-4d0e-9f3e-0a2d4f6c8b11")
#: Qdrant compares numbers as float64, in which whole numbers are exact up to here.
EXACT = 2**53
#: Where the length of a vector is kept.
LENGTH = "_length"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6}


def key_of(id: str) -> str:
    """Return the key of the point of a row: Qdrant takes numbers and UUIDs only."""
    return str(uuid.uuid5(_KEYS, id))


def payload_key(column: str) -> str:
    """Return where a column is kept: Qdrant reads dots and brackets in a name as a path.

    Examples
    --------
    >>> payload_key("meta_shelf"), payload_key("meta_a.b")
    ('meta_shelf', '_6d6574615f612e62')
    """
    return column if _PLAIN.fullmatch(column) else f"_{column.encode().hex()}"


def payloads_of(rows: pa.Table, *, with_nulls: bool) -> list[dict[str, Any]]:
    """Return what Qdrant keeps of each row besides its vector.

    Parameters
    ----------
    rows : pa.Table
    with_nulls : bool
        Whether missing values are written, which replaces what was there.
    """
    payloads: list[dict[str, Any]] = [{} for _ in range(rows.num_rows)]
    for field in rows.schema:
        if field.name == "vector":
            continue
        key = payload_key(field.name)
        for payload, value in zip(payloads, _encoded(rows.column(field.name), field.type), strict=True):
            if with_nulls or value is not None:
                payload[key] = value
    return payloads


def _encoded(column: pa.ChunkedArray, type_: pa.DataType) -> list[Any]:
    """Return values that JSON can carry."""
    values: list[Any] = column.to_pylist()
    if pa.types.is_binary(type_):
        return [None if value is None else base64.b64encode(value).decode() for value in values]
    if pa.types.is_timestamp(type_):
        values = column.cast(pa.int64()).to_pylist()
    if pa.types.is_floating(type_):
        # JSON has no NaN and no infinity.
        return [value if value is None or math.isfinite(value) else repr(value) for value in values]
    return values


def column_of(payloads: Sequence[Mapping[str, Any]], field: pa.Field) -> pa.Array:
    """Return one column of payloads, with null where a value is missing."""
    key = payload_key(field.name)
    values = [payload.get(key) for payload in payloads]
    if pa.types.is_binary(field.type):
        values = [None if value is None else base64.b64decode(value) for value in values]
    elif pa.types.is_timestamp(field.type):
        return pa.array(values, pa.int64()).cast(field.type)
    elif pa.types.is_floating(field.type):
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, field.type)


def instant(value: datetime, unit: str) -> int:
    """Return a date as the number that its column holds."""
    since = value.astimezone(timezone.utc) - _EPOCH
    microseconds = (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
    return microseconds * _TICKS[unit] // 10**6


def directions(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return vectors of length one, and the lengths that they had."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    return (wide / lengths[:, None]).astype(np.float32), lengths


def vector_column(vectors: Sequence[Any], payloads: Sequence[Mapping[str, Any]], dim: int) -> pa.Array:
    """Return stored vectors with the lengths that they had."""
    X = np.asarray(vectors, np.float64).reshape(-1, dim)
    X *= np.array([payload[LENGTH] for payload in payloads], np.float64).reshape(-1, 1)
    return pa.FixedSizeListArray.from_arrays(pa.array(X.astype(np.float32).ravel()), dim)
