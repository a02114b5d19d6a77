"""Filters, names and values in the SQL of PostgreSQL."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache

import pyarrow as pa

from nearsight.errors import InvalidParameterError
from nearsight.store.filters.ast import Filter, Like, Value
from nearsight.store.filters.sql import SqlDialect, pattern

#: The server cuts a longer name, so that two become one.
MAX_NAME_BYTES = 63
# Compares texts as Python and the other engines do: by code points.
TEXT = 'text COLLATE "C"'
_TYPES = {
    pa.string(): TEXT,
    pa.large_string(): TEXT,
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.binary(): "bytea",
    pa.timestamp("us"): "timestamp",
    pa.timestamp("us", tz="UTC"): "timestamptz",
    pa.list_(pa.string()): 'text[] COLLATE "C"',
    pa.list_(pa.int64()): "bigint[]",
    pa.list_(pa.float64()): "double precision[]",
}


class _Postgres(SqlDialect):
    def __init__(self, case_collation: str) -> None:
        self._case_collation = case_collation

    def name(self, name: str) -> str:
        return super().name(short_name(name))

    def like(self, operand: str, leaf: Like) -> str:
        if not leaf.ignore_case:
            return super().like(operand, leaf)
        text = pattern(leaf)
        if self._case_collation != "C" and (folded := _folded_letters(text)):
            letters, others = "".join(folded), "".join(folded.values())
            operand = f"translate({operand}, {self.text(letters)}, {self.text(others)})"
            text = "".join(folded.get(letter, letter) for letter in text)
        return f"({operand} COLLATE {self.name(self._case_collation)} ILIKE {self.text(text)})"

    def list_equals(self, column: str, values: Sequence[Value]) -> str:
        return f"({column} && ARRAY[{self.literals(values)}]::text[])"

    def list_like(self, leaf: Like, column: str) -> str:
        return f"EXISTS (SELECT 1 FROM unnest({column}) AS element WHERE {self.like('element', leaf)})"


@cache
def _all_folded() -> Mapping[str, str]:
    """Return the letters that have no case of their own here, or another one, and what stands for them."""
    letters = map(chr, range(0x80, 0x1F000))
    folded = {letter: letter.casefold() for letter in letters if len(letter.casefold()) == 1}
    return {
        # To some servers its lower case is an i; everywhere else the Turkish dotted I is its own letter.
        "\u0130": "\ue000",
        **{letter: other for letter, other in folded.items() if letter.lower() != other.lower()},
    }


def _folded_letters(text: str) -> Mapping[str, str]:
    """Return the letters that other engines fold beyond lower case, of those that a pattern could meet.

    The server compares lower case, where a final sigma is none, and a long s no s.
    """
    folded = _all_folded()
    met = {folded.get(letter, letter).lower() for letter in text} | set(text)
    met |= {"\ue000"} if "i" in met else set()
    return {letter: other for letter, other in folded.items() if other in met}


def filter_sql(where: Filter, case_collation: str = "C") -> str:
    r"""Return a condition that is true of the rows that match, and false of all others.

    Parameters
    ----------
    where : Filter
    case_collation : str
        The collation that ILIKE compares by.

    Examples
    --------
    >>> from nearsight.store import parse
    >>> filter_sql(parse("width >= 640 AND name LIKE 'a%'", {"width": pa.int32(), "name": pa.string()}))
    '(("width" IS NOT NULL AND ("width" >= 640)) AND ("name" IS NOT NULL AND ("name" LIKE \'a%\')))'
    """
    return _Postgres(case_collation).filter(where)


def short_name(name: str) -> str:
    """Return a name that the server keeps whole: of a long one the beginning, and a hash.

    Examples
    --------
    >>> short_name("meta_shelf"), len(short_name("meta_" + "a" * 63))
    ('meta_shelf', 63)
    """
    content = name.encode()
    if len(content) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(content).hexdigest()[:16]
    return f"{content[: MAX_NAME_BYTES - 17].decode(errors='ignore')}_{digest}"


def cut_name(name: str) -> str:
    """Return what the server makes of a name that is too long."""
    return name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def name_sql(name: str) -> str:
    """Return a name as an identifier; see `short_name`."""
    return _Postgres("C").name(name)


def in_query(sql: str) -> str:
    """Return SQL for a query with parameters, where the driver takes a percent sign for one."""
    return sql.replace("%", "%%")


def type_sql(field: pa.Field) -> str:
    """Return the type of a column.

    Raises
    ------
    InvalidParameterError
        There is none for its Arrow type.
    """
    if pa.types.is_fixed_size_list(field.type):
        kind = "halfvec" if field.type.value_type == pa.float16() else "vector"
        return f"{kind}({field.type.list_size})"
    if field.type not in _TYPES:
        raise InvalidParameterError(
            f"column {field.name!r} holds {field.type}, which has no type in PostgreSQL here; use text, a"
            " number, a date, true or false, or bytes"
        )
    return _TYPES[field.type]


def copied_type(field: pa.Field) -> str:
    """Return the name of the type in which values are sent."""
    return type_sql(field).partition(" COLLATE")[0]
