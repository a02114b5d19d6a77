"""Who runs jobs looks for them without reading a table that did not change."""

import asyncio
import os
import time

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
