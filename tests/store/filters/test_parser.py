"""Filters: an oracle evaluates random expressions in Python, on the rows of a real table."""

import math
import operator
import re
from datetime import datetime, timedelta, timezone

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from nearsight.errors import FilterError
from nearsight.store import Field, parse
from nearsight.store.lance.store import LanceStore

UTC = timezone.utc
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("path", pa.string()),
        ("other_paths", pa.list_(pa.string())),
        ("width", pa.int32()),
        ("size_bytes", pa.int64()),
        ("meta_score", pa.float64()),
        ("meta_Good one", pa.bool_()),
        ("modified", pa.timestamp("us", tz="UTC")),
        ("vector", pa.list_(pa.float32(), 2)),
    ]
)
FIELDS = {
    "id": pa.string(),
    "name": pa.string(),
    "path": Field("path", pa.string(), "other_paths"),
    "width": pa.int32(),
    "size_bytes": pa.int64(),
    "score": Field("meta_score", pa.float64()),
    "metadata.score": Field("meta_score", pa.float64()),
    "good": Field("meta_Good one", pa.bool_()),
    "modified": pa.timestamp("us", tz="UTC"),
    "vector": pa.list_(pa.float32(), 2),
}

_TEXT = st.text(st.sampled_from("abAB%_'\\\"`/. -;é😀\n*([{^$|"), max_size=4)
_WIDTHS = st.integers(-3, 3) | st.sampled_from([2**31 - 1, -(2**31)])
_SIZES = st.integers(-3, 3) | st.sampled_from([2**40, -(2**62)])
_SCORES = st.integers(-6, 6).map(lambda n: n / 2)
_DATES = st.integers(-3, 3).map(
    lambda n: datetime(2024, 5, 1, tzinfo=UTC) + timedelta(hours=12 * n, microseconds=n)
)
_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.none() | _TEXT,
            "path": st.none() | _TEXT,
            "other_paths": st.none() | st.lists(_TEXT, max_size=3),
            "width": st.none() | _WIDTHS,
            "size_bytes": st.none() | _SIZES,
            "meta_score": st.none() | _SCORES,
            "meta_Good one": st.none() | st.booleans(),
            "modified": st.none() | _DATES,
        }
    ),
    min_size=12,
    max_size=12,
)
_OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def known(function):
    """SQL: anything with a missing value is neither true nor false."""
    return lambda *values: None if any(value is None for value in values) else function(*values)


def sql_not(value):
    return None if value is None else not value


def sql_and(a, b):
    return False if a is False or b is False else None if a is None or b is None else True


def sql_or(a, b):
    return sql_not(sql_and(sql_not(a), sql_not(b)))


def like(pattern, escape, ignore_case):
    body, characters = "", iter(pattern)
    for character in characters:
        if character == escape:
            body += re.escape(next(characters))
        else:
            body += {"%": ".*", "_": "."}.get(character, re.escape(character))
    return re.compile(body, re.DOTALL | (re.IGNORECASE if ignore_case else 0)).fullmatch


def paths(row):
    return [row["path"], *(row["other_paths"] or [])]


def any_path(row, test):
    """True if any path passes; the first path may be missing, which is neither true nor false."""
    verdict = None if row["path"] is None else bool(test(row["path"]))
    return sql_or(verdict, any(test(other) for other in row["other_paths"] or []))


