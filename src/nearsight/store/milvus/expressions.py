"""Filters in the expressions of Milvus, on a JSON column."""

import json
from collections.abc import Sequence
from typing import Any

from nearsight.store.filters.conditions import ConditionWriter
from nearsight.store.json_columns import json_key

#: The JSON column with everything but vectors and binary values.
COLUMNS = "columns"


def path_of(column: str) -> str:
    """Return a column as an operand."""
    return f'{COLUMNS}["{json_key(column)}"]'


def literal(value: Any) -> str:
    """Return a text, number or boolean as a literal."""
    return json.dumps(value, ensure_ascii=False)


class MilvusExpressions(ConditionWriter[str]):
    """Writes filters for Milvus 2.3, whose LIKE knows prefixes only."""

    def both(self, left: str, right: str) -> str:
        return f"({left} and {right})"

    def either(self, left: str, right: str) -> str:
        return f"({left} or {right})"

    def no(self, condition: str) -> str:
        return f"(not {condition})"

    def known(self, column: str) -> str:
        return f"(exists {path_of(column)})"

    def is_in(self, column: str, values: Sequence[Any]) -> str:
        if isinstance(values[0], bool):
            return f"({' or '.join(f'{path_of(column)} == {literal(value)}' for value in values)})"
        return f"({path_of(column)} in {literal(list(values))})"

    def contains(self, column: str, values: Sequence[str]) -> str:
        return f"json_contains_any({path_of(column)}, {literal(list(values))})"

    def in_order(self, column: str, operator: str, value: float) -> str:
        return f"({path_of(column)} {operator} {literal(value)})"

    def number(self, column: str, operator: str, value: float) -> str | None:
        if value != value or value in (float("inf"), float("-inf")):
            return None
        path = path_of(column)
        compared = f"({path} {'==' if operator == '=' else operator} {literal(value)})"
        # What JSON does not know is text in the rows; NaN is greater than everything.
        beyond = {"<": ["-inf"], "<=": ["-inf"], ">": ["inf", "nan"], ">=": ["inf", "nan"]}.get(operator)
        return compared if beyond is None else f"({compared} or {path} in {literal(beyond)})"

    def text_in_order(self, column: str, operator: str, value: str) -> str:
        return f"({path_of(column)} {operator} {literal(value)})"


def among(keys: Sequence[str]) -> str:
    """Return the expression for rows of these keys, which are hexadecimal."""
    return f"key in {json.dumps(list(keys))}"
