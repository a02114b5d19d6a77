"""How an image becomes a row, and a row an item again."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa

from nearsight.collection.results import Item
from nearsight.errors import InvalidParameterError, MetadataError
from nearsight.images import decode_path
from nearsight.store import NUMBER_TYPES, Field

# User metadata lives in columns of its own, so that filters run where the rows are.
PREFIX = "meta_"

_TIME = pa.timestamp("us", tz="UTC")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\Z")
_TYPES: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    # Whole and broken numbers share a type, so that a price of 10 may be followed by one of 9.5.
    int: pa.float64(),
    float: pa.float64(),
    str: pa.string(),
}
_NAMES = {pa.bool_(): "true or false", pa.float64(): "a number", pa.string(): "text"}
_EXACT = 2**53

# What a user may name in `where`, and lists of items show.
_FIELDS = {
    "id": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "size_bytes": pa.int64(),
    "modified": _TIME,
    "added": _TIME,
}

ITEM_COLUMNS = ("id", "paths", "width", "height", "size_bytes", "modified", "added")


def schema(dim: int, storage: str = "float32") -> pa.Schema:
    """Return the columns of a new collection, its vectors kept as `storage` says.

    ``paths`` are as the user gave them, ``keys`` the same files under names that do not depend on the
    working directory, ``stamps`` their time stamps; the three run in parallel.

    Raises
    ------
    InvalidParameterError
        Vectors cannot be kept so.
    """
    if storage not in NUMBER_TYPES:
        raise InvalidParameterError(
            f"storage is {storage!r}; it can be {' or '.join(NUMBER_TYPES)}. The engine cannot search smaller"
            " numbers, and its index takes four bits of each anyway: keep fewer numbers instead"
            " (nearsight index PATH --dim 256)"
        )
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("paths", pa.list_(pa.string()), nullable=False),
            pa.field("keys", pa.list_(pa.string()), nullable=False),
            pa.field("stamps", pa.list_(pa.int64()), nullable=False),
            pa.field("size_bytes", pa.int64(), nullable=False),
            pa.field("modified", _TIME),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("added", _TIME, nullable=False),
            pa.field("vector", pa.list_(NUMBER_TYPES[storage], dim), nullable=False),
            pa.field("thumbnail", pa.binary()),
        ]
    )


def item_of(row: Mapping[str, Any]) -> Item:
    """Return the item of a row with the columns `ITEM_COLUMNS` and those of the metadata."""
    paths = [decode_path(path) for path in row["paths"]]
    facts = {name: row[name] for name in ITEM_COLUMNS if name != "paths"}
    return Item(path=paths[0] if paths else "", paths=paths, metadata=metadata_of(row), **facts)


def filter_fields(stored: pa.Schema) -> dict[str, Field]:
    """Return what a user may name in ``where``: the facts of an image, and metadata by its key.

    A key that is also a fact's name is reached as ``metadata.KEY``.
    """
    fields = {name: Field(name, type_) for name, type_ in _FIELDS.items()}
    fields["path"] = Field("path", pa.string(), list_column="paths")
    for column in metadata_columns(stored):
        key, type_ = column.removeprefix(PREFIX), stored.field(column).type
        fields[f"metadata.{key}"] = Field(column, type_)
        fields.setdefault(key, Field(column, type_))
    return fields


def columns_named(names: Sequence[str], stored: pa.Schema) -> list[str]:
    """Return the stored columns of names that a user gives.

    Raises
    ------
    InvalidParameterError
        There is no such column; the message lists those there are.
    """
    known = {name: field.column for name, field in filter_fields(stored).items()}
    known |= {name: name for name in ("vector", "thumbnail")}
    for name in names:
        if name not in known:
            raise InvalidParameterError(f"there is no column {name!r}; there are {', '.join(sorted(known))}")
    return [known[name] for name in names]


def metadata_columns(stored: pa.Schema) -> list[str]:
    """Return the columns that hold user metadata."""
    return [name for name in stored.names if name.startswith(PREFIX)]


def metadata_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Collect a row's metadata, without what is unset."""
    return {
        name.removeprefix(PREFIX): int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in row.items()
        if name.startswith(PREFIX) and value is not None
    }


def metadata_types(metadata: Mapping[str, Any], known: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """Check metadata against the collection's columns; return those it needs, by column name.

    Raises
    ------
    MetadataError
        A key that is no name, a value that is no text, number or truth, or one of another type than
        the collection holds under that key.
    """
    needed: dict[str, pa.DataType] = {}
    for key, value in metadata.items():
        if not isinstance(key, str) or not _KEY.match(key):
            raise MetadataError(
                f"metadata key {key!r} is not a name; use letters, digits and _, starting with a letter,"
                " at most 63 long"
            )
        if value is None:
            continue
        type_ = _type_of(key, value)
        expected = known.get(PREFIX + key, type_)
        if type_ != expected:
            raise MetadataError(
                f"metadata {key!r} holds {_NAMES[expected]} in this collection, got {value!r};"
                " convert it, or use another key"
            )
        needed[PREFIX + key] = type_
    return needed


def _type_of(key: str, value: Any) -> pa.DataType:
    if isinstance(value, np.generic):
        value = value.item()
    type_ = _TYPES.get(type(value))
    if type_ is None:
        raise MetadataError(
            f"metadata {key!r} is a {type(value).__name__}; it can be text, a number, or true or false"
            " (write a date as text, 'YYYY-MM-DD')"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise MetadataError(f"metadata {key!r} is {value}; leave it out where there is no number")
    if type(value) is int and abs(value) > _EXACT:
        raise MetadataError(f"metadata {key!r} is {value}, beyond 2^53; store such a number as text")
    return type_


def utc(seconds: float | None) -> datetime | None:
    """Return a time stamp as a date, or None where it is unknown or beyond what a date can say."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return None


def table(rows: Iterable[Mapping[str, Any]], columns: pa.Schema) -> pa.Table:
    """Build a table, with nulls for metadata that a row lacks."""
    rows = list(rows)
    arrays = [_column([row.get(f.name) for row in rows], f.type) for f in columns]
    return pa.Table.from_arrays(arrays, schema=columns)


def _column(values: list[Any], type_: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(type_):
        # Through numpy: element by element would cost more than the network.
        flat = np.concatenate(values).astype(np.float32, copy=False) if values else np.empty(0, np.float32)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=type_)
    return pa.array(values, type_)
