"""Filters: an oracle evaluates random expressions in Python, on the rows of a real table."""

import math
from datetime import datetime, timedelta

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from nearsight.errors import FilterError
from nearsight.store import parse
from nearsight.store.lance.store import LanceStore

from filter_expressions import EXPRESSIONS, FIELDS, ROWS, SCHEMA, UTC, quoted


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return LanceStore.create(tmp_path_factory.mktemp("filter") / "store", SCHEMA)


def fill(store, found):
    table = pa.Table.from_pylist(
        [{"id": str(number), **row, "vector": [1.0, 0.0]} for number, row in enumerate(found)], schema=SCHEMA
    )
    store.delete([str(number) for number in range(20)])
    store.append(table)


def matching(store, expression):
    where = parse(expression, FIELDS)
    return sorted(int(row["id"]) for batch in store.scan(["id"], where) for row in batch.to_pylist())


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(found=ROWS, expressions=st.lists(EXPRESSIONS, min_size=20, max_size=20))
def test_a_filter_means_what_python_says(store, found, expressions):
    fill(store, found)
    for text, function in expressions:
        assert matching(store, text) == [n for n, row in enumerate(found) if function(row) is True], text


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("NOT (width IN (1) AND width NOT IN (1))", [0, 1]),
        ("NOT (width IN (1) AND width IN (2))", [0, 1]),
        ("width NOT IN (1) OR width NOT IN (2)", [0, 1]),
        ("width != 1 OR width != 2", [0, 1]),
        ("NOT (width = 1 AND width = 2)", [0, 1]),
        ("width < 2 OR width >= 2", [0, 1]),
        ("NOT (width < 2 AND width >= 2)", [0, 1]),
        ("NOT (width IN (1) AND NOT width IN (1) AND width IS NULL)", [0, 1]),
        ("NOT (width < size_bytes AND width >= size_bytes)", [0]),
        ("NOT (good AND NOT good)", [0]),
        ("NOT (name LIKE 'a' AND name NOT LIKE 'a')", [0]),
        ("NOT (path = 'a' AND path != 'a')", [0, 1]),
        ("NOT (path IN ('b') AND path IN ('c'))", [0, 1]),
        ("path NOT LIKE 'b' OR path LIKE 'b'", [0, 1]),
    ],
)
def test_a_missing_value_is_neither_true_nor_false(store, expression, rows):
    fill(
        store,
        [
            {"width": 1, "size_bytes": 3, "meta_Good one": True, "name": "a", "path": "a", "other_paths": []},
            {"width": 2, "path": "b", "other_paths": ["b"]},
            {},
        ],
    )
    assert matching(store, expression) == rows


@pytest.mark.parametrize(
    "name", ["it's", "'; DROP TABLE x; --", "a\\", "\\'", "x\ny", "é😀", "100%", "a_b", "`", '"', ""]
)
def test_text_of_any_kind_is_only_text(store, name):
    fill(store, [{"name": name}, {"name": "other"}, {"name": None}])
    assert matching(store, f"name = {quoted(name)}") == [0]
    assert matching(store, f"name IN ({quoted(name)}, 'zzz')") == [0]
    literal = name.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    assert matching(store, f"name LIKE {quoted(literal)} ESCAPE '!'") == [0]