@st.composite
def comparisons(draw):
    """A simple condition as (text, function of a row)."""
    name, column, literals, as_sql = draw(
        st.sampled_from(
            [
                ("name", "name", _TEXT, quoted),
                ("width", "width", _WIDTHS, str),
                ("width", "width", _SCORES, str),
                ("width", "width", st.sampled_from([2**40, -(2**40)]), str),
                ("size_bytes", "size_bytes", _SIZES, str),
                ("score", "meta_score", _SCORES, str),
                ("metadata.score", "meta_score", st.integers(-3, 3), str),
                (
                    "modified",
                    "modified",
                    _DATES,
                    lambda d: f"'{d.isoformat(sep=' ').removesuffix('+00:00')}'",
                ),
                (
                    "modified",
                    "modified",
                    _DATES,
                    lambda d: f"'{d.astimezone(timezone(timedelta(hours=2))).isoformat()}'",
                ),
            ]
        )
    )
    kind = draw(st.sampled_from(["compare", "flipped", "in", "between", "null"]))
    value, other = draw(literals), draw(literals)
    op = draw(st.sampled_from(list(_OPERATORS)))
    test = known(_OPERATORS[op])
    negated = draw(st.booleans())
    no, maybe = ("NOT ", sql_not) if negated else ("", lambda v: v)
    if kind == "compare":
        return f"{name} {op} {as_sql(value)}", lambda row: test(row[column], value)
    if kind == "flipped":
        return f"{as_sql(value)} {op} {name}", lambda row: test(value, row[column])
    if kind == "in":
        among = known(lambda v: v in (value, other))
        return f"{name} {no}IN ({as_sql(value)}, {as_sql(other)})", lambda row: maybe(among(row[column]))
    if kind == "between":
        within = known(lambda v: value <= v <= other)
        return f"{name} {no}BETWEEN {as_sql(value)} AND {as_sql(other)}", lambda row: maybe(
            within(row[column])
        )
    return f"{name} IS {no}NULL", lambda row: (row[column] is None) != negated


@st.composite
def likes(draw):
    name, pattern, ignore_case = draw(st.sampled_from(["name", "path"])), draw(_TEXT), draw(st.booleans())
    escape = draw(st.sampled_from([None, "\\", "a"]))
    negated, operator_ = draw(st.booleans()), "ILIKE" if ignore_case else "LIKE"
    if escape and (
        len(re.match(f"^(.*?)({re.escape(escape)}*)$", pattern, re.DOTALL)[2]) % 2 or pattern.endswith(escape)
    ):
        pattern += escape + "%" if not pattern.endswith(escape) else ""
        escape = None if pattern.endswith(escape) else escape
    matches = like(pattern, escape, ignore_case)
    text = f"{name} {'NOT ' if negated else ''}{operator_} {quoted(pattern)}" + (
        f" ESCAPE '{escape}'" if escape else ""
    )

    def verdict(row):
        if name == "name":
            found = None if row["name"] is None else matches(row["name"]) is not None
        else:
            found = any_path(row, lambda p: matches(p) is not None)
        return sql_not(found) if negated else found

    return text, verdict


@st.composite
def of_paths(draw):
    values = draw(st.lists(_TEXT, min_size=1, max_size=2))
    kind = draw(st.sampled_from(["=", "!=", "IN", "NOT IN"]))
    if kind in ("=", "!="):
        values = values[:1]
        text = f"path {kind} {quoted(values[0])}"
    else:
        text = f"path {kind} ({', '.join(map(quoted, values))})"
    negate = sql_not if kind in ("!=", "NOT IN") else lambda v: v
    return text, lambda row: negate(any_path(row, lambda p: p in values))


_OTHERS = st.sampled_from(
    [
        ("good", lambda row: row["meta_Good one"]),
        ("good = FALSE", lambda row: known(operator.not_)(row["meta_Good one"])),
        ("good != true", lambda row: known(operator.not_)(row["meta_Good one"])),
        ("width < size_bytes", lambda row: known(operator.lt)(row["width"], row["size_bytes"])),
        ("score >= width", lambda row: known(operator.ge)(row["meta_score"], row["width"])),
    ]
)


def joined(conditions):
    def pair(parts):
        (a, f), op, (b, g) = parts
        function = sql_and if op == "AND" else sql_or
        return f"({a} {op} {b})", lambda row: function(f(row), g(row))

    return st.tuples(conditions, st.sampled_from(["AND", "OR"]), conditions).map(pair) | conditions.map(
        lambda part: (f"NOT ({part[0]})", lambda row: sql_not(part[1](row)))
    )


_EXPRESSIONS = st.recursive(comparisons() | likes() | of_paths() | _OTHERS, joined, max_leaves=5)


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
@given(found=_ROWS, expressions=st.lists(_EXPRESSIONS, min_size=20, max_size=20))
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
