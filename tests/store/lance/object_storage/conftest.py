"""A place in the bucket of a server that speaks S3."""

from itertools import count

import pytest

from s3_server import VARIABLES

_NUMBERS = count()


@pytest.fixture(scope="session")
def server(s3_server):
    return s3_server


@pytest.fixture
def uri(server, monkeypatch, tmp_path):
    """The URI of a collection that is not there yet."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "files"))
    return f"s3://photos/c{next(_NUMBERS)}?endpoint={server.url}"
