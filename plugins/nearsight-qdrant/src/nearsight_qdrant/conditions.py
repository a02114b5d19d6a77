"""Filters in Qdrant's own conditions.

Qdrant has no LIKE and compares no two columns. Where it cannot say a comparison, it is asked for a
condition that is true of at least the rows that match, and `nearsight.store.filters.arrow` picks them out.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from qdrant_client import models

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
from nearsight_qdrant.points import EXACT, instant, payload_key

_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def condition_of(where: Filter) -> tuple[models.Filter, bool]:
    """Return a condition, and whether exactly the rows that match satisfy it, or perhaps more."""
    condition, is_exact = _node(where.node, negated=False)
    return models.Filter(must=[condition]), is_exact


def _node(node: Node, *, negated: bool) -> tuple[Any, bool]:
    if isinstance(node, Not):
        return _node(node.node, negated=not negated)
    if isinstance(node, And | Or):
        left, left_exact = _node(node.left, negated=negated)
        right, right_exact = _node(node.right, negated=negated)
        is_all = isinstance(node, And) != negated
        joined = models.Filter(must=[left, right]) if is_all else models.Filter(should=[left, right])
        return joined, left_exact and right_exact
    return _leaf(node, negated=negated)


def _leaf(leaf: Leaf, *, negated: bool) -> tuple[Any, bool]:
    name = leaf.field.column
    if isinstance(leaf, IsNull):
        return (_known(name) if negated else _missing(name)), True
    comparison = _comparison(leaf, name, leaf.field)
    if comparison is None:
        # Anything may match, but for what has no value at all.
        others = [] if leaf.field.list_column is None else [_known(leaf.field.list_column)]
        return models.Filter(should=[_known(name), *others]), False
    if leaf.field.list_column is None:
        return _said(comparison, name, negated=negated), True
    # A condition on a list holds if any of its values satisfies it.
    in_list = _comparison(leaf, leaf.field.list_column, leaf.field)
    if negated:
        return models.Filter(must=[_known(name)], must_not=[comparison, in_list]), True
    return models.Filter(should=[comparison, in_list]), True


def _said(comparison: Any, name: str, *, negated: bool) -> Any:
    return models.Filter(must=[_known(name)], must_not=[comparison]) if negated else comparison


def _missing(name: str) -> Any:
    return models.IsEmptyCondition(is_empty=models.PayloadField(key=payload_key(name)))


def _known(name: str) -> Any:
    return models.Filter(must_not=[_missing(name)])


def _comparison(leaf: Compare | In | Like | IsTrue, name: str, field: Field) -> Any:
    """Return the comparison of a column with literals, or None if Qdrant cannot say it exactly."""
    if isinstance(leaf, IsTrue):
        return models.FieldCondition(key=payload_key(name), match=models.MatchValue(value=True))
    if isinstance(leaf, Like) or (isinstance(leaf, Compare) and isinstance(leaf.value, Field)):
        return None
    literals: Sequence[Any] = leaf.values if isinstance(leaf, In) else (leaf.value,)
    match: models.MatchAny | models.MatchValue
    if field.kind == "text" and not (isinstance(leaf, Compare) and leaf.op in _RANGES):
        match = models.MatchAny(any=list(literals))
    elif field.kind in ("integer", "date"):
        numbers: list[Any] = [_whole(value, field) for value in literals]
        if any(number is None for number in numbers):
            return None
        if isinstance(leaf, Compare) and leaf.op in _RANGES:
            return models.FieldCondition(
                key=payload_key(name), range=models.Range(**{_RANGES[leaf.op]: numbers[0]})
            )
        match = models.MatchAny(any=numbers)
    elif field.kind == "boolean" and isinstance(leaf, Compare) and leaf.op in ("=", "!="):
        match = models.MatchValue(value=bool(literals[0]))
    else:
        return None
    condition = models.FieldCondition(key=payload_key(name), match=match)
    if isinstance(leaf, Compare) and leaf.op == "!=":
        return models.Filter(must=[_known(name)], must_not=[condition])
    return condition


def _whole(value: Any, field: Field) -> int | None:
    """Return a literal as a whole number that Qdrant compares exactly, if it is one."""
    if isinstance(value, datetime):
        return instant(value, field.type.unit) if field.type.unit == "us" else None
    return value if type(value) is int and abs(value) < EXACT else None
