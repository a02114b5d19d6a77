"""Rows that are read without the engine are those that the engine reads, or it reads them."""

import os

import numpy as np
import pyarrow as pa
import pytest

from nearsight.store import create_store, open_store, parse
from nearsight.store.lance import nearest
from nearsight.store.lance.data_file import read_column
from nearsight.store.lance.manifest_file import UnknownLayoutError
from nearsight.testing.stores import vector_array

pytestmark = pytest.mark.skipif(not hasattr(os, "pread"), reason="the engine reads all rows on this system")

DIM = 1024
TYPES = {
    "text": pa.string(),
    "kind": pa.string(),
    "number": pa.float64(),
    "is_set": pa.bool_(),
    "whole": pa.int32(),
    "added": pa.timestamp("us", tz="UTC"),
    "nothing": pa.string(),
    "thumbnail": pa.binary(),
}


def rows(first, n, dtype, share_null):
    """Rows of all types, some without values."""
    rng = np.random.default_rng(first)

    def some(values):
        return [None if rng.random() < share_null else value for value in values]

    numbers = range(first, first + n)
    columns = {
        "text": some("ä" * (number % 7) + str(number) for number in numbers),
        "kind": some(f"kind {number % 4}" for number in numbers),  # few values, so they are numbered
        "number": some(number / 4 for number in numbers),
        "is_set": some(number % 3 == 0 for number in numbers),
        "whole": some(numbers),
        "added": some(numbers),
        "nothing": [None] * n,
        "thumbnail": some(b"\0" * (number % 5) for number in numbers),
    }
    vectors = vector_array(rng.standard_normal((n, DIM)).astype(dtype))
    arrays = {name: pa.array(columns[name], type_) for name, type_ in TYPES.items()}
    return pa.table({"id": [f"{number:05}" for number in numbers], **arrays, "vector": vectors})


@pytest.fixture(scope="module", params=["float32", "float16"])
def store(request, tmp_path_factory):
    """A store with several pages, null values, and columns that were added and rewritten."""
    vector = pa.list_({"float32": pa.float32(), "float16": pa.float16()}[request.param], DIM)
    schema = pa.schema([("id", pa.string()), *TYPES.items(), ("vector", vector)])
    store = create_store(tmp_path_factory.mktemp("rows") / "store", schema)
    # In parts, since a part is never divided into pages.
    store.append(pa.concat_tables(rows(first, 1500, np.float32, 0.3) for first in range(0, 6000, 1500)))
    store.append(rows(6000, 40, np.float32, 0))
    store.add_columns([pa.field("later", pa.string()), pa.field("empty", pa.float64())])
    ids = [f"{number:05}" for number in range(0, 6000, 2)]
    store.update(pa.table({"id": ids, "later": [f"later {id}" for id in ids]}))  # in place
    store.update(pa.table({"id": ["00003"], "whole": pa.array([7], pa.int32())}))  # moves
    store.delete([f"{number:05}" for number in range(5, 1000, 7)])
    store.append(rows(6040, 1, np.float32, 0))
    return store


def test_all_cells_are_those_that_the_engine_reads(store):
    table = store._rows
    addresses = table.addresses()
    names = [name for name in table.schema.names if name != "thumbnail"]
    own = table.files.at(table.version, table.schema)
    assert own.are_readable(names)
    taken = pa.Table.from_batches([own.take(addresses.tolist(), names)])
    assert taken.num_rows == 6041 - 143
    assert taken.equals(table.take(addresses, names).cast(taken.schema))
    pages = {len(column.pages) for column in table.files._columns.values()}
    assert max(pages) > 1
    assert own.vectors(addresses).shape == (taken.num_rows, DIM)


def test_binary_cells_of_few_rows_are_found_too(store):
    [hits] = store.search(np.ones((1, DIM), np.float32), 6000, columns=["thumbnail"], exact=True)
    few = store.search(np.ones((1, DIM), np.float32), 500, columns=["thumbnail"], exact=True)[0]
    assert few == hits[:500]


@pytest.mark.parametrize("where", [None, "number < 100", "number < 0"])
@pytest.mark.parametrize("n_queries", [1, 3])
def test_a_search_finds_what_the_engine_finds(store, monkeypatch, where, n_queries):
    queries = np.random.default_rng(5).standard_normal((n_queries, DIM)).astype(np.float32)
    condition = parse(where, TYPES) if where else None
    columns = [*TYPES, "later"]

    def search():
        return store.search(queries, 10, where=condition, columns=columns)

    found = search()
    assert store._rows.files.refused == -1
    monkeypatch.setattr(nearest, "_MAX_ROWS", 0)
    for own, expected in zip(found, search(), strict=True):
        assert [(hit.id, hit.row) for hit in own] == [(hit.id, hit.row) for hit in expected]
        assert [hit.similarity for hit in own] == pytest.approx(
            [hit.similarity for hit in expected], abs=1e-5
        )


def test_files_that_are_not_known_are_left_to_the_engine(tmp_path, monkeypatch):
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("vector", pa.list_(pa.float32(), 4))])
    create_store(tmp_path / "store", schema).append(
        pa.table({"id": ["a", "b"], "text": ["x", None], "vector": vector_array(np.eye(2, 4, dtype="f4"))})
    )
    store = open_store(tmp_path / "store")
    [path] = tmp_path.glob("store/pictures.lance/data/*.lance")
    assert read_column(path, 1).n_rows == 2
    with pytest.raises(UnknownLayoutError, match="no column 9"):
        read_column(path, 9)
    monkeypatch.setattr("nearsight.store.lance.data_file._VERSION", (2, 1))
    with pytest.raises(UnknownLayoutError, match="version"):
        read_column(path, 1)
    [hits] = store.search(np.eye(1, 4, dtype=np.float32), 2, columns=["text"])
    assert [(hit.id, hit.row) for hit in hits] == [("a", {"text": "x"}), ("b", {"text": None})]
    assert store._rows.files.refused == store._rows.version
    assert store._rows.files.at(store._rows.version, schema) is None
