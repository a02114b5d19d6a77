"""A deployment with two query nodes, of which one is killed under load."""

import threading
import time
from contextlib import suppress
from importlib.util import find_spec

import numpy as np
import pytest

from nearsight.doctor import check_store
from nearsight.errors import StorageError
from nearsight.store import create_store, open_store, parse
from nearsight.testing.stores import FIELDS, SCHEMA, ids_of, rows, vectors_of

from milvus_server import MilvusCluster, is_installed

N_ROWS = 400


@pytest.fixture(scope="module")
def cluster():
    if not (is_installed() and find_spec("confluent_kafka")):
        pytest.skip("the packages milvus and confluent-kafka are not installed; make milvus has them")
    pytest.importorskip("pymilvus")
    cluster = MilvusCluster()
    yield cluster
    cluster.stop()


class Worker(threading.Thread):
    """Repeats a call until it is stopped; counts right answers, and keeps errors and wrong answers."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self._call, self._is_stopped = call, threading.Event()
        self.n_right, self.errors, self.wrong = 0, [], []
        self.start()

    def run(self):
        while not self._is_stopped.is_set():
            try:
                wrong = self._call()
            except StorageError as error:
                self.errors.append(str(error))
                time.sleep(0.05)
                continue
            if wrong is None:
                self.n_right += 1
            else:
                self.wrong.append(wrong)

    def __repr__(self):
        return f"{self.n_right} right, {len(self.errors)} errors, the last {self.errors[-1:]}"

    def stop(self):
        self._is_stopped.set()
        self.join()


def wait_until(holds, what):
    deadline = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < deadline, str(what)
        time.sleep(0.1)


@pytest.mark.slow
def test_a_query_node_killed_under_load_loses_nothing(cluster, monkeypatch, tmp_path):
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path))
    uri = f"{cluster.uri}?collection=load&replicas=2"
    with pytest.raises(
        StorageError, match=r"answers 'nodes not enough.*' to replicas=2.*Start as many query"
    ):
        create_store(uri, SCHEMA)
    cluster.start_node()
    store = created_when_possible(uri)
    X = vectors_of(*range(N_ROWS))
    store.append(rows([f"{i:03}" for i in range(N_ROWS)], X, width=list(range(N_ROWS))))
    acknowledged, tried = [], []
    nearest = [[f"{i:03}" for i in own] for own in np.argsort(-(X[:8] @ X.T), axis=1)[:, :10]]

    def search():
        found = [[hit.id for hit in own] for own in store.search(X[:8], 10, where=old)]
        return None if found == nearest else found

    def count():
        n_rows = store.count(old)
        return None if n_rows == N_ROWS else n_rows

    def write():
        id = f"new {len(tried)}"
        tried.append(id)
        store.append(rows([id], vectors_of(N_ROWS + len(tried)), width=[N_ROWS + len(tried)]))
        acknowledged.append(id)

    old = parse(f"width < {N_ROWS}", FIELDS)
    workers = [Worker(call) for call in (search, count, write)]

    def answer(status):
        """Wait until doctor says this of the replicas, and then for some more right answers of each kind."""
        wait_until(
            lambda: replica_status(uri) == status, f"the server does not say that replicas are {status}"
        )
        before = [worker.n_right for worker in workers]
        wait_until(
            lambda: all(w.n_right >= n + 10 for w, n in zip(workers, before, strict=True)),
            ["no answers for long, with replicas", status, before, workers],
        )

    answer("ok")
    # Who asks for another number does not change it.
    other = open_store(f"{cluster.uri}?collection=load")
    other._server._load(other._server._client, other._table)
    answer("ok")
    cluster.kill_node()
    answer("warn")
    cluster.start_node()
    answer("ok")
    for worker in workers:
        worker.stop()
    assert [worker.wrong for worker in workers] == [[], [], []]
    ids = ids_of(store)
    assert {*acknowledged} <= {*ids} - {f"{i:03}" for i in range(N_ROWS)} <= {*tried}
    assert store.count() == len(ids) >= N_ROWS + 30
    assert search() is None


def replica_status(uri):
    return next((check.status for check in check_store(uri) if check.name == "replicas"), None)


def created_when_possible(uri):
    """Return a store, once the new node is known to the server."""
    found = []

    def create():
        with suppress(StorageError):
            found.append(create_store(uri, SCHEMA))
        return found

    wait_until(create, "the server does not know the new node")
    return found[0]
