"""Places for collections: a directory, a bucket, and a database on servers of the process that runs tests."""

from itertools import count

import pytest

import milvus_server
import s3_server

_NUMBERS = count()


# A second one at a time does not start: each file has its own.
@pytest.fixture(scope="module")
def milvus():
    if not milvus_server.is_installed():
        pytest.skip("the package milvus is not installed; make milvus has it")
    pytest.importorskip("pymilvus")
    server = milvus_server.MilvusServer()
    yield server
    server.stop()


@pytest.fixture
def place(request, tmp_path, monkeypatch):
    """The directory or URI of a collection that is not there yet; a test names the engine by a parameter."""
    engine, name = getattr(request, "param", "directory"), f"moves{next(_NUMBERS)}"
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "files"))
    if engine == "s3":
        for variable, value in s3_server.VARIABLES.items():
            monkeypatch.setenv(variable, value)
        yield f"s3://photos/{name}?endpoint={request.getfixturevalue('s3_server').url}"
    elif engine == "postgres":
        server = request.getfixturevalue("postgres")
        monkeypatch.setenv("PGPASSWORD", server.password)
        yield f"{server.uri}?collection={name}"
    elif engine == "milvus":
        server = request.getfixturevalue("milvus")
        yield f"{server.uri}?collection={name}"
        server.drop(name)
    else:
        yield tmp_path / "c"
