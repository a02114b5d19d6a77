"""A text is found in whatever form of Unicode it is stored and typed."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest

from nearsight.store import create_store, parse
from nearsight.store.filters.unicode_forms import in_both_forms

NFC, NFD = (unicodedata.normalize(form, "caf\xe9") for form in ("NFC", "NFD"))
FIELDS = {"name": pa.string(), "n": pa.int64()}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    schema = pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("name", pa.string()),
            pa.field("n", pa.int64()),
            pa.field("vector", pa.list_(pa.float32(), 2)),
        ]
    )
    store = create_store(tmp_path_factory.mktemp("store"), schema)
    names = [NFC, NFD, "tea", None]
    columns = [["0", "1", "2", "3"], names, [0, 1, 2, 3], list(np.ones((4, 2), np.float32))]
    store.append(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema))
    return store


@pytest.mark.parametrize("typed", [NFC, NFD])
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("name = '{}'", [0, 1]),
        ("name != '{}'", [2]),
        ("NOT name = '{}'", [2]),
        ("name IN ('{}', 'tea')", [0, 1, 2]),
        ("name NOT IN ('{}')", [2]),
        ("name LIKE '%{}'", [0, 1]),
        ("name NOT LIKE '{}%'", [2]),
        ("name ILIKE '{}' AND n > 0", [1]),
        ("name = 'tea' OR name = '{}'", [0, 1, 2]),
        ("name = 'tea' AND name != '{}'", [2]),
        ("n IN (1, 3) AND (name IS NULL OR name = '{}')", [1, 3]),
    ],
)
def test_both_forms_match(store, typed, expression, expected):
    condition = in_both_forms(parse(expression.format(typed), FIELDS))
    rows = [n for batch in store.scan(["n"], condition) for n in batch.column("n").to_pylist()]
    assert rows == expected


def test_filters_without_such_texts_stay_as_they_are():
    condition = parse("name LIKE 'a%' AND (n = 1 OR NOT name IN ('b', 'c')) AND name IS NULL", FIELDS)
    assert in_both_forms(condition) == condition
