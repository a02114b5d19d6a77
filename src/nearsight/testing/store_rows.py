"""Rows for the tests of stores: helpers, and values that come back as they were."""

import math
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.store import Field, VectorStore

DIM = 8
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string()),
        pa.field("other_paths", pa.list_(pa.string())),
        pa.field("width", pa.int32()),
        pa.field("modified", pa.timestamp("us", tz="UTC")),
        pa.field("thumbnail", pa.binary()),
        pa.field("vector", pa.list_(pa.float32(), DIM)),
    ]
)
FIELDS = {
    "id": pa.string(),
    "path": Field("path", pa.string(), "other_paths"),
    "width": pa.int32(),
    "modified": pa.timestamp("us", tz="UTC"),
}


def vectors_of(*seeds: int, dim: int = DIM) -> NDArray[np.float32]:
    """Return one random unit vector for each seed."""
    drawn = np.stack([np.random.default_rng(seed).standard_normal(dim) for seed in seeds]).astype(np.float32)
    unit: NDArray[np.float32] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def vector_array(vectors: NDArray[np.float32]) -> pa.Array:
    """Return vectors as a column of a table."""
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.asarray(vectors, np.float32).ravel()), vectors.shape[1]
    )


def rows(ids: list[str], vectors: NDArray[np.float32] | None = None, **columns: Any) -> pa.Table:
    """Return a table of `ids`; the vectors are drawn from the positions of the ids unless given."""
    vectors = vectors_of(*range(len(ids)), dim=DIM) if vectors is None else vectors
    extra = {name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()}
    return pa.table({"id": pa.array(ids, pa.string()), **extra, "vector": vector_array(vectors)})


def fetch(store: VectorStore, columns: list[str], **how: Any) -> list[dict[str, Any]]:
    """Return the rows of a scan as dicts, sorted by id."""
    found = [row for batch in store.scan(["id", *columns], **how) for row in batch.to_pylist()]
    return sorted(found, key=lambda row: row["id"])


def ids_of(store: VectorStore, **how: Any) -> list[str]:
    """Return the ids of a scan, sorted."""
    return [row["id"] for row in fetch(store, [], **how)]


#: Texts that an engine need not hold, if it says so.
HARD = ["a\0b", "long " * 30_000]
_UTC = timezone.utc
#: Columns with their types and values.
VALUES: list[tuple[str, pa.DataType, list[Any]]] = [
    (
        "meta_text",
        pa.string(),
        [
            "", " ", "\n", "\x01\x7f", "nan", "-inf", "null", "true", "1", "\u00e9", "e\u0301", "\U0001f600",
            "'\"\\`", "%s {} $1 :a", "\u2028", "\ufeff", "\ufffe", "x" * 10_000, *HARD,
        ],
    ),
    (
        "meta_number",
        pa.float64(),
        [math.nan, math.inf, -math.inf, -0.0, 1e308, 5e-324, 2.0**53, 0.1, 1e16, 123456789.123456789],
    ),
    ("meta_flag", pa.bool_(), [True, False]),
    ("whole", pa.int64(), [2**63 - 1, -(2**63), 2**53 + 1, 0]),
    (
        "taken",
        pa.timestamp("us"),
        [datetime(1, 1, 1), datetime(1969, 12, 31, 23, 59, 59, 999_999), datetime(9999, 12, 31, 23, 59)],
    ),
    (
        "added",
        pa.timestamp("us", tz="UTC"),
        [datetime(1, 1, 1, tzinfo=_UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, _UTC)],
    ),
    ("texts", pa.list_(pa.string()), [[], [""], ["a", ""], ["a,b", "{}", '"', "\\", "NULL"], [None]]),
    ("stamps", pa.list_(pa.int64()), [[], [2**63 - 1, -(2**63)], [0]]),
    ("thumbnail", pa.binary(), [b"", b"\0\xff", bytes(range(256)) * 40]),
]  # fmt: skip
