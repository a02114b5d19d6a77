"""Reads filters: a small, safe part of SQL's WHERE, checked against the known fields.

sqlglot parses the text. A whitelist translates its nodes into those of `ast`; everything else is refused.
"""

import difflib
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, TypeAlias

import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from nearsight.errors import FilterError
from nearsight.store.filters.ast import (
    And,
    Compare,
    Field,
    Filter,
    In,
    IsNull,
    IsTrue,
    Like,
    Node,
    Not,
    Or,
    Value,
)

__all__ = ["Field", "Filter", "parse"]

# A node of sqlglot. Its base class has different names in the versions that are supported.
Tree: TypeAlias = Any

_SYNTAX = (
    "Write for example: width >= 1000 AND (path LIKE '%/cats/%' OR metadata.stars IN (4, 5)). "
    "There are = != < <= > >=, AND, OR, NOT, LIKE, ILIKE, IN, BETWEEN, IS NULL; "
    "text and dates go in single quotes"
)
# sqlglot and the engine recurse, so the size is bounded.
_MAX_CHARS = 20_000
_MAX_DEPTH = 100


def parse(expression: str, fields: Mapping[str, pa.DataType | Field]) -> Filter:
    """Read a WHERE-like expression.

    Parameters
    ----------
    expression : str
        Comparisons of fields with literals (or with other fields of the same kind), joined by AND,
        OR, NOT and parentheses; LIKE and ILIKE (``%`` any run, ``_`` any character, no escape
        unless ``ESCAPE 'c'`` is given), IN, BETWEEN, IS NULL. A comparison with a missing value is
        neither true nor false, as in SQL. Dates are 'YYYY-MM-DD' (midnight),
        'YYYY-MM-DD HH:MM:SS' or ISO 8601, in UTC unless they carry an offset.
    fields : mapping of str to pa.DataType or Field
        The names that may be used. A plain type means a column of that very name. A dotted name
        (``metadata.stars``) is looked up as it is written.

    Returns
    -------
    Filter

    Raises
    ------
    FilterError
        If the text is empty, not understood, names an unknown field, or compares a field with a
        value of another kind. The message says which and what would do.

    Examples
    --------
    >>> import pyarrow as pa
    >>> condition = parse("width > 100 AND name = 'it''s'", {"width": pa.int32(), "name": pa.string()}).node
    >>> condition.left.op, condition.left.value, condition.right.value
    ('>', 100, "it's")
    """
    if not isinstance(expression, str) or not expression.strip():
        raise FilterError(f"the filter is empty. {_SYNTAX}.")
    if len(expression) > _MAX_CHARS:
        raise FilterError(f"the filter has {len(expression)} characters; the limit is {_MAX_CHARS}.")
    if "\x00" in expression:
        raise FilterError("the filter holds a NUL character, which no field can contain.")
    known = {name: f if isinstance(f, Field) else Field(name, f) for name, f in fields.items()}
    return Filter(_Translator(known).translate(_tree(expression)))


def _tree(expression: str) -> Tree:
    try:
        if any(token.comments for token in sqlglot.tokenize(expression)):
            raise FilterError(
                f"the filter holds a comment, which is not allowed: {_short(expression)}. {_SYNTAX}."
            )
        return sqlglot.parse_one(expression, into=exp.Condition)
    except RecursionError:
        raise FilterError("the filter is nested too deeply. Simplify it.") from None
    except SqlglotError as error:
        raise FilterError(
            f"the filter is not understood{_position(error)}: {_short(expression)}. {_SYNTAX}."
        ) from None


def _position(error: SqlglotError) -> str:
    details = getattr(error, "errors", None)
    if not details or details[0].get("line") is None:
        return ""
    near = details[0].get("highlight")
    return f" at line {details[0]['line']}, column {details[0]['col']}" + (f", near {near!r}" if near else "")


