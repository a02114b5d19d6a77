"""Random filters, each as text and as a function of a row, and random rows for them."""

import math
import operator
import re
from datetime import datetime, timedelta, timezone

import hypothesis.strategies as st
import pyarrow as pa

from nearsight.store import Field

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

TEXT = st.text(st.sampled_from("abAB%_'\\\"`/. -;é😀\n*([{^$|"), max_size=4)
WIDTHS = st.integers(-3, 3) | st.sampled_from([2**31 - 1, -(2**31)])
SIZES = st.integers(-3, 3) | st.sampled_from([2**40, -(2**62)])
SCORES = st.integers(-6, 6).map(lambda n: n / 2)
DATES = st.integers(-3, 3).map(
    lambda n: datetime(2024, 5, 1, tzinfo=UTC) + timedelta(hours=12 * n, microseconds=n)
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.none() | TEXT,
            "path": st.none() | TEXT,
            "other_paths": st.none() | st.lists(TEXT, max_size=3),
            "width": st.none() | WIDTHS,
            "size_bytes": st.none() | SIZES,
            "meta_score": st.none() | SCORES,
            "meta_Good one": st.none() | st.booleans(),
            "modified": st.none() | DATES,
        }
    ),
    min_size=12,
    max_size=12,
)
OPERATORS = {
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
                ("name", "name", TEXT, quoted),
                ("width", "width", WIDTHS, str),
                ("width", "width", SCORES, str),
                ("width", "width", st.sampled_from([2**40, -(2**40)]), str),
                ("size_bytes", "size_bytes", SIZES, str),
                ("score", "meta_score", SCORES, str),
                ("metadata.score", "meta_score", st.integers(-3, 3), str),
                (
                    "modified",
                    "modified",
                    DATES,
                    lambda d: f"'{d.isoformat(sep=' ').removesuffix('+00:00')}'",
                ),
                (
                    "modified",
                    "modified",
                    DATES,
                    lambda d: f"'{d.astimezone(timezone(timedelta(hours=2))).isoformat()}'",
                ),
            ]
        )
    )
    kind = draw(st.sampled_from(["compare", "flipped", "in", "between", "null"]))
    value, other = draw(literals), draw(literals)
    op = draw(st.sampled_from(list(OPERATORS)))
    test = known(OPERATORS[op])
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
    name, pattern, ignore_case = draw(st.sampled_from(["name", "path"])), draw(TEXT), draw(st.booleans())
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
    values = draw(st.lists(TEXT, min_size=1, max_size=2))
    kind = draw(st.sampled_from(["=", "!=", "IN", "NOT IN"]))
    if kind in ("=", "!="):
        values = values[:1]
        text = f"path {kind} {quoted(values[0])}"
    else:
        text = f"path {kind} ({', '.join(map(quoted, values))})"
    negate = sql_not if kind in ("!=", "NOT IN") else lambda v: v
    return text, lambda row: negate(any_path(row, lambda p: p in values))


OTHERS = st.sampled_from(
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


EXPRESSIONS = st.recursive(comparisons() | likes() | of_paths() | OTHERS, joined, max_leaves=5)

# What Python, the engine and Arrow might each compare in their own way.
_ODD_SCORES = st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 0.5, 2.0**53, 1e-320])
_ODD_TEXT = st.text(st.sampled_from("kKſsSßİiı\u0301é\n\r\\%_"), max_size=3)
ODD_ROWS = st.lists(
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
