"""A collection in Milvus: the conformance suites, on a real server."""

import base64
import json
from dataclasses import replace
from itertools import count

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from nearsight import Collection
from nearsight.collection import copy_collection
from nearsight.doctor import check_store
from nearsight.errors import InvalidParameterError, RowsRefusedError, StorageError
from nearsight.store import create_store, locate, open_store, parse
from nearsight.store.filters.arrow import matching_rows
from nearsight.store.milvus.address import parse_address
from nearsight.store.milvus.entry import MARK
from nearsight.store.milvus.expressions import COLUMNS, among
from nearsight.testing import LocationTests, StoreTests
from nearsight.testing.stores import FIELDS as FILTER_FIELDS
from nearsight.testing.stores import SCHEMA, fetch, ids_of, rows, vector_array, vectors_of

from fake import FakeBackend
from filter_expressions import EXPRESSIONS, FIELDS, ROWS
from filter_expressions import SCHEMA as FILTERED


@pytest.mark.slow
class TestMilvus(StoreTests):
    # A call waits for the server's clock.
    n_examples = 5

    @pytest.fixture(autouse=True)
    def _server(self, uri):
        self.uri = uri

    def place(self, directory):
        return f"{self.uri}_{directory.name}"

    def make(self, directory):
        return create_store(self.place(directory), SCHEMA)

    def reopen(self, directory):
        return open_store(self.place(directory))


@pytest.mark.slow
class TestMilvusLocation(LocationTests):
    # Milvus 2.3 does not.
    says_size = False

    @pytest.fixture(autouse=True)
    def _server(self, uri, server):
        self.base, self.port = uri, server.port

    def uri(self, directory):
        return f"{self.base}_{directory.name}"

    def unreachable_uri(self, directory):
        return self.base.replace(f":{self.port}?", ":1?")


