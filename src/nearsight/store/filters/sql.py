"""Filters as SQL, in the words that engines share; each engine's package has its dialect.

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


class SqlDialect:
    """Writes a filter as a condition that is true of the rows that match, and false of all others.

    *Method*: engines simplify some conditions as if they were never unknown, and then select rows with
    missing values: DataFusion takes ``NOT (x IN (1) AND x IN (2))`` for true. So NOT is pushed down to single
    comparisons (De Morgan), and each comparison says that its values are not null. Then nothing is unknown,
    and every simplification holds.
    """

    quote = '"'
    double = "double precision"

    def filter(self, where: Filter) -> str:
        """Return the condition of a filter."""
        return self._node(where.node, negated=False)

    def name(self, name: str) -> str:
        """Return `name` as a case-sensitive column reference."""
        return self.quote + name.replace(self.quote, self.quote * 2) + self.quote

    def text(self, text: str) -> str:
        """Return `text` as an SQL literal."""
        return "'" + text.replace("'", "''") + "'"

    def list_equals(self, column: str, values: Sequence[Value]) -> str:
        """Return whether a list column holds any of the values."""
        raise NotImplementedError

    def list_like(self, leaf: Like, column: str) -> str:
        """Return whether any value of a list column is like a pattern."""
        raise NotImplementedError

    def like(self, operand: str, leaf: Like) -> str:
        """Return whether an operand is like a pattern."""
        return f"({operand} {'ILIKE' if leaf.ignore_case else 'LIKE'} {self.text(pattern(leaf))})"

    def number(self, value: float) -> str:
        """Return a number as an SQL literal."""
        return repr(value)

    def _node(self, node: Node, *, negated: bool) -> str:
        if isinstance(node, Not):
            return self._node(node.node, negated=not negated)
        if isinstance(node, And | Or):
            operator = "AND" if isinstance(node, And) != negated else "OR"
            left, right = (self._node(side, negated=negated) for side in (node.left, node.right))
            return f"({left} {operator} {right})"
        return self._leaf(node, negated=negated)

    def _leaf(self, leaf: Leaf, *, negated: bool) -> str:
        column = self.name(leaf.field.column)
        if isinstance(leaf, IsNull):
            return f"({column} IS {'NOT ' if negated else ''}NULL)"
        columns = [column]
        if isinstance(leaf, Compare) and isinstance(leaf.value, Field):
            columns.append(self.name(leaf.value.column))
        known = " AND ".join(f"{name} IS NOT NULL" for name in columns)
        no = "NOT " if negated else ""
        condition = f"({known} AND {no}{self._comparison(leaf)})"
        if leaf.field.list_column is None:
            return condition
        # A missing list holds nothing.
        in_list = f"coalesce({self._list(leaf, self.name(leaf.field.list_column))}, false)"
        return f"({condition} {'AND' if negated else 'OR'} {no}{in_list})"

    def _comparison(self, leaf: Compare | In | Like | IsTrue) -> str:
        """Return the comparison with the field's own column."""
        if isinstance(leaf, IsTrue):
            return f"({self.name(leaf.field.column)} = true)"
        if isinstance(leaf, Like):
            return self.like(self.name(leaf.field.column), leaf)
        if isinstance(leaf, In):
            return f"({self._operand(leaf.field, leaf.values)} IN ({self.literals(leaf.values)}))"
        if isinstance(leaf.value, Field):
            return f"({self._widened(leaf.field)} {leaf.op} {self._widened(leaf.value)})"
        return f"({self._operand(leaf.field, (leaf.value,))} {leaf.op} {self.literal(leaf.value)})"

    def _list(self, leaf: Leaf, column: str) -> str:
        """Return whether any value in the field's list column compares so."""
        if isinstance(leaf, Like):
            return self.list_like(leaf, column)
        if isinstance(leaf, In):
            return self.list_equals(column, leaf.values)
        if isinstance(leaf, Compare) and leaf.op == "=" and not isinstance(leaf.value, Field):
            return self.list_equals(column, [leaf.value])
        raise FilterError(f"{type(leaf).__name__} does not apply to a field with several values.")

    def _operand(self, field: Field, values: tuple[Value, ...]) -> str:
        """Return the column, cast to a wider type where an engine could not fit a literal into its own."""
        column = self.name(field.column)
        if field.kind != "integer":
            return column
        if any(isinstance(value, float) for value in values):
            return f"cast({column} as {self.double})"
        bound = 2 ** (field.type.bit_width - 1)
        fits = pa.types.is_signed_integer(field.type) and all(-bound < value < bound for value in values)
        return column if fits else f"cast({column} as bigint)"

    def _widened(self, field: Field) -> str:
        column = self.name(field.column)
        if field.kind == "integer":
            return f"cast({column} as bigint)"
        return f"cast({column} as {self.double})" if field.kind == "number" else column

    def literals(self, values: Sequence[Value]) -> str:
        """Return values as SQL literals, with commas between them."""
        return ", ".join(self.literal(value) for value in values)

    def literal(self, value: Value) -> str:
        """Return a value as an SQL literal."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, datetime):
            plain = value.astimezone(timezone.utc).replace(tzinfo=None)
            return f"timestamp '{plain.isoformat(sep=' ', timespec='microseconds')}'"
        return self.text(value) if isinstance(value, str) else self.number(value)


def pattern(leaf: Like) -> str:
    """Return the pattern of a LIKE, with a backslash before literal wildcards."""
    return "".join(text if wild else re.sub(r"([\\%_])", r"\\\1", text) for wild, text in leaf.parts)
