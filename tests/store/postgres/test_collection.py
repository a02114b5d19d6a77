"""A collection in PostgreSQL through the command line, and what is the engine's own duty."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from click.testing import CliRunner

from nearsight import Collection
from nearsight.cli.main import cli
from nearsight.collection import copy_collection
from nearsight.errors import NotACollectionError, StorageError
from nearsight.store import Field, create_store, open_store, parse
from nearsight.store.lance.store import LanceStore
from nearsight.store.postgres import connection as connections
from nearsight.store.postgres import indexes, search
from nearsight.store.postgres.sql import name_sql
from nearsight.store.postgres.store import PostgresStore
from nearsight.testing.stores import fetch, ids_of, rows, vectors_of

from fake import FakeBackend

DIM = 32
COLUMNS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("meta_part", pa.int64()),
        pa.field("thumbnail", pa.binary()),
        pa.field("vector", pa.list_(pa.float16(), DIM)),
    ]
)
FIELDS = {"part": Field("meta_part", pa.int64())}


def table(X, first=0):
    numbers = range(first, first + len(X))
    return pa.table(
        {
            "id": [f"{number:06}" for number in numbers],
            "meta_part": pa.array([number % 1000 for number in numbers], pa.int64()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), DIM),
        }
    )


@pytest.mark.slow
def test_a_collection_by_the_command_line(uri, photos, cache, server, tmp_path):
    secret = uri.replace("postgres@", f"postgres:{quote(server.password, safe='')}@")
    env = {"NEARSIGHT_COLLECTION": secret, "NEARSIGHT_CACHE": str(cache), "NO_COLOR": None}

    def run(*words, code=0):
        result = CliRunner(env=env).invoke(cli, [str(word) for word in words])
        assert result.exit_code == code, (words, result.stdout, result.stderr, result.exception)
        for written in (result.stdout, result.stderr):
            assert "secret" not in written
        return json.loads(result.stdout) if "--json" in words and not code else result

    assert "no collection" in run("info", code=2).stderr
    assert run("index", photos, "--json")["added"] == 6
    assert run("index", photos, "--json")["unchanged"] == 6
    info = run("info", "--json")
    assert (info["directory"], info["images"], info["storage"]) == (uri, 6, "float16")
    assert info["size_bytes"] > 0
    hits = run("search", photos / "3.png", "-k", 2, "--json")["hits"]
    assert hits[0]["path"].endswith("3.png")
    assert hits[0]["similarity"] > 0.99
    run("tag", "shelf=top", hits[0]["id"])
    [item] = run("ls", "--where", "shelf = 'top'", "--json")["items"]
    assert item["id"] == hits[0]["id"]
    run("duplicates", "--json")
    run("cluster", "--k", 2, "--json")
    run("compact")
    run("export", tmp_path / "rows.parquet")
    assert "6 images" in run("doctor").stdout
    run("rm", "--yes", hits[0]["id"])
    assert run("info", "--json")["images"] == 5
    env["NEARSIGHT_COLLECTION"] = uri.replace("postgres@", "postgres:wrong-secret@")
    assert "refuses the connection" in run("info", code=1).stderr
    env["NEARSIGHT_COLLECTION"] = uri.replace("postgres@", "postgres:two secret words@")
    assert "cannot read this URI" in run("info", code=2).stderr


@pytest.mark.slow
@pytest.mark.parametrize("analyzed", [True, False])
def test_filtered_searches_find_everything_whatever_the_planner_thinks(uri, analyzed, monkeypatch):
    monkeypatch.setattr(search, "MAX_COMPARED", 2000)
    monkeypatch.setattr(indexes, "MIN_INDEXED_ROWS", 2000)
    rng = np.random.default_rng(0)
    n = 5000
    X = rng.standard_normal((n, DIM)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    store = create_store(uri, COLUMNS)
    for start in range(0, n, 8000):
        store.append(table(X[start : start + 8000], start))
    store.maintain()
    with store._database.connection() as connection:
        if analyzed:
            for name in (store._tables.rows, store._tables.vectors):
                connection.execute(f"ANALYZE {name}")
        method = store._search._index(connection, store.version)
        assert method is not None
        assert method.name == "hnsw"
    stored = X.astype(np.float16).astype(np.float32)
    queries = rng.standard_normal((20, DIM)).astype(np.float32)
    filters = {None: 1000, "part < 990": 990, "part < 100": 100, "part < 10": 10, "part = 7": None}
    for text, part in filters.items():
        where = parse(text, FIELDS) if text else None
        parts = np.arange(n) % 1000
        matching = np.flatnonzero(parts == 7 if part is None else parts < part)
        found = store.search(queries, 10, where=where)
        recall = []
        for query, hits in zip(queries, found, strict=True):
            nearest = np.argsort(-(stored[matching] @ query))[:10]
            expected = {f"{matching[row]:06}" for row in nearest}
            assert len(hits) == len(expected)
            recall.append(len(expected & {hit.id for hit in hits}) / len(expected))
        assert np.mean(recall) >= 0.99, text
        plan = explained(store, queries[0], text, len(matching) > 2000 and method)
        assert ("knn" in plan) == (len(matching) > 2000), plan
        assert ("Sort" in plan) == (len(matching) <= 2000), plan


@pytest.mark.slow
def test_the_index_of_vectorchord_is_made_and_walked_where_the_extension_is(uri, server, monkeypatch):
    # A stand-in, since no registry has VectorChord: its name, before the graph of pgvector.
    place = uri.replace("/postgres?", "/chord?")
    with psycopg.connect(server.uri, password=server.password, autocommit=True) as admin:
        admin.execute("CREATE DATABASE chord TEMPLATE template0")
    store = create_store(place, COLUMNS)
    with store._database.connection() as admin:
        for statement in (
            "CREATE ACCESS METHOD vchordrq TYPE INDEX HANDLER hnswhandler",
            "CREATE OPERATOR CLASS halfvec_cosine_ops FOR TYPE halfvec USING vchordrq AS"
            " OPERATOR 1 <=> (halfvec, halfvec) FOR ORDER BY float_ops,"
            " FUNCTION 1 halfvec_negative_inner_product(halfvec, halfvec), FUNCTION 2 l2_norm(halfvec),"
            " FUNCTION 3 hnsw_halfvec_support(internal)",
            "INSERT INTO pg_extension SELECT 99999, 'vchord', extowner, extnamespace, false, '1.0'"
            " FROM pg_extension WHERE extname = 'vector'",
        ):
            admin.execute(statement)
    made, create = [], indexes.VectorIndex.create

    def without_options(self, *arguments):
        made.append(create(self, *arguments))
        return made[-1].partition(" WITH (")[0]

    monkeypatch.setattr(indexes.VectorIndex, "create", without_options)
    monkeypatch.setattr(indexes, "MIN_INDEXED_ROWS", 500)
    monkeypatch.setattr(indexes, "_LISTED_ROWS", 500)
    monkeypatch.setattr(search, "MAX_COMPARED", 100)
    X = np.random.default_rng(0).standard_normal((1000, DIM)).astype(np.float32)
    store.append(table(X))
    store.maintain()
    [statement] = made
    assert 'USING vchordrq ("vector" halfvec_cosine_ops) WITH (options = $$residual_quant' in statement
    assert "lists = [126]" in statement
    with store._database.connection() as connection:
        method = store._search._index(connection, store.version)
    assert (method.name, method.probes) == ("vchordrq", "12")
    assert search.search_settings(method, 10)["vchordrq.prefilter"] == "on"
    assert "knn" in explained(store, X[0], None, method)
    cosines = (X @ X[7]) / np.linalg.norm(X, axis=1)
    for text, n in ((None, 1000), ("part < 500", 500), ("part < 120", 120)):
        [hits] = store.search(X[7:8], 10, where=parse(text, FIELDS) if text else None)
        nearest = {f"{row:06}" for row in np.argsort(-cosines[:n])[:10]}
        assert len(hits) == 10
        assert len({hit.id for hit in hits} & nearest) >= 9


def explained(store, query, text, method):
    with store._database.connection() as connection:
        condition = store._condition(connection, parse(text, FIELDS) if text else None)
        sql, values = store._search.query(
            query, 10, store.stored_schema.field("vector").type, condition, [], method or None
        )
        settings = {**search._WALK, **search.search_settings(method, 10)} if method else {}
        with connection.transaction():
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, true)", (name, value))
            return "\n".join(line for (line,) in connection.execute(f"EXPLAIN {sql}", values).fetchall())


@pytest.mark.slow
def test_nothing_is_lost_when_the_server_is_killed(uri, server, monkeypatch):
    from nearsight.testing.stores import SCHEMA

    store, other = create_store(uri, SCHEMA), None
    store.append(rows(["a", "b"], thumbnail=[b"1", b"2"]))
    work = store._begin

    def killing(*args):
        # Once, in the middle of a write.
        monkeypatch.setattr(store, "_begin", work)
        begun = work(*args)
        server.kill()
        server.start()
        return begun

    monkeypatch.setattr(store, "_begin", killing)
    with store._lock:
        store.append(rows(["c", "d"], vectors_of(5, 6)))
    other = open_store(uri)
    assert ids_of(other) == ids_of(store) == ["a", "b", "c", "d"]
    assert fetch(other, ["thumbnail"], ids=["b"]) == [{"id": "b", "thumbnail": b"2"}]
    with store._lock:
        # Another writer gets in while the lock is lost: what was read under the lock is old.
        server.kill()
        server.start()
        open_store(uri).append(rows(["e"], vectors_of(9)))
        with pytest.raises(StorageError, match="another process has written"):
            store.delete(["a"])
    assert ids_of(store) == ["a", "b", "c", "d", "e"]
    monkeypatch.setattr(connections, "PAUSES_S", (0.01,))
    server.kill()
    with pytest.raises(StorageError, match="the server is away.*run the same command again"):
        store.count()
    server.start()
    assert store.count() == 5


@pytest.mark.slow
def test_a_server_that_stays_away_takes_the_lock_with_it(uri, server, monkeypatch):
    from nearsight.testing.stores import SCHEMA

    monkeypatch.setattr(connections, "PAUSES_S", (0.01,))
    store = create_store(uri, SCHEMA)
    with store._lock:
        server.kill()
        with pytest.raises(StorageError, match="the server is away.*run the same command again"):
            store.append(rows(["a"]))
        server.start()
        # Whoever goes on all the same has no lock, and gets it again only if nobody else has written.
        open_store(uri).append(rows(["b"]))
        with pytest.raises(StorageError, match="another process has written"):
            store.append(rows(["c"]))

    def write_while_it_is_killed():
        with store._lock:
            server.kill()
            store.append(rows(["a"]))

    try:
        with pytest.raises(StorageError, match="the server is away"):
            write_while_it_is_killed()
    finally:
        server.start()
    with store._lock:
        store.append(rows(["d"]))
    assert ids_of(store) == ["b", "d"]


@pytest.mark.slow
def test_limits_of_the_server_on_time_neither_end_a_wait_nor_a_connection(uri):
    from nearsight.testing.stores import SCHEMA

    def limited(name, milliseconds):
        return open_store(f"{uri}&options=-c%20{name}%3D{milliseconds}")

    other = create_store(uri, SCHEMA)
    store = limited("idle_session_timeout", 300)
    time.sleep(1)
    assert store.count() == 0
    store = limited("statement_timeout", 1000)

    def write():
        with store._lock:
            store.append(rows(["a"]))

    with ThreadPoolExecutor(1) as pool:
        with other._lock:
            waiting = pool.submit(write)
            time.sleep(2)
        waiting.result()
    assert ids_of(other) == ["a"]
    with store._database.connection() as connection:
        store._indexes._build(connection, "SELECT pg_sleep(1.5)")
        # Elsewhere the limit holds, and a machine that has gone is noticed.
        settings = {
            name: connection.execute(f"SHOW {name}").fetchone()[0]
            for name in ("statement_timeout", "tcp_keepalives_idle")
        }
    assert settings == {"statement_timeout": "1s", "tcp_keepalives_idle": "30"}


@pytest.mark.slow
def test_adding_searching_and_copying_go_on_when_the_server_is_killed(
    uri, server, photos, tmp_path, monkeypatch
):
    from nearsight.testing.stores import SCHEMA

    kills = []

    def kill_once(owner, name):
        """Kill the server in the middle of the next call."""
        work = getattr(owner, name)

        def killing(*arguments, **options):
            monkeypatch.setattr(owner, name, work)
            server.kill()
            server.start()
            kills.append(name)
            return work(*arguments, **options)

        monkeypatch.setattr(owner, name, killing)

    collection = Collection.create(uri, model=FakeBackend())
    kill_once(PostgresStore, "_begin")
    assert collection.add(photos).added == 6
    expected = collection.search(photos / "3.png")
    kill_once(search.Search, "nearest")
    assert collection.search(photos / "3.png") == expected
    kill_once(PostgresStore, "_batch_query")
    kill_once(LanceStore, "append")
    assert copy_collection(uri, tmp_path / "copy", verify=True).n_copied == 6
    kill_once(PostgresStore, "_begin")
    assert copy_collection(tmp_path / "copy", f"{uri}-2", verify=True).n_copied == 6
    assert kills == ["_begin", "nearest", "_batch_query", "append", "_begin"]

    # At any moment of a writer that knows nothing of it.
    store, acknowledged, is_over = create_store(f"{uri}-3", SCHEMA), [], threading.Event()

    def write():
        while not is_over.is_set():
            id = f"{len(acknowledged):05}"
            with store._lock:
                store.append(rows([id], vectors_of(len(acknowledged))))
            acknowledged.append(id)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        for _ in range(3):
            target = len(acknowledged) + 4
            while len(acknowledged) < target and not writer.done():
                time.sleep(0.005)
            server.kill()
            server.start()
        is_over.set()
        writer.result()
    assert ids_of(open_store(f"{uri}-3")) == acknowledged


@pytest.mark.slow
def test_a_copy_there_and_back_goes_on_after_a_kill(uri, photos, tmp_path):
    source = Collection.create(tmp_path / "source", model=FakeBackend())
    source.add(photos, metadata={"shelf": "top", "price": 9.5})
    code = (
        "import sys, os; from nearsight.collection import collection_copy as c; c._ROWS_PER_WRITE = 1;"
        "writes = c._missing, c._writes; n = iter(range(99));"
        "c._writes = lambda rows, schema: (t.slice(i, 1) for t in writes[1](rows, schema)"
        " for i in range(len(t)) if next(n) < 4 or os.kill(os.getpid(), 9));"
        "c.copy_collection(sys.argv[1], sys.argv[2])"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "source"), uri])
    assert killed.returncode == -9
    with pytest.raises(NotACollectionError, match="unfinished copy"):
        Collection.open(uri)
    report = copy_collection(tmp_path / "source", uri, verify=True)
    # Rows are read ahead: the last of the four may not have been written.
    assert (report.n_images, report.n_copied in (2, 3)) == (6, True)
    assert copy_collection(uri, tmp_path / "back", storage="float32", verify=True).n_copied == 6
    one, two = (list(Collection.open(place).items()) for place in (tmp_path / "source", tmp_path / "back"))
    by_id = {item.id: item for item in two}
    assert [by_id[item.id] for item in one] == one


@pytest.mark.slow
def test_a_column_whose_name_the_server_has_cut_is_found(uri):
    name = "meta_" + "a" * 63
    store = create_store(uri, COLUMNS)
    store.add_columns([pa.field(name, pa.string())])
    store.append(rows(["a"], vectors_of(1, dim=DIM)))
    store.update(pa.table({"id": ["a"], name: ["top"]}))
    with store._database.connection() as connection:
        # As versions before had it.
        connection.execute(f'ALTER TABLE {store._tables.rows} RENAME {name_sql(name)} TO "{name[:63]}"')
    for _ in range(2):
        assert fetch(open_store(uri), [name]) == [{"id": "a", name: "top"}]
