"""A place in the database of a PostgreSQL server."""

from itertools import count

import pytest

_NUMBERS = count()


@pytest.fixture(scope="session")
def server(postgres):
    return postgres


@pytest.fixture
def uri(server, monkeypatch, tmp_path):
    """The URI of a collection that is not there yet."""
    monkeypatch.setenv("PGPASSWORD", server.password)
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "files"))
    return f"{server.uri}?collection=c{next(_NUMBERS)}"