_COMPARISONS: dict[type[Any], str] = {
    exp.EQ: "=",
    exp.NEQ: "!=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_FLIPPED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
# The arguments that each node may have; a node with others is refused.
_ARGUMENTS: dict[type[Any], frozenset[str]] = {
    exp.Column: frozenset({"this", "table"}),
    exp.In: frozenset({"this", "expressions"}),
    exp.Between: frozenset({"this", "low", "high"}),
    exp.Escape: frozenset({"this", "expression"}),
    exp.Like: frozenset({"this", "expression", "negate"}),
    exp.ILike: frozenset({"this", "expression", "negate"}),
}


class _Translator:
    """Translates sqlglot's tree, and refuses every node that is not in the whitelist."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = fields

    def translate(self, node: Tree, depth: int = 0) -> Node:
        if depth > _MAX_DEPTH:
            raise FilterError("the filter is nested too deeply. Simplify it.")
        kind = type(node)
        self._refuse_extras(node)
        if kind is exp.Paren:
            return self.translate(node.this, depth + 1)
        if kind in (exp.And, exp.Or):
            return self._and_or(node, depth)
        if kind is exp.Not:
            return Not(self.translate(node.this, depth + 1))
        if kind in _COMPARISONS:
            return self._compare(node, _COMPARISONS[kind])
        if kind in (exp.Like, exp.ILike, exp.Escape):
            return self._like(node)
        if kind is exp.In:
            return self._in(node)
        if kind is exp.Between:
            return self._between(node)
        if kind is exp.Is:
            return self._is(node)
        if kind is exp.Column:
            return self._alone(node)
        raise FilterError(f"{_text(node)} is not a condition. {_SYNTAX}.")

    @staticmethod
    def _refuse_extras(node: Tree) -> None:
        allowed = _ARGUMENTS.get(type(node))
        extra = [name for name, value in node.args.items() if value] if allowed is not None else []
        for name in extra:
            if allowed is not None and name not in allowed:
                raise FilterError(f"{_text(node)} uses more than filters allow. {_SYNTAX}.")

    def _and_or(self, node: Tree, depth: int) -> Node:
        # A long chain of ANDs is a deep tree to the left; flatten it, so that only real nesting counts.
        kind, parts = type(node), []
        first: Tree = node
        while type(first) is kind:
            parts.append(first.expression)
            first = first.this
        nodes = [self.translate(part, depth + 1) for part in (first, *reversed(parts))]
        join = And if kind is exp.And else Or
        while len(nodes) > 1:  # in pairs, so that the tree is shallow for the engine too
            paired: list[Node] = [join(a, b) for a, b in zip(nodes[::2], nodes[1::2], strict=False)]
            nodes = paired + nodes[len(paired) * 2 :]
        return nodes[0]

    def _field(self, node: Tree, *, what: str) -> Field:
        if type(node) is exp.Paren:
            return self._field(node.this, what=what)
        if type(node) is not exp.Column:
            raise FilterError(
                f"{what} needs the name of a field on its left, not {_text(node)}. {self._listing()}"
            )
        return self._named(node)

    def _named(self, node: Tree) -> Field:
        self._refuse_extras(node)
        identifier = node.this
        if type(identifier) is not exp.Identifier:
            raise FilterError(f"{_text(node)} is not the name of a field. {self._listing()}")
        name = ".".join(
            part for part in (node.args["table"].name if node.args.get("table") else "", node.name) if part
        )
        field = self._fields.get(name)
        if field is None:
            raise FilterError(self._unknown(name, quoted=bool(identifier.args.get("quoted"))))
        if field.kind == "opaque":
            raise FilterError(
                f"field {name!r} holds {field.type}, which cannot be compared. {self._listing()}"
            )
        return field

    def _unknown(self, name: str, *, quoted: bool) -> str:
        by_folded = {
            known.casefold(): known for known, field in self._fields.items() if field.kind != "opaque"
        }
        close = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(by_folded[c] for c in close)}?" if close else ""
        if quoted and not close:
            hint = f" Double quotes name a field; text goes in single quotes: '{name}'."
        return f"there is no field {name!r}.{hint} {self._listing()}"

    def _listing(self) -> str:
        usable = [name for name, field in self._fields.items() if field.kind != "opaque"]
        shown = ", ".join(usable[:40]) + (f" and {len(usable) - 40} more" if len(usable) > 40 else "")
        return f"Fields: {shown}."

    def _name_of(self, field: Field) -> str:
        return next(name for name, known in self._fields.items() if known == field)

    def _compare(self, node: Tree, op: str) -> Node:
        left, right = _bare(node.this), _bare(node.expression)
        if type(left) is not exp.Column and type(right) is exp.Column:
            left, right, op = right, left, _FLIPPED[op]
        field = self._field(left, what=f"a comparison ({op})")
        if field.list_column is not None and op not in ("=", "!="):
            raise FilterError(
                f"field {self._name_of(field)!r} can have several values, so it has no order: "
                f"{op} does not apply. Use =, !=, IN or LIKE."
            )
        if type(right) is exp.Column:
            return Compare(field, op, self._peer(field, right))
        value = self._value(field, right)
        if field.kind == "boolean" and op not in ("=", "!="):
            raise FilterError(
                f"field {self._name_of(field)!r} is true or false: {op} does not apply. Use = or !=."
            )
        return (
            Not(Compare(field, "=", value)) if field.list_column and op == "!=" else Compare(field, op, value)
        )

    def _peer(self, field: Field, node: Tree) -> Field:
        other = self._named(node)
        numeric = {"integer", "number"}
        if not (field.kind == other.kind or {field.kind, other.kind} <= numeric) or field.kind == "boolean":
            raise FilterError(
                f"fields {self._name_of(field)!r} ({field.kind}) and {self._name_of(other)!r} ({other.kind}) "
                "cannot be compared with each other."
            )
        if field.list_column or other.list_column:
            raise FilterError("a field that can have several values cannot be compared with another field.")
        return other

    def _value(self, field: Field, node: Tree) -> Value:
        name, value = self._name_of(field), _literal(node)
        if field.kind == "text" and isinstance(value, str):
            return value
        if field.kind == "boolean" and isinstance(value, bool):
            return value
        if (
            field.kind in ("integer", "number")
            and isinstance(value, int | float)
            and not isinstance(value, bool)
        ):
            return _number(name, value)
        if field.kind == "date" and isinstance(value, str):
            return _instant(name, value)
        raise FilterError(f"field {name!r} {_EXPECTED[field.kind]}, not {_text(node)}.")

    def _in(self, node: Tree) -> Node:
        field = self._field(node.this, what="IN")
        if not node.expressions:
            raise FilterError(f"IN needs a list of literals in parentheses. {_SYNTAX}.")
        return In(field, tuple(self._value(field, item) for item in node.expressions))

    def _between(self, node: Tree) -> Node:
        field = self._field(node.this, what="BETWEEN")
        if field.list_column is not None or field.kind == "boolean":
            raise FilterError(f"BETWEEN does not apply to field {self._name_of(field)!r}: it has no order.")
        low, high = (self._value(field, node.args[side]) for side in ("low", "high"))
        return And(Compare(field, ">=", low), Compare(field, "<=", high))

    def _is(self, node: Tree) -> Node:
        field = self._field(node.this, what="IS")
        if type(node.expression) is exp.Null:
            return IsNull(field)
        raise FilterError(
            f"IS goes with NULL or NOT NULL, not with {_text(node.expression)}. Compare with =."
        )

    def _alone(self, node: Tree) -> Node:
        field = self._named(node)
        if field.kind != "boolean":
            raise FilterError(
                f"field {self._name_of(field)!r} stands alone. Compare it with something. {_SYNTAX}."
            )
        return IsTrue(field)

    def _like(self, node: Tree) -> Node:
        escape: str | None = None
        if type(node) is exp.Escape:
            character = _literal(node.expression)
            escape = character if isinstance(character, str) and len(character) == 1 else None
            if escape is None:
                raise FilterError(
                    f"ESCAPE needs one character in single quotes, not {_text(node.expression)}."
                )
            node = node.this
        if type(node) not in (exp.Like, exp.ILike):
            raise FilterError(f"{_text(node)} is not a condition. {_SYNTAX}.")
        self._refuse_extras(node)
        field = self._field(node.this, what="LIKE")
        pattern = _literal(node.expression)
        if field.kind != "text" or not isinstance(pattern, str):
            raise FilterError(
                f"LIKE compares a text field with a pattern in single quotes: field {self._name_of(field)!r} "
                f"{_EXPECTED[field.kind]}; the pattern is {_text(node.expression)}."
            )
        like: Node = Like(field, _parts(pattern, escape), ignore_case=type(node) is exp.ILike)
        return Not(like) if node.args.get("negate") else like


_EXPECTED = {
    "text": "holds text and compares with text in single quotes",
    "integer": "holds whole numbers and compares with a number",
    "number": "holds numbers and compares with a number",
    "boolean": "is true or false and compares with TRUE or FALSE",
    "date": "holds dates and compares with 'YYYY-MM-DD' or 'YYYY-MM-DD HH:MM:SS'",
}


def _text(node: Tree) -> str:
    if type(node) is exp.Null:
        return "NULL (for a missing value write IS NULL)"
    if type(node) is exp.Column and node.this.args.get("quoted"):
        return f'"{node.name}" in double quotes, which name a field'
    try:
        shown = node.sql()
    except (SqlglotError, RecursionError):
        shown = type(node).__name__
    return _short(shown)


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _bare(node: Tree) -> Tree:
    while type(node) is exp.Paren:
        node = node.this
    return node


def _literal(node: Tree) -> str | int | float | bool | None:
    """Return the literal's value, None if the node is something else."""
    node = _bare(node)
    if type(node) is exp.Boolean:
        return bool(node.this)
    if type(node) is exp.Neg:
        inner = _literal(node.this)
        return -inner if isinstance(inner, int | float) and not isinstance(inner, bool) else None
    if type(node) is not exp.Literal:
        return None
    if node.is_string:
        return str(node.this)
    try:
        return int(node.this) if re.fullmatch(r"\d+", node.this) else float(node.this)
    except ValueError:
        return None


def _number(name: str, value: int | float) -> int | float:
    whole_fits = isinstance(value, float) or -(2**63) < value < 2**63
    if not whole_fits or value in (float("inf"), float("-inf")):
        raise FilterError(f"the number compared with field {name!r} is out of range: {value}.")
    return value


def _instant(name: str, text: str) -> datetime:
    invalid = FilterError(
        f"field {name!r} holds dates, and {text!r} is not one: write 'YYYY-MM-DD' or "
        "'YYYY-MM-DD HH:MM:SS' (UTC)."
    )
    if not re.fullmatch(
        r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?", text.strip(), re.ASCII
    ):
        raise invalid
    # Python 3.10 reads neither "Z" nor fractions of other than 3 or 6 digits.
    padded = re.sub(r"\.(\d+)", lambda m: "." + m[1].ljust(6, "0"), text.strip().replace("Z", "+00:00"))
    try:
        date = datetime.fromisoformat(padded)
        return date.replace(tzinfo=timezone.utc) if date.tzinfo is None else date.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise invalid from None


def _parts(pattern: str, escape: str | None) -> tuple[tuple[bool, str], ...]:
    parts: list[tuple[bool, str]] = []
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            literal = next(characters, None)
            if literal is None:
                raise FilterError(f"the pattern {pattern!r} ends in its escape character.")
            parts.append((False, literal))
        else:
            parts.append((character in "%_", character))
    return tuple(parts)
