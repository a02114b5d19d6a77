"""Filters in memory: the rows are those that the engine selects, whatever the filter."""

import math

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from nearsight.store import parse
from nearsight.store.filters.arrow import matching_rows
from nearsight.store.lance.store import LanceStore

from filter_expressions import EXPRESSIONS, FIELDS, ROWS, SCHEMA, quoted

# What Python, the engine and Arrow might each compare in their own way.
_ODD_SCORES = st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 0.5, 2.0**53, 1e-320])
_ODD_TEXT = st.text(st.sampled_from("kKſsSßİiı\u0301é\n\r\\%_"), max_size=3)
_ODD_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.none() | _ODD_TEXT,
            "path": st.none() | _ODD_TEXT,
            "other_paths": st.none() | st.lists(_ODD_TEXT, max_size=3),
            "width": st.none() | st.sampled_from([0, -1, 2**31 - 1, -(2**31)]),
            "size_bytes": st.none() | st.sampled_from([0, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]),
            "meta_score": st.none() | _ODD_SCORES,
        }
    ),
    min_size=8,
    max_size=8,
)
_NUMBERS = st.sampled_from(
    ["0", "-0.0", "0.0", "0.5", "1", "9007199254740993", "9007199254740992.0", "1e308"]
)
_COMPARED = st.sampled_from(["width", "size_bytes", "score"])
_COLUMNS = st.sampled_from(
    ["score < width", "score = size_bytes", "size_bytes >= score", "width != size_bytes"]
)


@st.composite
def odd_expressions(draw):
    kind = draw(st.sampled_from(["number", "in", "like", "text", "columns"]))
    no, field = draw(st.sampled_from(["", "NOT "])), draw(_COMPARED)
    text = draw(st.sampled_from(["name", "path"]))
    if kind == "number":
        op = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">="]))
        return f"{no}{field} {op} {draw(_NUMBERS)}"
    if kind == "in":
        return f"{field} {no}IN ({', '.join(draw(st.lists(_NUMBERS, min_size=1, max_size=5)))})"
    if kind == "like":
        like = draw(st.sampled_from(["LIKE", "ILIKE"]))
        return f"{text} {no}{like} {quoted(draw(_ODD_TEXT))}"
    if kind == "text":
        return f"{text} {no}IN ({quoted(draw(_ODD_TEXT))}, {quoted(draw(_ODD_TEXT))})"
    return f"{no}{draw(_COLUMNS)}"


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
@given(rows=_ODD_ROWS, expressions=st.lists(odd_expressions(), min_size=20, max_size=20))
def test_odd_numbers_and_letters_are_those_of_the_engine(store, rows, expressions):
    check(store, rows, expressions)


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
