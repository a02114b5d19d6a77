"""How an image becomes a row, and a row an item again."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa

from nearsight.collection.results import Item
from nearsight.errors import InvalidParameterError, MetadataError
from nearsight.images import Exif, decode_path
from nearsight.store import NUMBER_TYPES, Field, Filter
from nearsight.store.filters.ast import And, In, IsNull, Not

# User metadata lives in columns of its own, so that filters run where the rows are.
PREFIX = "meta_"
#: Metadata key of images whose vector an upgrade estimated from the old model's, because their file was gone.
ESTIMATED_KEY = "vector_estimated"

_TIME = pa.timestamp("us", tz="UTC")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\Z")
_METADATA_TYPES: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    # Integers and fractions share a type, so that a price of 10 may be followed by one of 9.5.
    int: pa.float64(),
    float: pa.float64(),
    str: pa.string(),
}
_TYPE_NAMES = {pa.bool_(): "true or false", pa.float64(): "a number", pa.string(): "text"}
# Larger integers are not exact in float64.
_MAX_INTEGER = 2**53

# The columns of every image, except the vector and the thumbnail. ``paths`` are the files as the user gave
# them, ``keys`` the same files as absolute paths, ``stamps`` their time stamps; the three are parallel.
_COLUMNS = (
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
)
_THUMBNAIL = pa.field("thumbnail", pa.binary())

# What the EXIF block says. Collections of earlier versions lack these columns until they are written to; in a
# row that was written without them, `orientation` is null, which it is in no other row of a file.
# `taken` has no zone: it is what the camera's clock showed.
EXIF_COLUMNS = (
    pa.field("taken", pa.timestamp("us")),
    pa.field("camera", pa.string()),
    pa.field("lens", pa.string()),
    pa.field("lat", pa.float64()),
    pa.field("lon", pa.float64()),
    pa.field("orientation", pa.int32()),
)
_EXIF_NAMES = tuple(column.name for column in EXIF_COLUMNS)

# The facts of an image, of one value each: an item has them, and `where` may name them.
_FACTS = ("id", "width", "height", "size_bytes", "modified", "added")


def schema(dim: int, storage: str = "float32") -> pa.Schema:
    """Return the columns of a new collection.

    Parameters
    ----------
    dim : int
        Length of the vectors.
    storage : {"float32", "float16"}
        The type of a stored number.

    Raises
    ------
    InvalidParameterError
        `storage` is not one of these types.
    """
    if storage not in NUMBER_TYPES:
        raise InvalidParameterError(
            f"storage is {storage!r}; it can be {' or '.join(NUMBER_TYPES)}. The engine cannot search smaller"
            " numbers, and its index takes four bits of each anyway: keep fewer numbers instead"
            " (nearsight index PATH --dim 256)"
        )
    vector = pa.field("vector", pa.list_(NUMBER_TYPES[storage], dim), nullable=False)
    return pa.schema([*_COLUMNS, vector, _THUMBNAIL, *EXIF_COLUMNS])


def item_columns(stored: pa.Schema) -> list[str]:
    """Return the stored columns that an item is made of."""
    exif = [name for name in _EXIF_NAMES if name in stored.names]
    return ["paths", *_FACTS, *exif, *metadata_columns(stored)]


def columns_in_memory(stored: pa.Schema) -> list[str]:
    """Return the stored columns that searches in memory hold: those of items, and what `where` may name."""
    return list(dict.fromkeys(["id", "path", *item_columns(stored)]))


def exif_row(exif: Exif) -> dict[str, Any]:
    """Return the columns of a row that hold the EXIF fields."""
    return asdict(exif)


def item_of(row: Mapping[str, Any]) -> Item:
    """Return the item of a row with the columns of `item_columns`."""
    paths = [decode_path(path) for path in row["paths"]]
    facts: dict[str, Any] = {name: row.get(name) for name in (*_FACTS, *_EXIF_NAMES)}
    return Item(path=paths[0] if paths else "", paths=paths, metadata=metadata_of(row), **facts)


def filter_fields(stored: pa.Schema) -> dict[str, Field]:
    """Return the fields that ``where`` may name: the facts of an image, metadata by its key, and EXIF.

    Metadata under a key that is also a fact is named ``metadata.KEY``. A key that is also an EXIF field means
    the metadata, which somebody wrote on purpose; ``exif.KEY`` is always what the file says.
    """
    fields = {column.name: Field(column.name, column.type) for column in _COLUMNS if column.name in _FACTS}
    fields["path"] = Field("path", pa.string(), list_column="paths")
    for column in metadata_columns(stored):
        key, type_ = column.removeprefix(PREFIX), stored.field(column).type
        fields[f"metadata.{key}"] = Field(column, type_)
        fields.setdefault(key, Field(column, type_))
    for column in EXIF_COLUMNS:
        if column.name in stored.names:
            fields.setdefault(column.name, Field(column.name, column.type))
            fields[f"exif.{column.name}"] = Field(column.name, column.type)
    return fields


def among(ids: Sequence[str], condition: Filter | None) -> Filter:
    """Return a filter of images by id that also match a condition."""
    one_of = In(Field("id", pa.string()), tuple(ids))
    return Filter(one_of if condition is None else And(condition.node, one_of))


def with_key(key: str, stored: pa.Schema) -> Filter:
    """Return the filter of images that have metadata under a key, without the parser of expressions."""
    return Filter(Not(IsNull(Field(PREFIX + key, stored.field(PREFIX + key).type))))


def lacks_exif(stored: pa.Schema) -> bool:
    """Return whether an earlier version wrote the collection, and no later one has written to it."""
    return any(name not in stored.names for name in _EXIF_NAMES)


def columns_named(names: Sequence[str], stored: pa.Schema) -> list[str]:
    """Return the stored columns behind the names that users write.

    Raises
    ------
    InvalidParameterError
        There is no such column; the message lists those there are.
    """
    known = {name: field.column for name, field in filter_fields(stored).items()}
    known |= {name: name for name in ("paths", "vector", "thumbnail")}
    for name in names:
        if name not in known:
            raise InvalidParameterError(f"there is no column {name!r}; there are {', '.join(sorted(known))}")
    return [known[name] for name in names]


def table_columns(names: Sequence[str] | None, stored: pa.Schema, keys: Iterable[str]) -> dict[str, str]:
    """Return the stored columns of a table of images by their names there.

    Without names: all but the vector and the thumbnail, of metadata those of `keys`, named as in an export.
    """
    if names is not None:
        return dict(zip(names, columns_named(names, stored), strict=True))
    exif = (name for name in _EXIF_NAMES if name in stored.names)
    facts = {name: name for name in ("path", "paths", *_FACTS, *exif)}
    return facts | {f"metadata.{key}": PREFIX + key for key in keys}


def metadata_columns(stored: pa.Schema) -> list[str]:
    """Return the columns that hold user metadata."""
    return [name for name in stored.names if name.startswith(PREFIX)]


def metadata_of(row: Mapping[str, Any], columns: Iterable[str] | None = None) -> dict[str, Any]:
    """Return the metadata of a row, without keys that are not set; `columns` are those to look at."""
    return {
        name.removeprefix(PREFIX): int(value) if isinstance(value, float) and value.is_integer() else value
        for name in (columns if columns is not None else filter(_is_metadata, row))
        if (value := row[name]) is not None
    }


def _is_metadata(column: str) -> bool:
    return column.startswith(PREFIX)


def metadata_types(metadata: Mapping[str, Any], known: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """Return the types of the columns that metadata needs, by name; check it against existing columns.

    Raises
    ------
    MetadataError
        A key is not a valid name; a value is not a text, number or boolean, or its type differs from the
        column's.
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
                f"metadata {key!r} holds {_TYPE_NAMES[expected]} in this collection, got {value!r};"
                " convert it, or use another key"
            )
        needed[PREFIX + key] = type_
    return needed


