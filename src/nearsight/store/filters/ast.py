"""Conditions on rows: the tree a filter is made of, and its SQL for the embedded engine.

SQL is written anew from the tree; a user's text only ever appears in it as a quoted literal.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypeAlias

import pyarrow as pa

from nearsight.errors import FilterError

Value: TypeAlias = "str | int | float | bool | datetime"


@dataclass(frozen=True, slots=True)
class Field:
    """Where the values of a user-visible name live.

    Attributes
    ----------
    column : str
        The physical column.
    type : pa.DataType
        Its type: string, integer, floating, boolean or timestamp.
    list_column : str, optional
        A list-of-strings column with further values of the same field (an image with several
        paths). A comparison holds when any of the values satisfies it; a negated one (``!=``,
        ``NOT IN``, ``NOT LIKE``) when none does.
    """

    column: str
    type: pa.DataType
    list_column: str | None = None

    @property
    def kind(self) -> str:
        """One of text, integer, number, boolean, date; anything else cannot be compared."""
        tests: tuple[tuple[str, Callable[[pa.DataType], bool]], ...] = (
            ("text", pa.types.is_string),
            ("text", pa.types.is_large_string),
            ("boolean", pa.types.is_boolean),
            ("integer", pa.types.is_integer),
            ("number", pa.types.is_floating),
            ("date", pa.types.is_timestamp),
        )
        return next((kind for kind, test in tests if test(self.type)), "opaque")


@dataclass(frozen=True, slots=True)
class Compare:
    """``field op value`` or ``field op field``; op is one of = != < <= > >=."""

    field: Field
    op: str
    value: "Value | Field"


@dataclass(frozen=True, slots=True)
class Among:
    """``field IN (values)``."""

    field: Field
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """``field LIKE pattern``: the pattern's parts are literal text, ``"%"`` any run, ``"_"`` any character.

    Attributes
    ----------
    parts : tuple of (bool, str)
        (False, text) for literal text, (True, "%") and (True, "_") for wildcards.
    """

    field: Field
    parts: tuple[tuple[bool, str], ...]
    ignore_case: bool


@dataclass(frozen=True, slots=True)
class IsNull:
    """``field IS NULL``."""

    field: Field


@dataclass(frozen=True, slots=True)
class IsTrue:
    """A boolean field standing alone."""

    field: Field


@dataclass(frozen=True, slots=True)
class Not:
    """``NOT node``, with SQL's three values."""

    node: "Node"


@dataclass(frozen=True, slots=True)
class Junction:
    """``left AND right`` or ``left OR right``."""

    op: str
    left: "Node"
    right: "Node"


Node: TypeAlias = "Compare | Among | Like | IsNull | IsTrue | Not | Junction"


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on rows, valid by construction.

    Attributes
    ----------
    node : Node
        The tree, for engines that do not speak SQL.
    """

    node: Node

    def to_sql(self) -> str:
        """Return the condition in the SQL of DataFusion, which Lance speaks."""
        return _sql(self.node)


# --- DataFusion's SQL -------------------------------------------------------------------------

# Joins the values of a list column for LIKE. No path and no text holds it: parse() refuses it too.
_JOINT = "\x00"


def quote_text(text: str) -> str:
    """Return `text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """Return `name` as a case-sensitive column reference."""
    if "`" in name:
        raise FilterError(f"column {name!r} holds a backtick, which cannot be quoted.")
    return f"`{name}`"


def named_rows(ids: Sequence[str]) -> str:
    """Return the condition for the rows of these ids, of which there is one at least."""
    if len(ids) == 1:
        return f"({quote_name('id')} = {quote_text(ids[0])})"
    return f"({quote_name('id')} IN ({', '.join(map(quote_text, ids))}))"


def _sql(node: Node) -> str:
    if isinstance(node, Junction):
        return f"({_sql(node.left)} {node.op} {_sql(node.right)})"
    if isinstance(node, Not):
        return f"(NOT {_sql(node.node)})"
    column = quote_name(node.field.column)
    if isinstance(node, IsNull):
        return f"({column} IS NULL)"
    if isinstance(node, IsTrue):
        return f"({column} = true)"
    if isinstance(node, Compare):
        return _compare_sql(node)
    if isinstance(node, Among):
        return _among_sql(node)
    return _like_sql(node)


def _compare_sql(node: Compare) -> str:
    if isinstance(node.value, Field):
        return f"({_widened(node.field)} {node.op} {_widened(node.value)})"
    value = _literal_sql(node.value)
    one = f"({_operand(node.field, (node.value,))} {node.op} {value})"
    return _any(node.field, one, lambda rest: f"array_has({rest}, {value})")


def _among_sql(node: Among) -> str:
    values = ", ".join(_literal_sql(value) for value in node.values)
    one = f"({_operand(node.field, node.values)} IN ({values}))"
    return _any(node.field, one, lambda rest: f"array_has_any({rest}, make_array({values}))")


def _any(field: Field, one: str, of_list: Callable[[str], str]) -> str:
    if field.list_column is None:
        return one
    # A missing list holds nothing; without coalesce it would make NOT (...) unknown.
    return f"({one} OR coalesce({of_list(quote_name(field.list_column))}, false))"


def _operand(field: Field, values: tuple[Value, ...]) -> str:
    """Return the column, widened where Lance could not fit a literal into its type."""
    column = quote_name(field.column)
    if field.kind != "integer":
        return column
    if any(isinstance(value, float) for value in values):
        return f"cast({column} as double)"
    bound = 2 ** (field.type.bit_width - 1)
    fits = pa.types.is_signed_integer(field.type) and all(-bound < value < bound for value in values)
    return column if fits else f"cast({column} as bigint)"


def _widened(field: Field) -> str:
    column = quote_name(field.column)
    if field.kind == "integer":
        return f"cast({column} as bigint)"
    return f"cast({column} as double)" if field.kind == "number" else column


def _literal_sql(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        plain = value.astimezone(timezone.utc).replace(tzinfo=None)
        return f"timestamp '{plain.isoformat(sep=' ', timespec='microseconds')}'"
    return quote_text(value) if isinstance(value, str) else repr(value)


def _like_sql(node: Like) -> str:
    escaped = "".join(text if wild else re.sub(r"([\\%_])", r"\\\1", text) for wild, text in node.parts)
    operator = "ILIKE" if node.ignore_case else "LIKE"
    one = f"({quote_name(node.field.column)} {operator} {quote_text(escaped)})"
    return _any(node.field, one, lambda rest: _list_like(node, rest))


def _list_like(node: Like, column: str) -> str:
    """Return LIKE over the elements of a list: one regular expression over all, joined."""
    wildcards = {"%": f"[^{_JOINT}]*", "_": f"[^{_JOINT}]"}
    body = "".join(wildcards[text] if wild else _regex_escape(text) for wild, text in node.parts)
    pattern = f"{'(?i)' if node.ignore_case else ''}(^|{_JOINT}){body}($|{_JOINT})"
    joined = f"array_to_string({column}, {quote_text(_JOINT)})"
    # An empty list joins to the empty text, which is not the same as holding one.
    return f"(array_length({column}) > 0 AND regexp_like({joined}, {quote_text(pattern)}))"


def _regex_escape(text: str) -> str:
    return re.sub(r"([][\\.+*?()|{}^$#&~-])", r"\\\1", text)
