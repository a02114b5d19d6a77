"""Filters in the SQL of DataFusion, which Lance speaks.

The SQL is written from the tree; a user's text only ever appears in it as a quoted literal.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timezone

import pyarrow as pa

from nearsight.errors import FilterError
from nearsight.store.filters.ast import (
    And,
    Compare,
    Field,
    Filter,
    In,
    IsNull,
    IsTrue,
    Leaf,
    Like,
    Node,
    Not,
    Or,
    Value,
)

# Joins the values of a list column for LIKE. No path and no text holds it; `parse` refuses it too.
_SEPARATOR = "\x00"


def filter_sql(where: Filter) -> str:
    """Return a condition that is true of the rows that match, and false of all others.

    *Method*: DataFusion simplifies some conditions as if they were never unknown, and then selects rows with
    missing values: it takes ``NOT (x IN (1) AND x IN (2))`` for true, and ``x NOT IN (1) OR x NOT IN (2)``
    too. So NOT is pushed down to single comparisons (De Morgan), and each comparison says that its values are
    not null. Then nothing is unknown, and every simplification holds.

    Examples
    --------
    >>> from nearsight.store import parse
    >>> filter_sql(parse("NOT (width > 100 OR name = 'it''s')", {"width": pa.int32(), "name": pa.string()}))
    "((`width` IS NOT NULL AND NOT (`width` > 100)) AND (`name` IS NOT NULL AND NOT (`name` = 'it''s')))"
    """
    return _node_sql(where.node, negated=False)


def ids_sql(ids: Sequence[str]) -> str:
    """Return the condition for the rows of these ids, of which there is at least one."""
    if len(ids) == 1:
        return f"({quote_name('id')} = {quote_text(ids[0])})"
    return f"({quote_name('id')} IN ({', '.join(map(quote_text, ids))}))"


def quote_text(text: str) -> str:
    """Return `text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """Return `name` as a case-sensitive column reference."""
    if "`" in name:
        raise FilterError(f"column {name!r} holds a backtick, which cannot be quoted.")
    return f"`{name}`"


def _node_sql(node: Node, *, negated: bool) -> str:
    if isinstance(node, Not):
        return _node_sql(node.node, negated=not negated)
    if isinstance(node, And | Or):
        operator = "AND" if isinstance(node, And) != negated else "OR"
        left, right = (_node_sql(side, negated=negated) for side in (node.left, node.right))
        return f"({left} {operator} {right})"
    return _leaf_sql(node, negated=negated)


def _leaf_sql(leaf: Leaf, *, negated: bool) -> str:
    column = quote_name(leaf.field.column)
    if isinstance(leaf, IsNull):
        return f"({column} IS {'NOT ' if negated else ''}NULL)"
    columns = [column]
    if isinstance(leaf, Compare) and isinstance(leaf.value, Field):
        columns.append(quote_name(leaf.value.column))
    known = " AND ".join(f"{name} IS NOT NULL" for name in columns)
    no = "NOT " if negated else ""
    condition = f"({known} AND {no}{_comparison_sql(leaf)})"
    if leaf.field.list_column is None:
        return condition
    # A missing list holds nothing.
    in_list = f"coalesce({_list_sql(leaf, quote_name(leaf.field.list_column))}, false)"
    return f"({condition} {'AND' if negated else 'OR'} {no}{in_list})"


def _comparison_sql(leaf: Compare | In | Like | IsTrue) -> str:
    """Return the comparison with the field's own column."""
    if isinstance(leaf, IsTrue):
        return f"({quote_name(leaf.field.column)} = true)"
    if isinstance(leaf, Like):
        pattern = "".join(text if wild else re.sub(r"([\\%_])", r"\\\1", text) for wild, text in leaf.parts)
        operator = "ILIKE" if leaf.ignore_case else "LIKE"
        return f"({quote_name(leaf.field.column)} {operator} {quote_text(pattern)})"
    if isinstance(leaf, In):
        return f"({_operand(leaf.field, leaf.values)} IN ({_literals(leaf.values)}))"
    if isinstance(leaf.value, Field):
        return f"({_widened(leaf.field)} {leaf.op} {_widened(leaf.value)})"
    return f"({_operand(leaf.field, (leaf.value,))} {leaf.op} {_literal_sql(leaf.value)})"


def _list_sql(leaf: Leaf, column: str) -> str:
    """Return whether any value in the field's list column compares so."""
    if isinstance(leaf, Like):
        return _list_like(leaf, column)
    if isinstance(leaf, In):
        return f"array_has_any({column}, make_array({_literals(leaf.values)}))"
    if isinstance(leaf, Compare) and leaf.op == "=" and not isinstance(leaf.value, Field):
        return f"array_has({column}, {_literal_sql(leaf.value)})"
    raise FilterError(f"{type(leaf).__name__} does not apply to a field with several values.")


def _list_like(leaf: Like, column: str) -> str:
    """Return LIKE over the elements of a list: one regular expression over all, joined."""
    wildcards = {"%": f"[^{_SEPARATOR}]*", "_": f"[^{_SEPARATOR}]"}
    body = "".join(wildcards[text] if wild else _regex_escape(text) for wild, text in leaf.parts)
    pattern = f"{'(?i)' if leaf.ignore_case else ''}(^|{_SEPARATOR}){body}($|{_SEPARATOR})"
    joined = f"array_to_string({column}, {quote_text(_SEPARATOR)})"
    # An empty list joins to the empty text, which is not the same as holding one.
    return f"(array_length({column}) > 0 AND regexp_like({joined}, {quote_text(pattern)}))"


def _regex_escape(text: str) -> str:
    return re.sub(r"([][\\.+*?()|{}^$#&~-])", r"\\\1", text)


def _operand(field: Field, values: tuple[Value, ...]) -> str:
    """Return the column, cast to a wider type where Lance could not fit a literal into its own."""
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


def _literals(values: Sequence[Value]) -> str:
    return ", ".join(_literal_sql(value) for value in values)


def _literal_sql(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        plain = value.astimezone(timezone.utc).replace(tzinfo=None)
        return f"timestamp '{plain.isoformat(sep=' ', timespec='microseconds')}'"
    return quote_text(value) if isinstance(value, str) else repr(value)
