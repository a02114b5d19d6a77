"""A collection in Qdrant: the conformance suites, in the client's local mode."""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nearsight.cli.main import cli
from nearsight.collection import writer
from nearsight.errors import InvalidParameterError
from nearsight.store import Field, create_store, open_store, parse
from nearsight.store.filters.arrow import matching_rows
from nearsight.testing import LocationTests, StoreTests
from nearsight.testing.stores import SCHEMA, ids_of, rows, vectors_of
from nearsight_qdrant.server import client_of, parse_address


@pytest.fixture(autouse=True)
def _files(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path_factory.mktemp("files")))


@pytest.fixture
def folder():
    # The local mode waits for the disk after each point: where there is one, a disk in memory.
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield folder


@pytest.mark.slow
class TestQdrant(StoreTests):
    @pytest.fixture(autouse=True)
    def _folder(self, folder):
        self.folder = folder

    def place(self, directory):
        return f"qdrant://{self.folder}?collection={directory.name}"

    def make(self, directory):
        return create_store(self.place(directory), SCHEMA)

    def reopen(self, directory):
        return open_store(self.place(directory))


@pytest.mark.slow
class TestQdrantLocation(LocationTests):
    @pytest.fixture(autouse=True)
    def _folder(self, folder):
        self.folder = folder

    def uri(self, directory):
        return f"qdrant://{self.folder}?collection={directory.name}"

    def unreachable_uri(self, directory):
        return "qdrant://127.0.0.1:1?collection=photos"


FIELDS = {
    "path": Field("path", pa.string(), "other_paths"),
    "name": Field("path", pa.string()),
    "width": pa.int32(),
    "modified": pa.timestamp("us", tz="UTC"),
}
_LEAVES = st.sampled_from(
    [
        "path = 'a'", "path != 'b'", "path IN ('a', 'c')", "path LIKE '%a%'", "path IS NULL",
        "name < 'b'", "name != 'b'", "path NOT LIKE 'b_'",
        "width = 3", "width != 3", "width < 4", "width >= 2.5", "width IS NOT NULL", "width IN (1, 2)",
        "modified < '2020-01-01'", "modified >= '2020-01-01'", "modified IS NULL",
    ]
)  # fmt: skip
_CONDITIONS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def filtered(tmp_path_factory):
    store = create_store(f"qdrant://{tmp_path_factory.mktemp('filters')}?collection=c", SCHEMA)
    rng = np.random.default_rng(0)

    def some(values):
        return [values[i] for i in rng.integers(0, len(values), 80)]

    table = rows(
        [f"{i:02}" for i in range(80)],
        path=some(["a", "b", "ba", "", None]),
        other_paths=some([["a"], ["c", "b"], [], None]),
        width=some([1, 2, 3, 4, None]),
        modified=some([1_500_000_000_000_000, 1_700_000_000_123_456, None]),
    )
    store.append(table)
    return store, table


@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=_CONDITIONS)
def test_filters_match_the_rows_that_arrow_matches(filtered, text):
    store, table = filtered
    where = parse(text, FIELDS)
    expected = np.array(table["id"].to_pylist())[matching_rows(where, table)].tolist()
    assert ids_of(store, where=where) == expected
    assert store.count(where) == len(expected)
    found = store.search(vectors_of(1), 100, where=where)[0]
    assert sorted(hit.id for hit in found) == expected


def test_numbers_that_json_does_not_know(tmp_path):
    store = create_store(f"qdrant://{tmp_path}?collection=c", SCHEMA)
    store.add_columns([pa.field("score", pa.float64())])
    store.append(rows(["a", "b", "c"]).append_column("score", pa.array([np.nan, np.inf, -0.5])))
    found = {row["id"]: row["score"] for batch in store.scan(["id", "score"]) for row in batch.to_pylist()}
    assert np.isnan(found.pop("a"))
    assert found == {"b": np.inf, "c": -0.5}
    assert ids_of(store, where=parse("score < 0", {"score": pa.float64()})) == ["c"]


def test_vectors_keep_their_length(tmp_path):
    store = create_store(f"qdrant://{tmp_path}?collection=c", SCHEMA)
    X = vectors_of(1, 2) * np.array([[3.0], [0.5]], np.float32)
    store.append(rows(["a", "b"], X))
    [batch] = store.scan(["id", "vector"])
    found = {row["id"]: row["vector"] for row in batch.to_pylist()}
    np.testing.assert_allclose([found["a"], found["b"]], X, rtol=1e-6)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("qdrant://host", "must be a name"),
        ("qdrant://host?collection=a.b", "must be a name"),
        ("qdrant://?collection=a", "neither a server nor a directory"),
        ("qdrant://host?collection=a&colour=red", "unknown options"),
        ("qdrant://host:port?collection=a&api_key=secret", "cannot be read; write qdrant://host:6333"),
        ("qdrant://[host?collection=a", "cannot be read"),
    ],
)
def test_incomplete_uris_are_refused(uri, message):
    with pytest.raises(InvalidParameterError, match=message):
        parse_address(uri)


def test_no_key_is_shown():
    address = parse_address("qdrant://host?collection=a&api_key=secret&tls=1")
    assert (address.key, address.url) == ("secret", "https://host:6333")
    assert "secret" not in f"{address} {address.shown}"


def test_each_key_has_a_connection_of_its_own():
    one, same, other = (
        client_of(parse_address(f"qdrant://127.0.0.1:1?collection={name}&api_key={key}&tls=1"))
        for name, key in (("a", "1"), ("b", "1"), ("a", "2"))
    )
    assert one is same
    assert one is not other


@pytest.mark.slow
def test_a_collection_by_the_command_line(tmp_path, monkeypatch):
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((80, 60)).save(tmp_path / f"{seed}.png")
    monkeypatch.setenv("NEARSIGHT_COLLECTION", f"qdrant://{tmp_path}/qdrant?collection=photos")

    def run(*words):
        result = CliRunner().invoke(cli, [str(word) for word in words])
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads(result.stdout)

    # In more than one write, as of many images.
    monkeypatch.setattr(writer, "_ROWS_PER_WRITE", 1)
    assert run("index", tmp_path, "--exclude", "qdrant", "--json")["added"] == 4
    assert run("info", "--json")["images"] == 4
    [first, *_] = run("search", tmp_path / "2.png", "-k", 2, "--json")["hits"]
    assert first["path"].endswith("2.png")
    assert run("search", tmp_path / "2.png", "--where", "width > 100", "--json")["hits"] == []
    # To another model, back, and there again, for good.
    tables = tmp_path / "qdrant" / "collection"
    for words, dim, n_stores in (
        (["upgrade", "--to", "efficientnet-lite0#layers"], 2528, 2),
        (["rollback"], 1280, 2),
        (["upgrade", "--to", "efficientnet-lite0#layers"], 2528, 2),
        (["upgrade", "--commit"], 2528, 1),
    ):
        run(*words, "--json")
        facts = run("info", "--json")
        assert (facts["images"], facts["dim"]) == (4, dim)
        assert len(list(tables.glob("photos.store*"))) == n_stores
        [first] = run("search", tmp_path / "2.png", "-k", 1, "--json")["hits"]
        assert first["path"].endswith("2.png")
