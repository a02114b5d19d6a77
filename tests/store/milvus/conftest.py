"""A Milvus server for the tests of a file; a second one at a time does not start."""

from itertools import count

import pytest

from milvus_server import MilvusServer, is_installed

_NUMBERS = count()


@pytest.fixture(scope="module")
def server():
    if not is_installed():
        pytest.skip("the package milvus is not installed; make milvus has it")
    pytest.importorskip("pymilvus")
    server = MilvusServer()
    yield server
    server.stop()


@pytest.fixture
def uri(server, monkeypatch, tmp_path):
    """The URI of a collection that is not there yet, and is deleted after the test."""
    if not server.is_running():
        # One test has killed it, and failed: it alone.
        server.start()
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "files"))
    name = f"c{next(_NUMBERS)}"
    yield f"{server.uri}?collection={name}"
    if server.is_running():
        server.drop(name)
