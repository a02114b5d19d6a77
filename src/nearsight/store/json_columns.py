"""Rows as JSON, for engines whose rows are documents: keys, values, and Arrow columns of them.

A missing value has no key. Dates are whole numbers since 1970 in the column's unit, bytes are base64, and
numbers that JSON does not know (NaN and the infinities) are text.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: Engines compare numbers as float64, in which whole numbers are exact up to here.
EXACT = 2**53
#: Where the length of a vector is kept, for engines that are given directions.
LENGTH = "_length"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def json_key(column: str) -> str:
    """Return the key of a column, without what engines read as a path, such as dots and brackets.

    Examples
    --------
    >>> json_key("meta_shelf"), json_key("meta_a.b")
    ('meta_shelf', '_6d6574615f612e62')
    """
    return column if _PLAIN.fullmatch(column) else f"_{column.encode().hex()}"


def json_rows(rows: pa.Table, *, with_nulls: bool = False) -> list[dict[str, Any]]:
    """Return rows without their vectors.

    Parameters
    ----------
    rows : pa.Table
    with_nulls : bool, default False
        Whether missing values have a key all the same, with None.
    """
    found: list[dict[str, Any]] = [{} for _ in range(rows.num_rows)]
    for field in rows.schema:
        if field.name == "vector":
            continue
        key = json_key(field.name)
        for row, value in zip(found, _json_values(rows.column(field.name), field.type), strict=True):
            if with_nulls or value is not None:
                row[key] = value
    return found


def _json_values(column: pa.ChunkedArray, type_: pa.DataType) -> list[Any]:
    if pa.types.is_timestamp(type_):
        column = column.cast(pa.int64())
    values: list[Any] = column.to_pylist()
    if pa.types.is_binary(type_):
        return [None if value is None else base64.b64encode(value).decode() for value in values]
    if pa.types.is_floating(type_):
        return [value if value is None or math.isfinite(value) else repr(value) for value in values]
    return values


def arrow_column(rows: Sequence[Mapping[str, Any]], field: pa.Field) -> pa.Array:
    """Return one column of rows."""
    key = json_key(field.name)
    values = [row.get(key) for row in rows]
    if pa.types.is_binary(field.type):
        values = [None if value is None else base64.b64decode(value) for value in values]
    elif pa.types.is_timestamp(field.type):
        return pa.array(values, pa.int64()).cast(field.type)
    elif pa.types.is_floating(field.type):
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, field.type)


def number_of(value: datetime) -> int:
    """Return a date as microseconds since 1970."""
    since = value.astimezone(timezone.utc) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds


def directions(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return (n, d) vectors scaled to length one, and the (n,) lengths that they had."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    return (wide / lengths[:, None]).astype(np.float32), lengths


def vector_column(units: Sequence[Any], rows: Sequence[Mapping[str, Any]], dim: int) -> pa.Array:
    """Return directions with the lengths that their rows hold, as float32 lists."""
    X = np.asarray(units, np.float64).reshape(-1, dim)
    X *= np.array([row[LENGTH] for row in rows], np.float64).reshape(-1, 1)
    return pa.FixedSizeListArray.from_arrays(pa.array(X.astype(np.float32).ravel()), dim)


def vector_matrix(column: pa.ChunkedArray, dim: int) -> NDArray[np.float32]:
    """Return a column of vectors as (n, dim)."""
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix: NDArray[np.float32] = np.asarray(values, np.float32).reshape(-1, dim)
    return matrix