def _type_of(key: str, value: Any) -> pa.DataType:
    if isinstance(value, np.generic):
        value = value.item()
    type_ = _METADATA_TYPES.get(type(value))
    if type_ is None:
        raise MetadataError(
            f"metadata {key!r} is a {type(value).__name__}; it can be text, a number, or true or false"
            " (write a date as text, 'YYYY-MM-DD')"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise MetadataError(f"metadata {key!r} is {value}; leave it out where there is no number")
    if type(value) is int and abs(value) > _MAX_INTEGER:
        raise MetadataError(f"metadata {key!r} is {value}, beyond 2^53; store such a number as text")
    return type_


def utc(seconds: float | None) -> datetime | None:
    """Return a time stamp as a date, or None if it is unknown or out of range."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return None


def table(rows: Iterable[Mapping[str, Any]], columns: pa.Schema) -> pa.Table:
    """Return rows as a table; missing values become null."""
    rows = list(rows)
    arrays = [_column([row.get(f.name) for row in rows], f.type) for f in columns]
    return pa.Table.from_arrays(arrays, schema=columns)


def _column(values: list[Any], type_: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(type_):
        # Through numpy: element by element would cost more than the network.
        flat = np.concatenate(values).astype(np.float32, copy=False) if values else np.empty(0, np.float32)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=type_)
    return pa.array(values, type_)
