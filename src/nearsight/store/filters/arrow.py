"""Filters evaluated on Arrow tables in memory.

The tree is walked as `store.lance.sql` walks it: NOT goes down to single comparisons, and each comparison
says that its values are known. So the rows are those that the engine selects; tests compare the two on random
filters.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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

Mask = NDArray[np.bool_]

_TESTS = {
    "=": "equal",
    "!=": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
_NUMPY_TESTS = {
    "=": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


class _NotEvaluableError(Exception):
    """A comparison that only the engine can make."""


def matching_rows(where: Filter, table: pa.Table) -> Mask | None:
    """Return which rows of a table match a filter.

    Parameters
    ----------
    where : Filter
    table : pa.Table
        With the columns that the filter names.

    Returns
    -------
    ndarray of bool, shape (n,), or None
        None if the filter names a column that the table lacks, or a type that is compared in the engine only.

    Examples
    --------
    >>> from nearsight.store import parse
    >>> table = pa.table({"width": [640, None, 80]})
    >>> matching_rows(parse("NOT width < 100", {"width": pa.int64()}), table).tolist()
    [True, False, False]
    """
    try:
        return _node(where.node, table, negated=False)
    except _NotEvaluableError:
        return None


def _node(node: Node, table: pa.Table, *, negated: bool) -> Mask:
    if isinstance(node, Not):
        return _node(node.node, table, negated=not negated)
    if isinstance(node, And | Or):
        left, right = (_node(side, table, negated=negated) for side in (node.left, node.right))
        return left & right if isinstance(node, And) != negated else left | right
    return _leaf(node, table, negated=negated)


def _leaf(leaf: Leaf, table: pa.Table, *, negated: bool) -> Mask:
    column = _column(table, leaf.field)
    if isinstance(leaf, IsNull):
        return _known(column) if negated else ~_known(column)
    known = _known(column)
    if isinstance(leaf, Compare) and isinstance(leaf.value, Field):
        other = _column(table, leaf.value)
        known &= _known(other)
        compared = _compare_columns(column, leaf, other, leaf.value)
    else:
        compared = _compare(leaf, column)
    condition: Mask = known & (compared != negated)
    if leaf.field.list_column is None:
        return condition
    in_list = _in_list(leaf, table, leaf.field.list_column)
    return condition & ~in_list if negated else condition | in_list


def _column(table: pa.Table, field: Field) -> pa.Array:
    return _one_chunk(table, field.column, field.type)


def _one_chunk(table: pa.Table, name: str, type_: pa.DataType) -> pa.Array:
    if name not in table.column_names or table.schema.field(name).type != type_:
        raise _NotEvaluableError
    column = table.column(name)
    return (
        column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.nulls(0, type_)])
    )


def _known(column: pa.Array) -> Mask:
    if not column.null_count:
        return np.ones(len(column), bool)
    return _mask(column.is_valid())


def _mask(values: pa.Array) -> Mask:
    """Return a boolean array in which what is unknown is false."""
    values = values.fill_null(False) if values.null_count else values
    mask: Mask = values.to_numpy(zero_copy_only=False)
    return mask


def _compare(leaf: Compare | In | Like | IsTrue, column: pa.Array) -> Mask:
    """Return the comparison of one column with literals; of unknown values, anything."""
    if isinstance(leaf, IsTrue):
        return _mask(column)
    if isinstance(leaf, Like):
        return _is_like(column, leaf)
    literals: tuple[Any, ...] = leaf.values if isinstance(leaf, In) else (leaf.value,)
    if _is_compared_as_double(leaf.field, literals):
        keys = _ordered(column, merges_zeros=True)
        wanted = _ordered(pa.array([float(value) for value in literals], pa.float64()), merges_zeros=True)
        if isinstance(leaf, In):
            return np.isin(keys, wanted)
        compared: Mask = _NUMPY_TESTS[leaf.op](keys, wanted[0])
        return compared
    scalars = _literals(leaf.field, literals)
    column = column.cast(scalars.type)
    if isinstance(leaf, In):
        return _mask(pc.is_in(column, value_set=scalars))
    return _mask(pc.call_function(_TESTS[leaf.op], [column, scalars[0]]))


def _is_like(column: pa.Array, leaf: Like) -> Mask:
    if any("\\" in text for wild, text in leaf.parts if not wild) and not leaf.ignore_case:
        # Of a pattern that it searches for as a plain text, Arrow takes the escaped backslash for two.
        wildcards = {"%": ".*", "_": "."}
        parts = [wildcards[text] if wild else _escaped(text) for wild, text in leaf.parts]
        return _mask(pc.match_substring_regex(column, f"(?s)^{''.join(parts)}$"))
    pattern = "".join(text if wild else re.sub(r"([\\%_])", r"\\\1", text) for wild, text in leaf.parts)
    return _mask(pc.match_like(column, pattern, ignore_case=leaf.ignore_case))


def _escaped(text: str) -> str:
    return re.sub(r"([][\\.+*?()|{}^$])", r"\\\1", text)


def _compare_columns(column: pa.Array, leaf: Compare, other: pa.Array, peer: Field) -> Mask:
    kinds = {leaf.field.kind, peer.kind}
    if kinds == {"integer"}:
        column, other = _widened(column), _widened(other)
    elif "number" in kinds:
        compared: Mask = _NUMPY_TESTS[leaf.op](_ordered(column), _ordered(other))
        return compared
    elif leaf.field.type != peer.type:
        raise _NotEvaluableError
    return _mask(pc.call_function(_TESTS[leaf.op], [column, other]))


def _is_compared_as_double(field: Field, literals: Sequence[Value]) -> bool:
    return field.kind == "number" or (
        field.kind == "integer" and any(isinstance(value, float) for value in literals)
    )


def _ordered(column: pa.Array, *, merges_zeros: bool = False) -> NDArray[np.int64]:
    """Return whole numbers that lie in the order of a column's numbers as the engine has it.

    That is the total order of IEEE 754, in which NaN equals itself and -0.0 is less than 0.0. With a literal,
    the engine compares -0.0 as 0.0.
    """
    if column.type not in (pa.float64(), pa.int64(), pa.int32(), pa.int16(), pa.int8()):
        raise _NotEvaluableError
    numbers = column.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy(zero_copy_only=False)
    bits = np.ascontiguousarray(numbers + 0.0 if merges_zeros else numbers).view(np.int64)
    ordered: NDArray[np.int64] = bits ^ ((bits >> 63) & np.int64(2**63 - 1))
    return ordered


def _widened(column: pa.Array) -> pa.Array:
    if not pa.types.is_signed_integer(column.type):
        raise _NotEvaluableError
    return column.cast(pa.int64())


def _literals(field: Field, values: Sequence[Any]) -> pa.Array:
    """Return literals as an array of the type in which they are compared."""
    if field.kind == "integer" and pa.types.is_signed_integer(field.type):
        return pa.array(values, pa.int64())
    if field.type in (pa.string(), pa.bool_()):
        return pa.array(values, field.type)
    if field.kind == "date" and field.type.unit == "us":
        return (
            pa.array([_instant(value) for value in values], pa.int64())
            .cast(pa.timestamp("us"))
            .cast(field.type)
        )
    raise _NotEvaluableError


def _instant(value: datetime) -> int:
    since = value.astimezone(timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds


def _in_list(leaf: Leaf, table: pa.Table, name: str) -> Mask:
    """Return whether any value in a list column compares so; a missing list holds nothing."""
    lists = _one_chunk(table, name, pa.list_(pa.string()))
    if not isinstance(leaf, In | Like) and not (isinstance(leaf, Compare) and leaf.op == "="):
        raise _NotEvaluableError
    values = lists.flatten()
    rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    matches = np.zeros(len(lists), bool)
    matches[rows[_known(values) & _compare(leaf, values)]] = True
    return matches
