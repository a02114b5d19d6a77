"""The tables of a store: rows, vectors, and binary columns.

They are apart because each is read and written without the others: a filter reads narrow rows, an update of
metadata leaves the index of vectors alone, and thumbnails are ten times everything else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from nearsight.errors import VectorError
from nearsight.store.base import NUMBER_TYPES, require_accepted
from nearsight.store.postgres.sql import copied_type, cut_name, name_sql, short_name, type_sql

#: The key of a row in all three tables; it grows in the order that rows came in.
ROW = '"_row"'
#: The store whose tables have the name of the collection.
FIRST = "store"
# The largest row that is kept in one piece.
_PAGE_BYTES = 8160
NUL = "\0"


class Tables:
    """Names and definitions of the tables of one store.

    Parameters
    ----------
    schema : str
        Of the database.
    collection : str
        The table of rows has this name.
    name : str
        Of the store; the tables of one that is not the collection's first have it in their names.
    """

    def __init__(self, schema: str, collection: str, name: str) -> None:
        base = collection if name == FIRST else f"{collection}.{name}"
        self.schema = schema
        self.names = (base, f"{base}.vectors", f"{base}.binary")
        self.rows, self.vectors, self.binary = (
            f"{name_sql(schema)}.{name_sql(table)}" for table in self.names
        )

    def require_storable(self, schema: pa.Schema) -> None:
        """Refuse columns without ``id`` (string) and ``vector`` (fixed-size list of `NUMBER_TYPES`)."""
        types = {field.name: field.type for field in schema}
        vector = types.get("vector", pa.null())
        if (
            types.get("id") != pa.string()
            or not pa.types.is_fixed_size_list(vector)
            or vector.value_type not in NUMBER_TYPES.values()
        ):
            raise VectorError(
                f"a table needs columns 'id' (string) and 'vector' (float32[d] or float16[d]), not {schema}."
            )

    def create(self, schema: pa.Schema) -> list[str]:
        """Return the statements that make the tables."""
        columns = ", ".join(
            f"{name_sql(field.name)} {type_sql(field)}" for field in row_fields(schema) if field.name != "id"
        )
        binary = "".join(f", {name_sql(field.name)} bytea" for field in binary_fields(schema))
        vector = type_sql(schema.field("vector"))
        key = f"{ROW} bigint PRIMARY KEY REFERENCES {self.rows} ({ROW}) ON DELETE CASCADE"
        return [
            f"CREATE TABLE {self.rows} ({ROW} bigint PRIMARY KEY,"
            f' "id" {type_sql(schema.field("id"))} NOT NULL'
            f" UNIQUE{', ' if columns else ''}{columns})",
            # Beside their keys up to the length of a page, because a search reads every one of them.
            f'CREATE TABLE {self.vectors} ({key}, "vector" {vector} NOT NULL)'
            f" WITH (toast_tuple_target = {_PAGE_BYTES})",
            f"CREATE TABLE {self.binary} ({key}{binary})",
            *(f"ALTER TABLE {self.binary} {_uncompressed(field)}" for field in binary_fields(schema)),
        ]

    def drop(self) -> str:
        """Return the statement that deletes the tables."""
        return f"DROP TABLE IF EXISTS {self.binary}, {self.vectors}, {self.rows}"

    def add_column(self, field: pa.Field) -> str:
        """Return the statement that adds a column."""
        is_binary = pa.types.is_binary(field.type)
        added = f"ADD COLUMN {name_sql(field.name)} {type_sql(field)}"
        if is_binary:
            return f"ALTER TABLE {self.binary} {added}, {_uncompressed(field)}"
        return f"ALTER TABLE {self.rows} {added}"

    def rename_columns(self, connection: Any, names: Mapping[str, str]) -> None:
        """Rename those columns of the table of rows that are there."""
        there = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND NOT attisdropped",
            (self.rows,),
        ).fetchall()
        for (name,) in there:
            if name in names and (names[name],) not in there:
                connection.execute(
                    f"ALTER TABLE {self.rows} RENAME {name_sql(name)} TO {name_sql(names[name])}"
                )


def _uncompressed(field: pa.Field) -> str:
    """Return the change of a binary column that makes the server store values as they come.

    Thumbnails are compressed already.
    """
    return f"ALTER COLUMN {name_sql(field.name)} SET STORAGE EXTERNAL"


def renamings(schema: pa.Schema) -> dict[str, str]:
    """Return names that the server has cut, as versions before let it, and what they are now."""
    return {
        cut_name(name): short_name(name)
        for name in schema.names
        if short_name(name) != name and cut_name(name) not in schema.names
    }


def row_fields(schema: pa.Schema) -> list[pa.Field]:
    """Return the columns that are in the table of rows."""
    return [field for field in schema if field.name != "vector" and not pa.types.is_binary(field.type)]


def binary_fields(schema: pa.Schema) -> list[pa.Field]:
    """Return the columns that are in the table of binary columns."""
    return [field for field in schema if pa.types.is_binary(field.type)]


def require_texts(rows: pa.Table) -> None:
    """Refuse rows with a NUL character, which no text of PostgreSQL can hold."""
    reasons: dict[str, str] = {}
    for field in rows.schema:
        column = rows[field.name]
        texts = pc.list_flatten(column) if pa.types.is_list(field.type) else column
        if texts.type != pa.string() or not pc.any(pc.match_substring(texts, NUL)).as_py():
            continue
        for id, value in zip(rows["id"].to_pylist(), column.to_pylist(), strict=True):
            if any(NUL in text for text in ([value] if isinstance(value, str) else value or ()) if text):
                reasons[id] = f"{field.name!r} holds a NUL character, which no text may; leave that out"
    require_accepted("PostgreSQL", reasons)


def copy_in(
    connection: Any, table: str, fields: Sequence[pa.Field], numbers: Sequence[int] | None, rows: pa.Table
) -> None:
    """Send columns of rows, and the numbers of the rows if they are given, to a table."""
    names = [name_sql(field.name) for field in fields]
    types = [copied_type(field) for field in fields]
    columns: list[Sequence[Any]] = [rows[field.name].to_pylist() for field in fields]
    if numbers is not None:
        names, types, columns = [ROW, *names], ["bigint", *types], [numbers, *columns]
    statement = f"COPY {table} ({', '.join(names)}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(types)
        for values in zip(*columns, strict=True):
            copy.write_row(values)


def array_of(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    """Return values of the driver as a column."""
    if pa.types.is_binary(type_):
        return pa.array([None if value is None else bytes(value) for value in values], type_)
    return pa.array(values, type_)
