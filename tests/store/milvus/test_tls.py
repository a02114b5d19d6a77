"""A server that speaks TLS, with a certificate of its own."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from milvus_server import MilvusServer, is_installed

# gRPC reads once in a process which certificates it trusts.
SCRIPT = """
import sys
from nearsight.doctor import check_store
from nearsight.store import create_store
from nearsight.testing.stores import SCHEMA, rows, vectors_of

store = create_store(sys.argv[1], SCHEMA)
store.append(rows(["a", "b"]))
print(store.search(vectors_of(1), 1)[0][0].id)
print([(check.name, check.status, check.detail) for check in check_store(sys.argv[1])])
"""


@pytest.fixture
def server():
    if not is_installed() or shutil.which("openssl") is None:
        pytest.skip("the package milvus, or openssl, is not installed; make milvus has the package")
    pytest.importorskip("pymilvus")
    server = MilvusServer(is_encrypted=True)
    yield server
    server.stop()


def run(uri, tmp_path, certificate=""):
    variables = {**os.environ, "NEARSIGHT_FILES": str(tmp_path)}
    if certificate:
        variables["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] = str(certificate)
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, uri], env=variables, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_certificates_are_checked(server, tmp_path):
    uri = f"milvus://localhost:{server.port}?collection=a&tls=1"
    deadline = time.monotonic() + 120
    while (done := run(uri, tmp_path, server.certificate)).returncode and time.monotonic() < deadline:
        time.sleep(1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("b\n")
    assert "('encryption', 'ok', 'TLS')" in done.stdout
    for wrong, place in ((uri, ""), (uri.replace("localhost", "127.0.0.1"), server.certificate)):
        refused = run(wrong, tmp_path, place)
        assert "StorageError: milvus://" in refused.stderr
        assert "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names" in refused.stderr
