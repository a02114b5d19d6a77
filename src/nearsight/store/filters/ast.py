"""Filters on rows, as a tree; each engine translates it into its own language.

Conditions have SQL's three values: true, false, and unknown where a value is missing. A row matches where
the whole is true.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import pyarrow as pa

Value: TypeAlias = "str | int | float | bool | datetime"


@dataclass(frozen=True, slots=True)
class Field:
    """The stored column behind a name that users write.

    Attributes
    ----------
    column : str
        The stored column.
    type : pa.DataType
        Its type: string, integer, floating, boolean or timestamp.
    list_column : str, optional
        A column of lists of strings with further values of the same field (an image with several paths). A
        condition holds if any value satisfies it; a negated one (``!=``, ``NOT IN``, ``NOT LIKE``) if none
        does.
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
class In:
    """``field IN (values)``."""

    field: Field
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """``field LIKE pattern``.

    Attributes
    ----------
    parts : tuple of (bool, str)
        The pattern: (False, text) for literal text, (True, "%") for any run of characters, (True, "_") for
        any one character.
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
    """``NOT node``."""

    node: "Node"


@dataclass(frozen=True, slots=True)
class And:
    """``left AND right``."""

    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Or:
    """``left OR right``."""

    left: "Node"
    right: "Node"


Leaf: TypeAlias = "Compare | In | Like | IsNull | IsTrue"
Node: TypeAlias = "Leaf | Not | And | Or"


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on rows, checked against the fields.

    Attributes
    ----------
    node : Node
        The tree.
    """

    node: Node
