"""Who runs jobs looks for them without reading a table that did not change."""

import asyncio
import errno
import os
import time

import pytest

from nearsight.errors import StorageError
from nearsight.server import jobs
from nearsight.server.jobs import JobRunner
from nearsight.server.metrics import Metrics
from nearsight.services.jobs import JobTable

from coroutines import run_coroutine


def test_a_service_without_work_does_not_read_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_POLL_S", 0.002)
    table = JobTable(tmp_path)
    done, _ = table.add("map", {})
    table.finish(done.id, "done")
    for file in tmp_path.iterdir():
        os.utime(file, (time.time() - 60,) * 2)
    n_read, ran = dict.fromkeys(("claim", "claim_standing", "counts"), 0), []

    def counted(name):
        read = getattr(table, name)

        def count():
            n_read[name] += 1
            return read()

        return count

    for name in n_read:
        monkeypatch.setattr(table, name, counted(name))
    n_looks = 0
    changes = table.changes

    def counted_changes():
        seen = changes()
        may_differ = seen.may_differ

        def look():
            nonlocal n_looks
            n_looks += 1
            return may_differ()

        seen.may_differ = look
        return seen

    monkeypatch.setattr(table, "changes", counted_changes)

    async def in_thread(function, *args, **options):
        return await asyncio.to_thread(function, *args, **options)

    async def run():
        runner = JobRunner(table, in_thread, Metrics(), place={"written": "real"}.get)

        async def run_one(job):
            ran.append(job.kind)

        monkeypatch.setattr(runner, "_run_one", run_one)
        task = asyncio.ensure_future(runner.run())
        while n_looks < 60:
            await asyncio.sleep(0.005)
        # A reader that overlaps with another sees that the file was touched, and reads once more: on a busy
        # machine that makes three of some twenty looks each.
        assert max(n_read.values()) < 10, n_read
        # Another process asks for two jobs.
        other = JobTable(tmp_path)
        other.add("audit", {})
        other.add("anomaly_watch", {})
        while len(ran) < 2:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_coroutine(run())
    assert sorted(ran) == ["anomaly_watch", "audit"]


@pytest.mark.parametrize("fault", ["no process", "full disk", "other lines"])
def test_the_next_job_runs_whatever_becomes_of_one(tmp_path, monkeypatch, fault):
    """A runner that ends with one job leaves all later ones queued, and nobody is told."""
    monkeypatch.setattr(jobs, "_POLL_S", 0.01)
    monkeypatch.setattr(jobs, "_RETRY_S", 0.01)
    # It prints what is no JSON, and ends at once.
    monkeypatch.setattr(jobs, "WORKER_MODULE", "this")
    table = JobTable(tmp_path)

    def failing_once(function, error):
        faults = [error]

        def call(*args, **options):
            if faults:
                raise faults.pop()
            return function(*args, **options)

        return call

    if fault == "no process":
        start = asyncio.create_subprocess_exec
        error = OSError(errno.EMFILE, "too many open files")
        monkeypatch.setattr(asyncio, "create_subprocess_exec", failing_once(start, error))
    elif fault == "full disk":
        for name in ("claim", "has_started", "get", "finish"):
            error = StorageError("the disk is full")
            monkeypatch.setattr(table, name, failing_once(getattr(table, name), error))

    async def in_thread(function, *args, **options):
        return await asyncio.to_thread(function, *args, **options)

    async def run():
        runner = JobRunner(table, in_thread, Metrics())
        ids = [(await runner.add("map", {}))[0].id for _ in range(2)]
        task = asyncio.ensure_future(runner.run())
        for _ in range(6000):
            listed = {job.id: job for job in JobTable(tmp_path).list()}
            if all(listed[id].state == "failed" for id in ids) or task.done():
                break
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return [listed[id] for id in ids]

    first, second = run_coroutine(run())
    assert (first.state, second.state) == ("failed", "failed")
    told = "could not run it" if fault == "no process" else "ended with 0"
    assert told in first.error
    assert "ended with 0" in second.error
