"""Filters as conditions: true of the rows that match, and of more only where that is said."""

import pyarrow as pa
import pytest
from hypothesis import given, settings

from nearsight.store import parse
from nearsight.store.filters.arrow import matching_rows
from nearsight.store.filters.conditions import ConditionWriter, columns_of
from nearsight.store.json_columns import arrow_column, json_key, json_rows

from filter_expressions import EXPRESSIONS, FIELDS, OPERATORS, ROWS, SCHEMA


class Predicates(ConditionWriter):
    """Conditions as functions of a row in JSON; no LIKE, and no order of texts and decimal numbers."""

    def both(self, left, right):
        return lambda row: left(row) and right(row)

    def either(self, left, right):
        return lambda row: left(row) or right(row)

    def no(self, condition):
        return lambda row: not condition(row)

    def known(self, column):
        return lambda row: json_key(column) in row

    def is_in(self, column, values):
        assert values
        return lambda row: row.get(json_key(column)) in values

    def contains(self, column, values):
        return lambda row: any(value in values for value in row.get(json_key(column), []))

    def in_order(self, column, operator, value):
        # As in engines, a value that is missing is in no order.
        return lambda row: json_key(column) in row and OPERATORS[operator](row[json_key(column)], value)


class MorePredicates(Predicates):
    """It knows prefixes, and decimal numbers."""

    def starts_with(self, column, text):
        return lambda row: row.get(json_key(column), "").startswith(text) and json_key(column) in row

    def text_in_order(self, column, operator, value):
        return self.in_order(column, operator, value)

    def number(self, column, operator, value):
        return self.in_order(column, operator, value)


@pytest.mark.parametrize("writer", [Predicates(), MorePredicates()])
@settings(max_examples=60)
@given(rows=ROWS, expression=EXPRESSIONS)
def test_conditions_match_at_least_what_arrow_matches(writer, rows, expression):
    where = parse(expression[0], FIELDS)
    table = pa.Table.from_pylist([{"id": str(i), **row} for i, row in enumerate(rows)], SCHEMA)
    expected = matching_rows(where, table.select(columns_of(where))).tolist()
    condition, is_exact = writer.write(where)
    found = [bool(condition(row)) for row in json_rows(table.drop_columns(["vector"]))]
    if is_exact:
        assert found == expected
    else:
        assert all(one or not other for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("text", "is_exact"),
    [
        ("width < 3 AND name = 'a'", True),
        ("path IN ('a', 'b') OR modified > '2024-01-01'", True),
        ("NOT (good AND width IS NULL)", True),
        ("name LIKE '%a'", False),
        ("name LIKE 'a%'", False),
        ("score < 0.5", False),
        ("width < size_bytes", False),
        ("width = 3 OR name ILIKE 'a%'", False),
        ("size_bytes = 9007199254740993", False),
    ],
)
def test_what_an_engine_cannot_say_is_not_called_exact(text, is_exact):
    assert Predicates().write(parse(text, FIELDS))[1] is is_exact


def test_prefixes_are_said_where_an_engine_knows_them():
    assert MorePredicates().write(parse("name LIKE 'a%'", FIELDS))[1]
    assert not MorePredicates().write(parse("name LIKE 'a_'", FIELDS))[1]


@settings(max_examples=30)
@given(rows=ROWS)
def test_rows_come_back_from_json(rows):
    table = pa.Table.from_pylist([{"id": str(i), **row} for i, row in enumerate(rows)], SCHEMA)
    table = table.drop_columns(["vector"])
    found = json_rows(table)
    for field in table.schema:
        assert arrow_column(found, field).to_pylist() == table[field.name].to_pylist()


def test_numbers_that_json_does_not_know():
    field = pa.field("score", pa.float64())
    table = pa.table({"score": pa.array([float("nan"), float("inf"), float("-inf"), None, -0.5])})
    rows = json_rows(table)
    assert rows == [{"score": "nan"}, {"score": "inf"}, {"score": "-inf"}, {}, {"score": -0.5}]
    assert str(arrow_column(rows, field).to_pylist()) == "[nan, inf, -inf, None, -0.5]"
