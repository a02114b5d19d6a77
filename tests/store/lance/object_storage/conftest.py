"""One server that speaks S3 for all tests of a process, and a bucket."""

from itertools import count

import pytest

from s3_server import VARIABLES, S3Server, is_installed

_NUMBERS = count()


@pytest.fixture(scope="session")
def server():
    if not is_installed():
        pytest.skip("the packages moto and s3fs are not installed")
    server = S3Server()
    server.make_bucket("photos")
    yield server
    server.stop()


@pytest.fixture
def uri(server, monkeypatch, tmp_path):
    """The URI of a collection that is not there yet."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "files"))
    return f"s3://photos/c{next(_NUMBERS)}?endpoint={server.url}"
