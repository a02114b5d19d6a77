"""Filters in memory: the rows are those that the engine selects, whatever the filter."""

import re

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from nearsight.store import Field, Filter, parse
from nearsight.store.filters.arrow import matching_rows
from nearsight.store.filters.ast import Like
from nearsight.store.lance.store import LanceStore

from filter_expressions import EXPRESSIONS, FIELDS, ODD_ROWS, ROWS, SCHEMA, odd_expressions


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return LanceStore.create(tmp_path_factory.mktemp("filter") / "store", SCHEMA)


def check(store, rows, expressions):
    table = pa.Table.from_pylist(
        [{"id": str(number), **row, "vector": [1.0, 0.0]} for number, row in enumerate(rows)], schema=SCHEMA
    )
    store.delete([str(number) for number in range(20)])
    store.append(table)
    for text in expressions:
        where = parse(text, FIELDS)
        selected = {row["id"] for batch in store.scan(["id"], where) for row in batch.to_pylist()}
        mask = matching_rows(where, table)
        assert mask is not None, text
        assert {str(number) for number in range(len(rows)) if mask[number]} == selected, text


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, expressions=st.lists(EXPRESSIONS, min_size=20, max_size=20))
def test_the_rows_are_those_of_the_engine(store, rows, expressions):
    check(store, rows, [text for text, _ in expressions])


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ODD_ROWS, expressions=st.lists(odd_expressions(), min_size=20, max_size=20))
def test_odd_numbers_and_letters_are_those_of_the_engine(store, rows, expressions):
    check(store, rows, expressions)


@pytest.mark.parametrize("like", ["%{}%", "{}%", "%{}", "{}", "_{}%"])
@pytest.mark.parametrize("text", ["\\", "\\photos\\", "\\n", "a\\%", "\\_b", "\\.(x)*", "\\\\"])
def test_a_backslash_is_a_letter_as_any_other(like, text):
    paths = [
        "C:\\photos\\a.jpg",
        "\\photos\\",
        "\\n",
        "\n",
        "a\\%",
        "a%",
        "\\\\host",
        "\\",
        "x\\.(x)*\nb",
        "\\_b",
    ]
    parts = [(part in "%_", part) for part in like.replace("{}", "|").replace("|", " | ").split()]
    parts = [(wild, text if part == "|" else part) for wild, part in parts]
    table = pa.table({"path": paths})
    found = matching_rows(Filter(Like(Field("path", pa.string()), tuple(parts), False)), table)
    regex = "".join({"%": ".*", "_": "."}[part] if wild else re.escape(part) for wild, part in parts)
    assert found.tolist() == [bool(re.fullmatch(regex, path, re.DOTALL)) for path in paths]


def test_a_column_that_is_not_there_is_left_to_the_engine():
    where = parse("width > 1", {"width": pa.int32()})
    assert matching_rows(where, pa.table({"id": ["a"]})) is None
    assert matching_rows(where, pa.table({"width": pa.array([1], pa.int64())})) is None
    wide = parse("width > 1", {"width": pa.uint64()})
    assert matching_rows(wide, pa.table({"width": pa.array([1], pa.uint64())})) is None


def test_an_empty_table():
    where = parse("width > 1 AND path LIKE 'a%'", FIELDS)
    assert matching_rows(where, SCHEMA.empty_table()).tolist() == []


def test_a_table_in_chunks():
    chunks = pa.chunked_array([pa.array([1, None], pa.int32()), pa.array([3], pa.int32())])
    assert matching_rows(parse("width > 0", FIELDS), pa.table({"width": chunks})).tolist() == [
        True,
        False,
        True,
    ]
