import os
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nearsight.errors import InvalidParameterError, StorageError
from nearsight.services.jobs import WORKER_MODULE, JobTable, is_worker


@pytest.fixture
def table(tmp_path):
    return JobTable(tmp_path / "data")


def test_the_life_of_a_job(table):
    job, is_new = table.add("cluster", {"a": 1}, key_prefix="ns_x")
    assert (job.state, job.args, is_new) == ("queued", {"a": 1}, True)
    claimed = table.claim()
    assert (claimed.id, claimed.state) == (job.id, "running")
    assert table.claim() is None
    table.report(job.id, done=3, total=9, message="comparing")
    running = table.get(job.id)
    assert (running.done, running.total, running.message) == (3, 9, "comparing")
    table.finish(job.id, "done", result={"clusters": 4})
    done = JobTable(table.path.parent).get(job.id)
    assert (done.state, done.result) == ("done", {"clusters": 4})
    assert done.ended >= done.started >= done.created
    assert table.counts() == {("cluster", "done"): 1}


def test_the_oldest_comes_first_and_the_latest_is_listed_first(table):
    jobs = [table.add("index", {"i": i})[0] for i in range(3)]
    assert [job.id for job in table.list()] == [job.id for job in reversed(jobs)]
    assert table.claim().id == jobs[0].id
    assert [job.id for job in table.list(state="queued", limit=1)] == [jobs[2].id]


def test_one_idempotency_key_is_one_job(table):
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda _: table.add("index", {"a": 1}, idempotency_key="k"), range(8)))
    assert len({job.id for job, _ in added}) == 1
    assert sum(is_new for _, is_new in added) == 1
    with pytest.raises(InvalidParameterError, match="used for another"):
        table.add("index", {"a": 2}, idempotency_key="k")
    assert table.add("index", {"a": 2}, idempotency_key="k", key_prefix="other")[1]
    with sqlite3.connect(table.path) as database:
        database.execute("UPDATE jobs SET created = created - 90000")
    assert table.add("index", {"a": 2}, idempotency_key="k")[1]


def test_several_claim_and_each_job_runs_once(table):
    for i in range(20):
        table.add("index", {"i": i})
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: table.claim(), range(30)))
    ids = [job.id for job in claimed if job]
    assert len(ids) == len(set(ids)) == 20


def test_cancelling_and_resuming(table):
    job, _ = table.add("cluster", {})
    assert table.cancel(job.id).state == "cancelled"
    with pytest.raises(InvalidParameterError, match="is cancelled"):
        table.cancel(job.id)
    assert table.resume(job.id).state == "queued"
    with pytest.raises(InvalidParameterError, match="is queued"):
        table.resume(job.id)
    table.claim()
    assert table.cancel(job.id).is_cancel_requested
    # What has stopped before it was done can be left so; what is done cannot be cancelled.
    table.finish(job.id, "failed", error="no room")
    assert table.cancel(job.id).state == "cancelled"
    table.finish(job.id, "done", result={})
    with pytest.raises(InvalidParameterError, match="is done"):
        table.cancel(job.id)
    for id in ("none", "' OR 1 --"):
        with pytest.raises(InvalidParameterError, match="there is no job"):
            table.get(id)


def test_after_a_crash_what_may_go_on_does_and_the_rest_is_offered(table):
    index, _ = table.add("index", {})
    cluster, _ = table.add("cluster", {})
    cancelled, _ = table.add("map", {})
    for _ in range(3):
        table.claim()
    # A process of that id runs, and is not one of ours.
    table.has_started(cluster.id, os.getpid())
    table.cancel(cancelled.id)
    JobTable(table.path.parent).recover()
    assert [table.get(job.id).state for job in (index, cluster, cancelled)] == [
        "queued",
        "interrupted",
        "cancelled",
    ]


def test_a_worker_that_outlived_the_service_is_ended(table):
    program = "print('ready', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program, WORKER_MODULE], **pipes) as worker:
        worker.stdout.readline()  # its name is known only when it runs
        assert is_worker(worker.pid)
        job, _ = table.add("cluster", {})
        table.claim()
        table.has_started(job.id, worker.pid)
        table.recover()
        assert worker.wait(20) != 0
    assert not is_worker(worker.pid)


def aged(table):
    """Let the files of a table look as if nobody had written for a minute."""
    for file in table.path.parent.iterdir():
        os.utime(file, (time.time() - 60,) * 2)


def test_a_table_that_did_not_change_need_not_be_read(table):
    table.add("cluster", {})
    changes = table.changes()
    # What was just written may be written once more at the same time of its clock.
    assert [changes.may_differ() for _ in range(3)] == [True] * 3
    aged(table)
    assert [changes.may_differ() for _ in range(3)] == [True, False, False]
    assert JobTable(table.path.parent).claim() is not None
    assert changes.may_differ()
    aged(table)
    assert [changes.may_differ(), changes.may_differ()] == [True, False]
    assert table.claim() is None
    assert not changes.may_differ()


def test_passwords_that_an_earlier_version_wrote_down_are_removed(table):
    place = "postgres://ann:{}@host/shop?collection=photos&sslpassword={}"
    job, _ = table.add("index", {"directory": place.format("old-secret", "other-secret"), "folder": "/a"})
    table.add("cluster", {"directory": "/srv/photos"})
    table.recover()
    shown = "postgres://ann@host/shop?collection=photos&sslpassword=***"
    assert table.get(job.id).args == {"directory": shown, "folder": "/a"}
    for file in table.path.parent.iterdir():
        assert b"-secret" not in file.read_bytes()
    table.finish(job.id, "failed", error=f"{place.format('x-secret', 'y-secret')} is away")
    assert table.get(job.id).error == f"{shown} is away"


def test_a_table_that_is_no_table(table):
    table.path.parent.mkdir()
    table.path.write_bytes(b"Dear diary" * 1000)
    with pytest.raises(StorageError, match="cannot be used"):
        table.list()


def test_what_queued_jobs_wait_for(table):
    assert table.waits() == {}
    ids = [table.add(kind, {"n": n})[0].id for n, kind in enumerate(["index", "map", "audit"])]
    waits = table.waits()
    assert waits[ids[0]] == "it starts in a moment, if the service runs"
    assert waits[ids[1]] == f"jobs run one at a time: it waits for {ids[0]} (index)"
    assert waits[ids[2]] == f"jobs run one at a time: it waits for {ids[0]} (index) and 1 more"
    table.claim()
    assert ids[0] not in table.waits()
    watches = [table.add("anomaly_watch", {"n": n})[0].id for n in range(5)]
    assert table.waits()[watches[0]] == waits[ids[0]]
    assert table.waits()[watches[4]].startswith("4 folders are watched")