@pytest.mark.parametrize(
    "attack",
    [
        "1=1",
        "true",
        "width = 1; DROP TABLE images",
        "width = 1 -- and the rest",
        "width = 1 /* hidden */",
        "width = 1 UNION SELECT * FROM images",
        "width IN (SELECT width FROM images)",
        "EXISTS (SELECT 1)",
        "width = (SELECT max(width) FROM images)",
        "length(name) > 3",
        "name = lower('X')",
        "now() > modified",
        "cast(width as text) = '3'",
        "width::text = '3'",
        "width + 1 = 2",
        "name || 'x' = 'ax'",
        "CASE WHEN width = 1 THEN true ELSE false END",
        "name LIKE ANY ('a', 'b')",
        "name SIMILAR TO 'a'",
        "name REGEXP 'a'",
        "width = 1 LIMIT 3",
        "width = 1 AS x",
        "* = 1",
        "images.* = 1",
        "a.b.width = 1",
        "width = ?",
        "width = :x",
        "width = @x",
        "width IN ()",
        "width IN (1, NULL)",
        "width BETWEEN SYMMETRIC 3 AND 1",
        "width IN UNNEST(x)",
        "name = 'a' 'b'",
        "name = N'a'",
        "name COLLATE x = 'a'",
        "width[1] = 3",
        "_rowid = 1",
        "meta_score = 1",
        "modified > CURRENT_DATE",
        "name = '\x00'",
        "width = 1 OR",
        "(width = 1",
        "width = 1)",
        "(" * 5000 + "width = 1" + ")" * 5000,
        "NOT " * 5000 + "good",
        "width = 1 AND " * 3000 + "width = 1",
    ],
)
def test_anything_but_conditions_on_known_fields_is_refused(attack):
    with pytest.raises(FilterError):
        parse(attack, FIELDS)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "the filter is empty"),
        ("  \n", "the filter is empty"),
        ("widht > 3", "there is no field 'widht'. Did you mean width\\? Fields: id, name, path"),
        ("WIDTH > 3", "Did you mean width"),
        ("metadata.scores > 3", "Did you mean metadata.score"),
        ('name = "x.jpg"', "Double quotes name a field; text goes in single quotes: 'x.jpg'"),
        ("width >", "not understood at line 1, column 7"),
        ("name = 'open", "not understood"),
        ("width = 'many'", "'width' holds whole numbers and compares with a number, not 'many'"),
        ("name = 3", "'name' holds text and compares with text in single quotes, not 3"),
        ("width = NULL", "write IS NULL"),
        ("good = 1", "compares with TRUE or FALSE"),
        ("good > TRUE", "> does not apply"),
        ("good IS TRUE", "IS goes with NULL"),
        ("width", "stands alone"),
        ("vector = 1", "fixed_size_list.* cannot be compared"),
        ("modified > 3", "compares with 'YYYY-MM-DD'"),
        ("modified > '2024-02-30'", "'2024-02-30' is not one"),
        ("modified > 'yesterday'", "'yesterday' is not one"),
        ("modified > '2024-05-01 25:00:00'", "is not one"),
        ("width > 99999999999999999999", "out of range"),
        ("score > 1e999", "out of range"),
        ("name = width", "cannot be compared with each other"),
        ("path < 'x'", "can have several values"),
        ("path BETWEEN 'a' AND 'b'", "has no order"),
        ("path = name", "several values"),
        ("name LIKE 'a' ESCAPE 'ab'", "ESCAPE needs one character"),
        ("name LIKE 'a!' ESCAPE '!'", "ends in its escape character"),
        ("width LIKE '1%'", "LIKE compares a text field"),
        ("x" * 30_000, "the limit is 20000"),
    ],
)
def test_errors_say_what_is_wrong(expression, message):
    with pytest.raises(FilterError, match=message):
        parse(expression, FIELDS)


def test_dates_are_utc(store):
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    fill(store, [{"modified": noon}, {"modified": noon + timedelta(microseconds=1)}])
    assert matching(store, "modified = '2024-05-01 12:00:00'") == [0]
    assert matching(store, "modified = '2024-05-01T12:00:00Z'") == [0]
    assert matching(store, "modified = '2024-05-01T14:00+02:00'") == [0]
    assert matching(store, "modified > '2024-05-01 12:00:00'") == [1]
    assert matching(store, "modified >= '2024-05-01' AND modified < '2024-05-02'") == [0, 1]


def test_a_long_chain_is_fine(store):
    fill(store, [{"width": number} for number in range(12)])
    assert matching(store, " OR ".join(f"width = {number}" for number in range(3, 800))) == list(range(3, 12))


def test_numbers_keep_their_precision(store):
    fill(store, [{"size_bytes": 2**53 + 1, "meta_score": math.pi}])
    assert matching(store, f"size_bytes = {2**53 + 1}") == [0]
    assert matching(store, f"size_bytes = {2**53}") == []
    assert matching(store, f"score = {math.pi!r}") == [0]
