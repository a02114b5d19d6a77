"""What `nearsight doctor` finds in a database; and no command says a password."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from urllib.parse import quote

import psycopg
import pytest

from nearsight.doctor import check_store
from nearsight.errors import InvalidParameterError
from nearsight.store import create_store
from nearsight.store.postgres import checks, indexes
from nearsight.store.postgres import connection as connections
from nearsight.store.postgres.address import parse_address
from nearsight.testing.stores import SCHEMA, rows, vectors_of

from postgres_server import PostgresServer, find_encrypting


def found(uri):
    return {check.name: check for check in check_store(uri)}


@pytest.fixture
def admin(server):
    with psycopg.connect(server.uri, password=server.password, autocommit=True) as connection:
        yield connection


@pytest.mark.slow
def test_doctor_names_what_is_wrong_with_a_database(uri, server, admin, monkeypatch):
    assert [check.status for check in check_store(uri)] == ["ok"] * 4
    monkeypatch.setattr(indexes, "MIN_INDEXED_ROWS", 40)
    monkeypatch.setattr(checks, "MIN_INDEXED_ROWS", 40)
    store = create_store(uri, SCHEMA)
    tables = store._tables
    for table in (tables.rows, tables.vectors):
        admin.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    store.append(rows(["a"], vectors_of(1)))
    new = found(uri)
    assert [new[name].status for name in ("rows", "index", "statistics")] == ["ok"] * 3
    assert new["server"].detail.startswith("PostgreSQL 16")
    assert "0.8" in new["pgvector"].detail
    assert "on this machine" in new["encryption"].detail
    store.append(rows([f"{i:02}" for i in range(60)], vectors_of(*range(60))))
    large = found(uri)
    assert ("missing" in large["index"].detail, large["index"].status) == (True, "warn")
    assert (large["statistics"].detail, large["statistics"].status) == ("never gathered", "warn")
    assert "nearsight compact" in large["index"].fix
    store.optimize()
    assert {check.status for check in check_store(uri)} == {"ok"}
    admin.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid ="
        " (SELECT indexrelid FROM pg_index i JOIN pg_class c ON c.oid = indexrelid"
        "  WHERE indrelid = to_regclass(%s) AND c.relname LIKE '%%.knn')",
        (tables.vectors,),
    )
    assert "not valid" in found(uri)["index"].detail
    store.maintain()
    assert found(uri)["index"].status == "ok"
    admin.execute(f"DELETE FROM {tables.vectors} WHERE _row IN (SELECT _row FROM {tables.rows} LIMIT 3)")
    lost = found(uri)["rows"]
    assert (lost.status, "3 of 61 have no vector" in lost.detail) == ("fail", True)
    admin.execute(lost.fix.partition(": ")[2])
    assert found(uri)["rows"].status == "ok"


@pytest.mark.slow
def test_doctor_names_missing_rights_and_servers(uri, server, admin, monkeypatch):
    store = create_store(uri, SCHEMA)
    admin.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    monkeypatch.setenv("PGPASSWORD", "guest")
    guest = uri.replace("postgres@", "guest@")
    refused = found(guest)["permissions"]
    assert (refused.status, "USAGE on the schema" in refused.detail) == ("fail", True)
    admin.execute("GRANT USAGE ON SCHEMA nearsight TO guest")
    admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA nearsight TO guest")
    reader = found(guest)["permissions"]
    assert (reader.status, "DELETE on" in reader.detail, "GRANT" in reader.fix) == ("warn", True, True)
    assert found(f"{guest}&schema=another")["permissions"].fix.endswith('AUTHORIZATION "guest"')
    monkeypatch.setenv("PGPASSWORD", server.password)
    for name, options in (
        ("bare", "TEMPLATE template0"),
        ("ascii", "ENCODING 'SQL_ASCII' TEMPLATE template0"),
    ):
        admin.execute(f"CREATE DATABASE {name} {options}")
    assert found(uri.replace("/postgres?", "/bare?"))["pgvector"].status == "ok"
    monkeypatch.setenv("PGPASSWORD", "guest")
    bare = found(guest.replace("/postgres?", "/bare?"))
    monkeypatch.setenv("PGPASSWORD", server.password)
    assert (bare["pgvector"].status, bare["pgvector"].fix.endswith("CREATE EXTENSION vector")) == (
        "fail",
        True,
    )
    assert found(uri.replace("/postgres?", "/ascii?"))["server"].status == "fail"
    monkeypatch.setattr(connections, "PAUSES_S", (0.01,))
    away = found(uri.replace(str(server.port), "1"))
    assert (list(away), away["server"].status, bool(away["server"].fix)) == (["server"], "fail", True)
    monkeypatch.setenv("PGPASSWORD", "wrong-secret")
    assert "refuses the connection" in found(uri)["server"].detail
    assert store.count() == 0


@pytest.mark.slow
def test_certificates_are_checked(monkeypatch):
    programs = find_encrypting()
    if programs is None:
        pytest.skip("no PostgreSQL with TLS, or no openssl, is installed")
    server = PostgresServer(programs)
    try:
        monkeypatch.setenv("PGPASSWORD", server.password)
        by_number = f"{server.uri}?collection=a"
        by_name, root = by_number.replace("127.0.0.1", "localhost"), f"sslrootcert={server.certificate}"
        unchecked = found(by_name)["encryption"]
        assert (unchecked.status, "TLS" in unchecked.detail) == ("warn", True)
        assert "verify-full" in unchecked.fix
        checked = found(f"{by_name}&sslmode=verify-full&{root}")
        assert checked["encryption"].status == "ok"
        assert checked["encryption"].detail.endswith("sslmode=verify-full")
        assert (checked["pgvector"].status, checked["pgvector"].detail) == (
            "fail",
            "the server does not have it",
        )
        # The certificate is of another name, or is not trusted.
        for uri in (
            f"{by_number}&sslmode=verify-full&{root}",
            f"{by_name}&sslmode=verify-full&sslrootcert=system",
        ):
            [refused] = check_store(uri)
            assert (refused.status, "certificate" in refused.detail) == ("fail", True), refused
            assert "the server refuses the connection" in refused.detail
            assert "sslmode" in refused.fix
    finally:
        server.stop()


@pytest.mark.slow
def test_no_password_is_in_anything_that_commands_say_or_leave(uri, server, photos, cache, tmp_path):
    secrets = [server.password, quote(server.password, safe=""), "wr0ng secret/", "wr0ng%20secret%2F"]
    quoted, wrong = secrets[1], secrets[3]

    def with_password(text, password):
        return text.replace("postgres@", f"postgres:{password}@")

    as_option = f"{uri}&password={quoted}"
    places = [
        (with_password(uri, quoted), ""), (as_option, ""), (uri, server.password),
        (with_password(uri, wrong), ""), (uri, "wr0ng secret/"), (with_password(uri, "wr0ng secret/"), ""),
        (with_password(uri, quoted).replace(str(server.port), "1") + "&connect_timeout=1", ""),
        (with_password(uri, quoted) + "&nonsense=1", ""),
        (with_password(uri, quoted).replace("collection=", "c="), ""),
    ]  # fmt: skip
    # One process for all, because most of its time would go into imports.
    code = (
        "import json, os, sys\n"
        "from nearsight import doctor\n"
        "from nearsight.cli.main import cli\n"
        "from nearsight.store.postgres import connection\n"
        "connection.PAUSES_S = (0.01,)\n"
        "for name in ('bfloat16', 'gpu', 'gpu_decoding', 'model', 'workers'):\n"
        "    setattr(doctor, f'check_{name}', lambda *_: doctor.Check('left out', 'ok', ''))\n"
        "for place, password, *commands in json.loads(sys.argv[1]):\n"
        "    os.environ.update(NEARSIGHT_COLLECTION=place, PGPASSWORD=password)\n"
        "    for words in commands:\n"
        "        try:\n"
        "            cli(words)\n"
        "        except SystemExit as end:\n"
        "            print('\\nRAN', end.code or 0, flush=True)\n"
    )
    jobs = [
        [
            *place, ["index", str(photos)], ["info", "--json"], ["doctor", "--json"], ["search", "--id", "x"],
            ["copy", place[0], str(tmp_path / f"copy{number}"), "--verify", "--json"],
        ]
        for number, place in enumerate(places)
    ]  # fmt: skip
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path),
        "NEARSIGHT_CACHE": str(cache), "NEARSIGHT_FILES": str(tmp_path / "files"),
    }  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(jobs)], env=environment, capture_output=True, text=True
    )
    said = result.stdout + result.stderr
    for secret in secrets:
        assert secret not in said, said
    codes = [int(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("RAN")]
    assert len(codes) == 5 * len(places), said
    ran = [codes[start : start + 5] for start in range(0, len(codes), 5)]
    # Of the first three places, all that can succeed does; of the others, nothing.
    assert ran[:3] == [[0, 0, 0, 2, 0]] * 3
    assert all(0 not in codes for codes in ran[3:]), ran
    left = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert left
    for secret in secrets:
        assert not any(secret.encode() in content for content in left)


def test_a_host_that_says_nothing_is_not_asked_again_for_long(monkeypatch):
    """Each try takes all of its ten seconds there."""
    pytest.importorskip("psycopg")
    pool, seconds, n_tries = (
        connections.ConnectionPool(parse_address("postgres://host/?collection=a")),
        [0.0],
        [],
    )

    def connect():
        n_tries.append(1)
        seconds[0] += 10
        raise connections.LostConnectionError("timeout expired")

    monkeypatch.setattr(pool, "_connect", connect)
    monkeypatch.setattr(
        "nearsight.store.postgres.connection.time", SimpleNamespace(monotonic=lambda: seconds[0])
    )
    with pytest.raises(connections.LostConnectionError):
        pool.connect()
    assert len(n_tries) == 1


def test_an_option_that_no_driver_knows_is_named():
    pool = connections.ConnectionPool(parse_address("postgres://ann:s3cret@host/db?collection=a&color=red"))
    with pytest.raises(InvalidParameterError, match=r"no options \['color'\].*such as sslmode") as caught:
        pool.connect()
    assert "s3cret" not in str(caught.value)