@pytest.fixture(scope="module")
def filtered(server, tmp_path_factory):
    """Rows with every kind of value, missing ones too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARSIGHT_FILES", str(tmp_path_factory.mktemp("files")))
        store = create_store(f"{server.uri}?collection=filtered", FILTERED)
        found = []

        @settings(max_examples=12, derandomize=True, database=None)
        @given(ROWS)
        def draw(rows):
            found.extend(rows)

        draw()
        rows = [{"id": f"{i:03}", **row, "vector": [1.0, 0.0]} for i, row in enumerate(found)]
        table = pa.Table.from_pylist(rows, schema=FILTERED)
        store.append(table)
        yield store, table


@pytest.mark.slow
@settings(max_examples=150)
@given(expression=EXPRESSIONS)
def test_filters_match_the_rows_that_arrow_matches(filtered, expression):
    store, table = filtered
    where = parse(expression[0], FIELDS)
    expected = [
        id for id, is_in in zip(table["id"].to_pylist(), matching_rows(where, table), strict=True) if is_in
    ]
    assert ids_of(store, where=where) == expected
    assert store.count(where) == len(expected)


@pytest.mark.slow
@pytest.mark.parametrize("index", ["HNSW", "IVF_SQ8", "IVF_FLAT", "FLAT"])
def test_every_index_finds_the_nearest_with_and_without_a_filter(uri, index):
    dim, n_rows = 64, 6000
    schema = pa.schema([*(SCHEMA.field(name) for name in ("id", "width")),
                        pa.field("vector", pa.list_(pa.float32(), dim))])  # fmt: skip
    # No clusters, and so many rows that the server searches those without an index by 16 of 128 lists; of
    # filters, one that its graph would be walked for.
    X = vectors_of(*range(n_rows), dim=dim)
    store = create_store(f"{uri}&index={index}", schema)
    store.append(
        pa.table(
            {
                "id": [f"{i:04}" for i in range(n_rows)],
                "width": pa.array(range(n_rows), pa.int32()),
                "vector": vector_array(X),
            }
        )
    )
    queries = vectors_of(*range(n_rows, n_rows + 20), dim=dim)
    for is_optimized in (False, True):
        if is_optimized:
            store.optimize()
            assert store._server.index_state(store._table) == (index, 0)
        for n_matching in (n_rows, n_rows // 10, n_rows // 100, n_rows // 1000):
            least = n_rows - n_matching
            where = parse(f"width >= {least}", FILTER_FIELDS) if least else None
            found = store.search(queries, 10, where=where, columns=["width", "vector"])
            n_right = 0
            for query, hits in zip(queries, found, strict=True):
                nearest = least + np.argsort(-(X[least:] @ query))[:10]
                assert len(hits) == len(nearest)
                n_right += len({hit.id for hit in hits} & {f"{i:04}" for i in nearest})
                scores = [float(X[int(hit.id)] @ query) for hit in hits]
                np.testing.assert_allclose([hit.similarity for hit in hits], scores, atol=1e-5)
                assert [hit.row["width"] for hit in hits] == [int(hit.id) for hit in hits]
                np.testing.assert_allclose(hits[0].row["vector"], X[int(hits[0].id)], atol=1e-6)
            # Without a filter, lists are searched by the quarter.
            goal = 0.9 if is_optimized and index.startswith("IVF") and not where else 0.99
            assert n_right >= goal * sum(map(len, found)), (index, is_optimized, n_matching)


@pytest.mark.slow
def test_rows_without_an_index_are_compared_however_many_match(uri, monkeypatch):
    """The server would find five in six of them, and one in three with a narrow filter."""
    monkeypatch.setattr("nearsight.store.milvus.search.MAX_COMPARED", 50)
    dim, n_rows = 64, 8000
    schema = pa.schema(
        [SCHEMA.field("id"), SCHEMA.field("width"), pa.field("vector", pa.list_(pa.float32(), dim))]
    )
    X, queries = vectors_of(*range(n_rows), dim=dim), vectors_of(*range(n_rows, n_rows + 10), dim=dim)
    store = create_store(uri, schema)

    def append(start, stop):
        ids, width = [f"{i:04}" for i in range(start, stop)], pa.array(range(start, stop), pa.int32())
        store.append(pa.table({"id": ids, "width": width, "vector": vector_array(X[start:stop])}))

    def check(n_rows):
        for least in (0, n_rows - 100):
            where = parse(f"width >= {least}", FILTER_FIELDS) if least else None
            found = [[hit.id for hit in own] for own in store.search(queries, 10, where=where)]
            order = least + np.argsort(-(queries @ X[least:n_rows].T), axis=1)[:, :10]
            assert found == [[f"{i:04}" for i in own] for own in order]

    append(0, 6000)
    check(6000)
    # As an earlier version wrote it: then all rows are compared.
    entry = store._read_entry()
    store._write_entry(replace(entry, is_marked=False))
    check(6000)
    store.optimize()
    assert store._read_entry().is_marked
    append(6000, n_rows)
    entry, n_compared = store._read_entry(), []
    pages = store._server.pages
    monkeypatch.setattr(
        store._server, "pages", lambda *a: (n_compared.append(len(page)) or page for page in pages(*a))
    )
    assert store._search.is_indexed(entry) is False
    store.search(queries, 1)
    n_compared.clear()
    check(n_rows)
    # Of the first search the new ones, of the second those of them that match.
    assert n_compared == [2000, 100]


@pytest.mark.slow
def test_the_longest_row_is_held_and_a_longer_one_is_named(uri):
    from nearsight.store.milvus.store import MAX_ROW_BYTES, key_of

    store = create_store(uri, SCHEMA)
    store.append(rows(["a", "b"]))
    [row, _] = store._server.read(store._table, "", [COLUMNS], 2)
    others = {name: value for name, value in row[COLUMNS].items() if name != MARK}
    n_text = MAX_ROW_BYTES - len(json.dumps({**others, "path": ""}, separators=(",", ":")))
    texts = ["é" * (n_text // 2) + "x" * (n_text % 2), "é" * 20_000 + '"' * 20_000]
    with pytest.raises(RowsRefusedError, match="b: it takes 80,.* of which 'path' 80,002, and Milvus holds"):
        store.update(rows(["a", "b"], path=texts))
    store.update(rows(["a"], path=texts[:1]))
    assert fetch(store, ["path"]) == [{"id": "a", "path": texts[0]}, {"id": "b", "path": None}]
    [row] = store._server.read(store._table, among([key_of("a")]), [COLUMNS])
    # With the mark, which changes.
    n_bytes = len(json.dumps(row[COLUMNS], ensure_ascii=False, separators=(",", ":")).encode())
    assert MAX_ROW_BYTES < n_bytes <= 65_535
    with pytest.raises(RowsRefusedError, match="a: .*'path'"):
        store.update(rows(["a"], path=[f"{texts[0]}xx"]))
    n_image = (MAX_ROW_BYTES - 16) // 4 * 3
    with pytest.raises(RowsRefusedError, match="of which 'thumbnail'"):
        store.append(rows(["c", "d"], thumbnail=[bytes(n_image), bytes(n_image + 3)]))
    store.append(rows(["c"], thumbnail=[bytes(n_image)]))
    assert fetch(store, ["thumbnail"], ids=["c", "d"]) == [{"id": "c", "thumbnail": bytes(n_image)}]


@pytest.mark.slow
def test_more_than_an_answer_may_hold_is_read(uri):
    store, n_rows = create_store(uri, SCHEMA), 2000
    ids = [f"{i:04}" for i in range(n_rows)]
    paths = [f"{i} {'x' * 60_000}" for i in range(n_rows)]
    store.append(rows(ids, vectors_of(*range(n_rows)), path=paths))
    assert [row["path"] for row in fetch(store, ["path"])] == paths
    [hits] = store.search(vectors_of(7), 3, where=parse("path LIKE '%7 x%'", FILTER_FIELDS))
    sevens = [i for i in range(n_rows) if i % 10 == 7]
    nearest = np.argsort(-(vectors_of(*sevens) @ vectors_of(7)[0]))[:3]
    assert [hit.id for hit in hits] == [f"{sevens[i]:04}" for i in nearest]


@pytest.mark.slow
def test_a_long_document_is_whole_whenever_a_writer_dies(uri, monkeypatch):
    monkeypatch.setattr("nearsight.store.milvus.documents._ROWS_AT_ONCE", 2)
    location = locate(uri)
    short, long, longer = b"short", bytes(range(256)) * 800, bytes(range(255, -1, -1)) * 1200
    location.write_document("a", short)
    documents, server, before = location._documents, location._server, short
    # A row as versions before had it.
    [row] = server.read("nearsight_documents", among([documents._key("a")]), ["content"])
    assert row["content"] == base64.b64encode(short).decode()
    for content in (long, longer, long, short, longer):
        for n_writes in count():
            try:
                dying(uri, n_writes).write_document("a", content)
                break
            except DeadError:
                # Until the head is written, the old one is there, and the new one then.
                assert locate(uri).read_document("a") in (before, content)
        assert n_writes >= (1 if content is short else 4)
        assert locate(uri).read_document("a") == location.read_document("a") == content
        before = content
    location.write_document("b", long)
    for n_writes in count():
        try:
            dying(uri, n_writes).delete_document("a")
            break
        except DeadError:
            assert locate(uri).read_document("a") in (longer, None)
    assert location.read_document("a") is None
    assert location.read_document("b") == long
    keys = [row["key"] for page in server.pages("nearsight_documents", "", []) for row in page]
    assert not [key for key in keys if key.startswith(documents._key("a"))]


class DeadError(Exception):
    pass


def dying(uri, n_writes):
    """Return a location whose server takes so many writes."""
    location = locate(uri)
    location._documents.read("a")
    server, left = location._server, [n_writes]

    def stopped(function):
        def call(*arguments):
            if left[0] == 0:
                raise DeadError
            left[0] -= 1
            return function(*arguments)

        return call

    server.write, server.delete = stopped(server.write), stopped(server.delete)
    return location


@pytest.mark.slow
def test_a_reader_of_a_long_document_goes_on_when_it_is_replaced_meanwhile(uri, monkeypatch):
    location, writer = locate(uri), locate(uri)
    one, other = bytes(100_000), bytes([1]) * 100_000
    location.write_document("a", one)
    join, n_joined = location._documents._join, []

    def replacing(key, head):
        n_joined.append(head)
        if len(n_joined) == 1:
            writer.write_document("a", other)
        return join(key, head)

    monkeypatch.setattr(location._documents, "_join", replacing)
    assert location.read_document("a") == other
    assert len(n_joined) == 2


@pytest.mark.slow
def test_fewer_than_match_are_never_called_all(uri, monkeypatch):
    store = create_store(uri, SCHEMA)
    store.append(rows([f"{i:02}" for i in range(50)], vectors_of(*range(50)), width=list(range(50))))
    search = store._server.search
    # An index that loses rows, as has been seen of Milvus with narrow filters.
    monkeypatch.setattr(store._server, "search", lambda *all: [hits[:3] for hits in search(*all)])
    hits = store.search(vectors_of(3), 10, where=parse("width < 20", FILTER_FIELDS))[0]
    expected = np.argsort(-(vectors_of(*range(20)) @ vectors_of(3)[0]))[:10]
    assert [hit.id for hit in hits] == [f"{i:02}" for i in expected]


@pytest.mark.slow
def test_doctor_checks_the_server_and_the_index(uri):
    assert [(check.name, check.status) for check in check_store(uri)] == [
        ("server", "ok"), ("encryption", "ok"),
    ]  # fmt: skip
    store = create_store(f"{uri}&index=HNSW", SCHEMA)
    store.append(rows(["a", "b"]))
    found = {check.name: check for check in check_store(uri)}
    assert found["server"].detail.startswith("Milvus 2.")
    assert found["index"].detail.startswith("HNSW")
    # Port 1 answers nobody; the name of the machine is not asked for.
    [away] = check_store("milvus://ann:secret@127.0.0.1:1?collection=a")
    assert (away.status, bool(away.fix), "secret" in away.detail) == ("fail", True, False)


@pytest.mark.slow
def test_rows_and_documents_are_sealed(uri, server):
    store = create_store(uri, SCHEMA)
    store.append(rows(["a", "b"], thumbnail=[b"1", b"2"]))
    store.maintain()
    client = pytest.importorskip("pymilvus").MilvusClient(uri=server.uri.replace("milvus", "http"))

    def n_sealed(table):
        return sum(part.num_rows for part in client.list_persistent_segments(table))

    for table in (store._table, store._binary, "nearsight_documents"):
        assert n_sealed(table) > 0, table
    # More that comes soon after it waits for more yet, or for who asks.
    store.append(rows(["c"]))
    store.maintain()
    assert n_sealed(store._table) == 2
    store.optimize()
    assert n_sealed(store._table) == 3
    assert store.count() == 3


@pytest.mark.slow
def test_rows_outlive_a_killed_server(uri, server):
    store = create_store(uri, SCHEMA)
    store.append(rows(["a", "b"], thumbnail=[b"1", b"2"]))
    # What is not sealed is in the server's log only, of which it has lost rows when it was killed often.
    store.maintain()
    server.kill()
    with pytest.raises(StorageError, match="the server is away.*run the same command again"):
        store.count()
    server.start()
    again = open_store(uri)
    assert fetch(again, ["thumbnail"]) == [{"id": "a", "thumbnail": b"1"}, {"id": "b", "thumbnail": b"2"}]
    assert again.search(vectors_of(1), 1)[0][0].id == "b"


@pytest.mark.slow
def test_a_collection_is_copied_there_and_back(uri, photos, tmp_path):
    source = Collection.create(tmp_path / "source", model=FakeBackend())
    source.add(photos, metadata={"shelf": "top", "price": 9.5})
    assert copy_collection(tmp_path / "source", uri, verify=True).n_copied == 6
    assert copy_collection(uri, tmp_path / "back", verify=True).n_copied == 6
    one, two = (list(Collection.open(place).items()) for place in (tmp_path / "source", tmp_path / "back"))
    by_id = {item.id: item for item in two}
    assert [by_id[item.id] for item in one] == one


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("milvus://?collection=a", "names no server"),
        ("milvus://host", "names no collection"),
        ("milvus://host?collection=a-b", "names no collection"),
        ("milvus://host?collection=a&color=red", "unknown options"),
        ("milvus://host?collection=a&index=LSH", "must be one of FLAT"),
        ("milvus://host?collection=a&replicas=0", "must be a whole number"),
    ],
)
def test_incomplete_uris_are_refused(uri, message):
    with pytest.raises(InvalidParameterError, match=message):
        parse_address(uri)


def test_no_password_is_shown():
    address = parse_address("milvus://ann:se%2Fcret@host/?collection=a&tls=1")
    assert (address.token, address.url) == ("ann:se/cret", "https://host:19530")
    assert "cret" not in f"{address} {address.shown}"
    assert "cret" not in parse_address("milvus://host?collection=a&token=secret").shown


def test_a_call_that_took_too_long_is_an_error_of_ours(monkeypatch):
    """The client passes on what gRPC raises."""
    grpc, _ = pytest.importorskip("grpc"), pytest.importorskip("pymilvus")
    from nearsight.store.milvus import server as servers

    class LateError(grpc.RpcError):
        def details(self):
            return "Deadline Exceeded"

    class Client:
        n_late = 0

        def has_collection(self, table):
            raise LateError

        def query(self, table, **options):
            if self.n_late:
                self.n_late -= 1
                raise LateError
            return [{"count(*)": 7}]

    address, client = parse_address("milvus://host?collection=a"), Client()
    monkeypatch.setitem(servers._CLIENTS, (address.url, "", ""), client)
    server = servers.Server(address)
    with pytest.raises(StorageError, match="host.*the server is late or away: Deadline Exceeded. Check host"):
        server.has("a")
    # Who writes waits for a server that builds an index; who searches is told.
    client.n_late = 4
    assert server.count("a", "", patiently=True) == 7
    for n_late, patiently in ((1, False), (5, True)):
        client.n_late = n_late
        with pytest.raises(StorageError, match="late"):
            server.count("a", "", patiently=patiently)
