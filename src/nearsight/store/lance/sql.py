"""Filters in the SQL of DataFusion, which Lance speaks."""

import re
from collections.abc import Sequence

from nearsight.errors import FilterError
from nearsight.store.filters.ast import Filter, Like, Value
from nearsight.store.filters.sql import SqlDialect

# Joins the values of a list column for LIKE. No path and no text holds it; `parse` refuses it too.
_SEPARATOR = "\x00"


class _DataFusion(SqlDialect):
    quote = "`"
    double = "double"

    def name(self, name: str) -> str:
        if "`" in name:
            raise FilterError(f"column {name!r} holds a backtick, which cannot be quoted.")
        return f"`{name}`"

    def list_equals(self, column: str, values: Sequence[Value]) -> str:
        if len(values) == 1:
            return f"array_has({column}, {self.literal(values[0])})"
        return f"array_has_any({column}, make_array({self.literals(values)}))"

    def list_like(self, leaf: Like, column: str) -> str:
        """One regular expression over all elements, joined."""
        wildcards = {"%": f"[^{_SEPARATOR}]*", "_": f"[^{_SEPARATOR}]"}
        body = "".join(wildcards[text] if wild else _regex_escape(text) for wild, text in leaf.parts)
        pattern = f"{'(?i)' if leaf.ignore_case else ''}(^|{_SEPARATOR}){body}($|{_SEPARATOR})"
        joined = f"array_to_string({column}, {self.text(_SEPARATOR)})"
        # An empty list joins to the empty text, which is not the same as holding one.
        return f"(array_length({column}) > 0 AND regexp_like({joined}, {self.text(pattern)}))"


_DIALECT = _DataFusion()


def filter_sql(where: Filter) -> str:
    """Return a condition that is true of the rows that match, and false of all others.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from nearsight.store import parse
    >>> filter_sql(parse("NOT (width > 100 OR name = 'it''s')", {"width": pa.int32(), "name": pa.string()}))
    "((`width` IS NOT NULL AND NOT (`width` > 100)) AND (`name` IS NOT NULL AND NOT (`name` = 'it''s')))"
    """
    return _DIALECT.filter(where)


def ids_sql(ids: Sequence[str]) -> str:
    """Return the condition for the rows of these ids, of which there is at least one."""
    if len(ids) == 1:
        return f"({_DIALECT.name('id')} = {_DIALECT.text(ids[0])})"
    return f"({_DIALECT.name('id')} IN ({', '.join(map(_DIALECT.text, ids))}))"


def _regex_escape(text: str) -> str:
    return re.sub(r"([][\\.+*?()|{}^$#&~-])", r"\\\1", text)
