"""Filters as conditions of engines that have no SQL.

Such an engine says less than a filter can: it knows no LIKE, or compares no two columns. Where it cannot
say a comparison, it is asked for a condition that is true of at least the rows that match, and
`nearsight.store.filters.arrow` picks them out.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

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
)
from nearsight.store.json_columns import EXACT, number_of

T = TypeVar("T")


class ConditionWriter(Generic[T]):
    """Writes a filter as a condition of an engine; a subclass gives the engine's words.

    Missing values have no key in the engine's rows. Dates are numbers, see `nearsight.store.json_columns`.
    """

    def both(self, left: T, right: T) -> T:
        """Return what is true where both are."""
        raise NotImplementedError

    def either(self, left: T, right: T) -> T:
        """Return what is true where one is."""
        raise NotImplementedError

    def no(self, condition: T) -> T:
        """Return what is true where a condition is not."""
        raise NotImplementedError

    def known(self, column: str) -> T:
        """Return whether a column has a value."""
        raise NotImplementedError

    def is_in(self, column: str, values: Sequence[Any]) -> T:
        """Return whether a column has one of some texts, whole numbers, or booleans."""
        raise NotImplementedError

    def contains(self, column: str, values: Sequence[str]) -> T:
        """Return whether a list column has one of some texts."""
        raise NotImplementedError

    def in_order(self, column: str, operator: str, value: float) -> T:
        """Return whether a column with whole numbers is <, <=, > or >= a number."""
        raise NotImplementedError

    def number(self, column: str, operator: str, value: float) -> T | None:
        """Return the comparison of a column with decimal numbers, if the engine makes it exactly."""
        return None

    def text_in_order(self, column: str, operator: str, value: str) -> T | None:
        """Return whether a text is <, <=, > or >= another one by its UTF-8 bytes, if the engine says it."""
        return None

    def starts_with(self, column: str, text: str) -> T | None:
        """Return whether a text begins with another one, if the engine says it."""
        return None

    def write(self, where: Filter) -> tuple[T, bool]:
        """Return a condition, and whether exactly the rows that match satisfy it, or perhaps more."""
        return self._node(where.node, negated=False)

    def _node(self, node: Node, *, negated: bool) -> tuple[T, bool]:
        if isinstance(node, Not):
            return self._node(node.node, negated=not negated)
        if isinstance(node, And | Or):
            left, is_left_exact = self._node(node.left, negated=negated)
            right, is_right_exact = self._node(node.right, negated=negated)
            join = self.both if isinstance(node, And) != negated else self.either
            return join(left, right), is_left_exact and is_right_exact
        return self._leaf(node, negated=negated)

    def _leaf(self, leaf: Leaf, *, negated: bool) -> tuple[T, bool]:
        name, list_column = leaf.field.column, leaf.field.list_column
        if isinstance(leaf, IsNull):
            return (self.known(name) if negated else self.no(self.known(name))), True
        comparison = self._comparison(leaf, name)
        in_list = self._in_list(leaf, list_column) if list_column else None
        if comparison is None or (list_column and in_list is None):
            # Anything that has a value may match.
            known = self.known(name)
            return (self.either(known, self.known(list_column)) if list_column else known), False
        if negated:
            condition = self.both(self.known(name), self.no(comparison))
            return (condition if in_list is None else self.both(condition, self.no(in_list))), True
        return (comparison if in_list is None else self.either(comparison, in_list)), True

    def _in_list(self, leaf: Leaf, column: str) -> T | None:
        if isinstance(leaf, In):
            return self.contains(column, [str(value) for value in leaf.values])
        if isinstance(leaf, Compare) and leaf.op == "=" and isinstance(leaf.value, str):
            return self.contains(column, [leaf.value])
        return None

    def _comparison(self, leaf: Compare | In | Like | IsTrue, name: str) -> T | None:
        if isinstance(leaf, IsTrue):
            return self.is_in(name, [True])
        if isinstance(leaf, Like):
            prefix = _prefix(leaf)
            return None if prefix is None else self.starts_with(name, prefix)
        if isinstance(leaf, Compare):
            if isinstance(leaf.value, Field):
                return None
            if leaf.op == "!=":
                equal = self._equal(name, leaf.field, [leaf.value])
                return None if equal is None else self.both(self.known(name), self.no(equal))
            if leaf.op != "=":
                return self._in_order(name, leaf.field, leaf.op, leaf.value)
        return self._equal(name, leaf.field, leaf.values if isinstance(leaf, In) else [leaf.value])

    def _equal(self, name: str, field: Field, values: Sequence[Any]) -> T | None:
        if field.kind in ("text", "boolean"):
            return self.is_in(name, values)
        if field.kind == "number":
            found = [self.number(name, "=", float(value)) for value in values]
            if any(one is None for one in found):
                return None
            joined = found[0]
            for one in found[1:]:
                joined = self.either(joined, one)  # type: ignore[arg-type]
            return joined
        numbers = [_number(value, field) for value in values]
        return None if any(type(number) is not int for number in numbers) else self.is_in(name, numbers)

    def _in_order(self, name: str, field: Field, operator: str, value: Any) -> T | None:
        if field.kind == "text":
            return self.text_in_order(name, operator, value)
        if field.kind == "number":
            return self.number(name, operator, float(value))
        number = _number(value, field)
        return None if number is None else self.in_order(name, operator, number)


def _number(value: Any, field: Field) -> float | None:
    """Return a literal as a number that engines compare exactly with whole ones, if it is one."""
    if isinstance(value, datetime):
        return number_of(value) if field.type.unit == "us" else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < EXACT else None


def _prefix(leaf: Like) -> str | None:
    """Return the text of a pattern that is text and then anything."""
    if leaf.ignore_case or len(leaf.parts) != 2 or leaf.parts[1] != (True, "%") or leaf.parts[0][0]:
        return None
    return leaf.parts[0][1]


def columns_of(where: Filter) -> list[str]:
    """Return the names of the columns that a filter reads, sorted."""
    found: set[str] = set()
    nodes: list[Any] = [where.node]
    while nodes:
        node = nodes.pop()
        if isinstance(node, Not):
            nodes.append(node.node)
        elif isinstance(node, And | Or):
            nodes += [node.left, node.right]
        else:
            other = getattr(node, "value", None)
            fields = [node.field, other] if isinstance(other, Field) else [node.field]
            found |= {name for field in fields for name in (field.column, field.list_column) if name}
    return sorted(found)
